"""From method, bucket, key and subresource to one operation. The whole API surface is the tables below."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from protocols.s3.acl import Access
from protocols.s3.context import Context
from protocols.s3.errors import S3Error
from protocols.s3.form import is_form
from protocols.s3.operations import (
    abort_multipart_upload,
    bucket_configuration,
    bucket_tagging,
    bucket_versioning,
    complete_multipart_upload,
    copy_object,
    create_bucket,
    create_multipart_upload,
    delete_bucket,
    delete_object,
    delete_objects,
    get_acl,
    get_bucket_location,
    get_object,
    get_object_attributes,
    head_bucket,
    list_buckets,
    list_multipart_uploads,
    list_object_versions,
    list_objects,
    list_objects_v2,
    list_parts,
    object_tagging,
    post_object,
    put_acl,
    put_object,
    upload_part,
    upload_part_copy,
)
from protocols.s3.request import Request
from protocols.s3.response import Response

Run: TypeAlias = Callable[[Context, Request], Awaitable[Response | None]]


@dataclass(frozen=True, slots=True)
class Operation:
    name: str
    """As S3 calls it; in logs and metrics."""
    run: Run
    access: Access | None = Access.OWN
    """What the caller must be allowed in the bucket, which must exist; None where there is none yet, or who calls is not known yet."""
    signed_inside: bool = False
    """The body says who calls; the operation finds out and authorises."""


SERVICE: Mapping[str, Operation] = {"GET": Operation("ListBuckets", list_buckets.run, access=None)}

BUCKET: Mapping[tuple[str, str], Operation] = {
    ("PUT", ""): Operation("CreateBucket", create_bucket.run, access=None),
    ("HEAD", ""): Operation("HeadBucket", head_bucket.run, Access.LIST),
    ("DELETE", ""): Operation("DeleteBucket", delete_bucket.run),
    ("GET", ""): Operation("ListObjects", list_objects.run, Access.LIST),
    ("GET", "list-type"): Operation("ListObjectsV2", list_objects_v2.run, Access.LIST),
    ("GET", "versions"): Operation("ListObjectVersions", list_object_versions.run, Access.LIST),
    ("GET", "uploads"): Operation("ListMultipartUploads", list_multipart_uploads.run, Access.LIST),
    ("GET", "location"): Operation("GetBucketLocation", get_bucket_location.run),
    ("GET", "acl"): Operation("GetBucketAcl", get_acl.run, Access.READ_ACL),
    ("PUT", "acl"): Operation("PutBucketAcl", put_acl.run, Access.WRITE_ACL),
    ("GET", "tagging"): Operation("GetBucketTagging", bucket_tagging.get),
    ("PUT", "tagging"): Operation("PutBucketTagging", bucket_tagging.put),
    ("DELETE", "tagging"): Operation("DeleteBucketTagging", bucket_tagging.delete),
    ("GET", "versioning"): Operation("GetBucketVersioning", bucket_versioning.get),
    ("PUT", "versioning"): Operation("PutBucketVersioning", bucket_versioning.put),
    ("POST", "delete"): Operation("DeleteObjects", delete_objects.run, Access.WRITE),
}

OBJECT: Mapping[tuple[str, str], Operation] = {
    ("PUT", ""): Operation("PutObject", put_object.run, Access.WRITE),
    ("PUT", "copy"): Operation("CopyObject", copy_object.run, Access.WRITE),
    ("GET", ""): Operation("GetObject", get_object.run, Access.READ_OBJECT),
    ("HEAD", ""): Operation("HeadObject", get_object.run, Access.READ_OBJECT),
    ("DELETE", ""): Operation("DeleteObject", delete_object.run, Access.WRITE),
    ("GET", "attributes"): Operation("GetObjectAttributes", get_object_attributes.run, Access.READ_OBJECT),
    ("GET", "tagging"): Operation("GetObjectTagging", object_tagging.get),
    ("PUT", "tagging"): Operation("PutObjectTagging", object_tagging.put),
    ("DELETE", "tagging"): Operation("DeleteObjectTagging", object_tagging.delete),
    ("GET", "acl"): Operation("GetObjectAcl", get_acl.run, Access.READ_ACL),
    ("PUT", "acl"): Operation("PutObjectAcl", put_acl.run, Access.WRITE_ACL),
    ("POST", "uploads"): Operation("CreateMultipartUpload", create_multipart_upload.run, Access.WRITE),
    ("PUT", "uploadId"): Operation("UploadPart", upload_part.run, Access.WRITE),
    ("PUT", "uploadId copy"): Operation("UploadPartCopy", upload_part_copy.run, Access.WRITE),
    ("GET", "uploadId"): Operation("ListParts", list_parts.run, Access.WRITE),
    ("POST", "uploadId"): Operation("CompleteMultipartUpload", complete_multipart_upload.run, Access.WRITE),
    ("DELETE", "uploadId"): Operation("AbortMultipartUpload", abort_multipart_upload.run, Access.WRITE),
}

POST_OBJECT = Operation("PostObject", post_object.run, access=None, signed_inside=True)
CONFIGURATION = Operation("BucketConfiguration", bucket_configuration.run)

BUCKET_SUBRESOURCES = (
    frozenset({"list-type", "versions", "uploads", "location", "acl", "delete", "tagging", "versioning"})
    | bucket_configuration.SUBRESOURCES
)
OBJECT_SUBRESOURCES = frozenset({"attributes", "tagging", "acl", "uploads", "uploadId"}) | bucket_configuration.OBJECT_SUBRESOURCES
METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE"})


def subresource(request: Request, known: frozenset[str]) -> str:
    for name in request.query:
        if name in known:
            return name
    return ""


def route(request: Request) -> Operation:
    """Raises MethodNotAllowed or NotImplemented."""
    method = request.method
    if method == "OPTIONS":
        # A preflight for cross-origin requests, which no bucket allows yet.
        raise S3Error("AccessForbidden" if b"origin" in request.headers else "BadRequest")
    if request.key:
        name = subresource(request, OBJECT_SUBRESOURCES) if request.query else ""
        if method == "PUT" and b"x-amz-copy-source" in request.headers and name in ("", "uploadId"):
            name = f"{name} copy".strip()
        operation = OBJECT.get((method, name))
    elif request.bucket:
        name = subresource(request, BUCKET_SUBRESOURCES) if request.query else ""
        operation = BUCKET.get((method, name))
    else:
        name = ""
        operation = SERVICE.get(method)
    if operation is not None:
        return operation
    if name in bucket_configuration.SUBRESOURCES or name in bucket_configuration.OBJECT_SUBRESOURCES:
        if method in METHODS:
            return CONFIGURATION
    elif method == "POST" and request.bucket and not request.key and not name:
        if is_form(request.headers.get(b"content-type", b"")):
            return POST_OBJECT
        raise S3Error("PreconditionFailed", "Bucket POST must be of the enclosure-type multipart/form-data.")
    raise S3Error("MethodNotAllowed", details={"Method": method, "ResourceType": name or "SERVICE"})
