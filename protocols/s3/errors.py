"""Every error that the gateway can answer: one table from code to status and sentence, one from store errors to codes.

Nothing else in the package names an HTTP status of an error.
"""

from __future__ import annotations

from collections.abc import Mapping

from element_store import types as store

# code -> (HTTP status, message)
CODES: Mapping[str, tuple[int, str]] = {
    "AccessDenied": (403, "Access Denied"),
    "AccessForbidden": (403, "CORSResponse: CORS is not enabled for this bucket."),
    "AuthorizationHeaderMalformed": (400, "The authorization header is malformed."),
    "AuthorizationQueryParametersError": (400, "The authorization query parameters are malformed."),
    "BadDigest": (400, "The digest that you specified did not match the content received."),
    "BadRequest": (400, "Insufficient information. Origin request header needed."),
    "BucketAlreadyExists": (409, "The requested bucket name is not available: it belongs to somebody else."),
    "BucketNotEmpty": (409, "The bucket that you tried to delete is not empty."),
    "ObjectIsAttachedVolume": (409, "This key is a volume that a host has attached: only the host can change it until it disconnects."),
    "ConditionalRequestConflict": (409, "A conflicting operation happened during this request: try again."),
    "EntityTooLarge": (400, "Your proposed upload exceeds the maximum allowed size."),
    "EntityTooSmall": (400, "Your proposed upload is smaller than the minimum allowed size."),
    "ExistingObjectIsDirectory": (409, "This bucket takes only keys that are paths of files, and a directory has this key's path."),
    "IllegalVersioningConfigurationException": (400, "The versioning configuration specified in the request is invalid."),
    "IncompleteBody": (400, "The body does not have the number of bytes that the headers declare."),
    "InternalError": (500, "We encountered an internal error: try again."),
    "InvalidAccessKeyId": (403, "The access key that you provided does not exist."),
    "InvalidArgument": (400, "Invalid argument."),
    "InvalidBucketName": (400, "The specified bucket is not valid."),
    "InvalidDigest": (400, "The Content-MD5 that you specified is not valid."),
    "InvalidPart": (400, "One or more of the parts could not be found, or an ETag did not match."),
    "InvalidPartOrder": (400, "The list of parts was not in ascending order."),
    "InvalidPolicyDocument": (400, "The content of the form does not meet the conditions specified in the policy document."),
    "InvalidRange": (416, "The requested range is not satisfiable."),
    "InvalidRequest": (400, "Invalid request."),
    "InvalidStorageClass": (400, "The storage class that you specified is not valid."),
    "InvalidTag": (400, "The tag is not valid."),
    "InvalidURI": (400, "Could not parse the specified URI."),
    "KeyTooLongError": (400, "Your key is too long."),
    "MalformedPOSTRequest": (400, "The body of your POST request is not well-formed multipart/form-data."),
    "MalformedTrailerError": (400, "The request contained trailing data that was not well-formed or did not match the declared trailer."),
    "MalformedXML": (400, "The XML that you provided was not well-formed or did not validate against our published schema."),
    "MaxMessageLengthExceeded": (400, "Your request was too big."),
    "MaxPostPreDataLengthExceededError": (400, "Your POST request fields preceding the upload file were too large."),
    "MetadataTooLarge": (400, "Your metadata headers exceed the maximum allowed metadata size."),
    "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
    "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
    "MissingRequestBodyError": (400, "Request body is empty."),
    "NoSuchBucket": (404, "The specified bucket does not exist."),
    "NoSuchBucketPolicy": (404, "The bucket policy does not exist."),
    "NoSuchCORSConfiguration": (404, "The CORS configuration does not exist."),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchLifecycleConfiguration": (404, "The lifecycle configuration does not exist."),
    "NoSuchObjectLockConfiguration": (404, "The specified object does not have an object lock configuration."),
    "NoSuchPublicAccessBlockConfiguration": (404, "The public access block configuration was not found."),
    "NoSuchTagSet": (404, "The TagSet does not exist."),
    "NoSuchUpload": (404, "The specified multipart upload does not exist: the id may be invalid, or it was aborted or completed."),
    "NoSuchVersion": (404, "The specified version does not exist."),
    "NoSuchWebsiteConfiguration": (404, "The specified bucket does not have a website configuration."),
    "NotImplemented": (501, "A header or resource that you provided implies functionality that is not implemented."),
    "NotModified": (304, "Not Modified"),
    "ObjectLockConfigurationNotFoundError": (404, "Object Lock configuration does not exist for this bucket."),
    "ObjectParentIsFile": (409, "This bucket takes only keys that are paths of files, and a file is where this key needs a directory."),
    "OwnershipControlsNotFoundError": (404, "The bucket ownership controls were not found."),
    "PreconditionFailed": (412, "At least one of the preconditions that you specified did not hold."),
    "ReplicationConfigurationNotFoundError": (404, "The replication configuration was not found."),
    "RequestTimeTooSkewed": (403, "The difference between the request time and the server's time is too large."),
    "RequestTimeout": (400, "Your connection was idle for too long: the body was not read within the timeout period."),
    "ServerSideEncryptionConfigurationNotFoundError": (404, "The server side encryption configuration was not found."),
    "ServiceUnavailable": (503, "The store is closing or lost too many devices: try again later."),
    "SnapshotIsReadOnly": (405, "The bucket is a snapshot, which never changes: copy what you need out of it."),
    "SignatureDoesNotMatch": (403, "The request signature that we calculated does not match the signature that you provided."),
    "StorageFull": (507, "The pool is full: delete something."),
    "XAmzContentSHA256Mismatch": (400, "The provided x-amz-content-sha256 header does not match what was computed."),
}


class S3Error(Exception):
    """An answer other than success. `details` become further elements of the error document, `headers` further response headers."""

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        details: Mapping[str, str] | None = None,
        headers: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        self.code = code
        self.status, default = CODES[code]
        self.message = message or default
        self.details = details or {}
        self.headers = headers or []
        super().__init__(f"{code}: {self.message}")


def invalid_argument(name: str, value: str, message: str) -> S3Error:
    return S3Error("InvalidArgument", message, details={"ArgumentName": name, "ArgumentValue": value[:1024]})


def not_implemented(feature: str) -> S3Error:
    return S3Error("NotImplemented", f"{feature} is not implemented.", details={"Header": feature})


class ClientGone(Exception):
    """The client closed the connection: there is nobody to answer."""


_NOT_FOUND = {
    "view": "NoSuchBucket",
    "key": "NoSuchKey",
    "upload": "NoSuchUpload",
    "version": "NoSuchVersion",
    "marker": "MethodNotAllowed",
}


def _not_found(error: store.StoreError) -> S3Error:
    return S3Error(_NOT_FOUND.get(str(error.args[0]) if error.args else "", "NoSuchKey"))


_CONFLICTS = {
    # What the store says of keys in a bucket that takes only what files can name.
    "is directory": "ExistingObjectIsDirectory",
    "parent is file": "ObjectParentIsFile",
    # What it says of a volume's key.
    "attached": "ObjectIsAttachedVolume",
}


def _conflict(error: store.StoreError) -> S3Error:
    return S3Error(_CONFLICTS.get(str(error.args[0]) if error.args else "", "ConditionalRequestConflict"))


def _invalid(error: store.StoreError) -> S3Error:
    if error.args == ("no path",):
        return S3Error("InvalidArgument", "This bucket takes only keys that are paths of files: no part empty, . or .., or over 255 bytes.")
    return S3Error("InvalidArgument")


def _digest_mismatch(error: store.StoreError) -> S3Error:
    name = str(error.args[0]) if error.args else ""
    return S3Error("BadDigest", f"The {name} that you specified did not match the content received.")


# Looked up by walking the error's class and its bases.
STORE_ERRORS: Mapping[type[store.StoreError], object] = {
    store.NotFound: _not_found,
    store.Conflict: _conflict,
    store.PreconditionFailed: "PreconditionFailed",
    store.DigestMismatch: _digest_mismatch,
    store.Invalid: _invalid,
    store.LimitExceeded: "InvalidRequest",
    store.OutOfSpace: "StorageFull",
    store.Damaged: "InternalError",
    store.ReadOnly: "SnapshotIsReadOnly",
    store.Refused: "InternalError",
    store.Closed: "ServiceUnavailable",
    store.StoreError: "InternalError",
}


def from_store(error: store.StoreError) -> S3Error:
    for kind in type(error).__mro__:
        answer = STORE_ERRORS.get(kind)
        if isinstance(answer, str):
            return S3Error(answer)
        if callable(answer):
            found = answer(error)
            assert isinstance(found, S3Error)
            return found
    return S3Error("InternalError")
