"""Subresources of configuration that Trefoil does not have: reading answers `not configured` as S3 does, writing is refused by name.

Deleting what is not configured succeeds, as in S3.
"""

from __future__ import annotations

from collections.abc import Mapping

from protocols.s3.context import Context
from protocols.s3.errors import S3Error, not_implemented
from protocols.s3.request import Request
from protocols.s3.response import NO_CONTENT, Response, xml_response

# subresource -> (feature, error code when read)
_ABSENT: Mapping[str, tuple[str, str]] = {
    "policy": ("Bucket policy", "NoSuchBucketPolicy"),
    "policyStatus": ("Bucket policy status", "NoSuchBucketPolicy"),
    "lifecycle": ("Bucket lifecycle", "NoSuchLifecycleConfiguration"),
    "cors": ("Bucket CORS", "NoSuchCORSConfiguration"),
    "encryption": ("Bucket encryption", "ServerSideEncryptionConfigurationNotFoundError"),
    "object-lock": ("Object lock", "ObjectLockConfigurationNotFoundError"),
    "publicAccessBlock": ("Public access block", "NoSuchPublicAccessBlockConfiguration"),
    "ownershipControls": ("Ownership controls", "OwnershipControlsNotFoundError"),
    "website": ("Static website", "NoSuchWebsiteConfiguration"),
    "replication": ("Replication", "ReplicationConfigurationNotFoundError"),
}
# subresource -> (feature, root and content of the empty document when read)
_EMPTY: Mapping[str, tuple[str, str, str]] = {
    "logging": ("Bucket logging", "BucketLoggingStatus", ""),
    "notification": ("Bucket notification", "NotificationConfiguration", ""),
    "requestPayment": ("Requester pays", "RequestPaymentConfiguration", "<Payer>BucketOwner</Payer>"),
    "accelerate": ("Transfer acceleration", "AccelerateConfiguration", ""),
}
_FEATURES: Mapping[str, str] = {
    "inventory": "Inventory",
    "analytics": "Analytics",
    "metrics": "Request metrics",
    "intelligent-tiering": "Intelligent tiering",
    "metadataTable": "Metadata tables",
    "metadataConfiguration": "Metadata tables",
    "session": "Directory bucket sessions",
    "legal-hold": "Object legal hold",
    "retention": "Object retention",
    "torrent": "BitTorrent",
    "restore": "RestoreObject",
    "select": "SelectObjectContent",
    "append": "Appending to an object",
    "renameObject": "RenameObject",
}
OBJECT_SUBRESOURCES = frozenset({"legal-hold", "retention", "torrent", "restore", "select", "append", "renameObject"})
SUBRESOURCES = frozenset((*_ABSENT, *_EMPTY, *_FEATURES)) - OBJECT_SUBRESOURCES


async def run(context: Context, request: Request) -> Response:
    names = OBJECT_SUBRESOURCES if request.key else SUBRESOURCES
    name = next(name for name in request.query if name in names)
    reading, deleting = request.method in ("GET", "HEAD"), request.method == "DELETE"
    if name in ("legal-hold", "retention") and reading:
        await context.store.lookup(request.bucket, request.key)
        raise S3Error("NoSuchObjectLockConfiguration")
    if name in _ABSENT:
        feature, code = _ABSENT[name]
        if reading:
            raise S3Error(code)
        if deleting:
            return Response(NO_CONTENT)
        raise not_implemented(feature)
    if name in _EMPTY:
        feature, root, inner = _EMPTY[name]
        if reading:
            return xml_response(root, inner)
        raise not_implemented(feature)
    raise not_implemented(_FEATURES[name])
