"""From method, bucket, key and subresource to one operation. The whole API surface is the tables below."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from protocols.s3.context import Context
from protocols.s3.errors import S3Error, not_implemented
from protocols.s3.operations import (
    abort_multipart_upload,
    bucket_configuration,
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
    run: Run
    existing_bucket: bool = True
    """The bucket must exist and belong to the caller."""


SERVICE: Mapping[str, Operation] = {"GET": Operation(list_buckets.run, existing_bucket=False)}

BUCKET: Mapping[tuple[str, str], Operation] = {
    ("PUT", ""): Operation(create_bucket.run, existing_bucket=False),
    ("HEAD", ""): Operation(head_bucket.run),
    ("DELETE", ""): Operation(delete_bucket.run),
    ("GET", ""): Operation(list_objects.run),
    ("GET", "list-type"): Operation(list_objects_v2.run),
    ("GET", "versions"): Operation(list_object_versions.run),
    ("GET", "uploads"): Operation(list_multipart_uploads.run),
    ("GET", "location"): Operation(get_bucket_location.run),
    ("GET", "acl"): Operation(get_acl.run),
    ("PUT", "acl"): Operation(put_acl.run),
    ("POST", "delete"): Operation(delete_objects.run),
}

OBJECT: Mapping[tuple[str, str], Operation] = {
    ("PUT", ""): Operation(put_object.run),
    ("PUT", "copy"): Operation(copy_object.run),
    ("GET", ""): Operation(get_object.run),
    ("HEAD", ""): Operation(get_object.run),
    ("DELETE", ""): Operation(delete_object.run),
    ("GET", "attributes"): Operation(get_object_attributes.run),
    ("GET", "tagging"): Operation(object_tagging.get),
    ("PUT", "tagging"): Operation(object_tagging.put),
    ("DELETE", "tagging"): Operation(object_tagging.delete),
    ("GET", "acl"): Operation(get_acl.run),
    ("PUT", "acl"): Operation(put_acl.run),
    ("POST", "uploads"): Operation(create_multipart_upload.run),
    ("PUT", "uploadId"): Operation(upload_part.run),
    ("PUT", "uploadId copy"): Operation(upload_part_copy.run),
    ("GET", "uploadId"): Operation(list_parts.run),
    ("POST", "uploadId"): Operation(complete_multipart_upload.run),
    ("DELETE", "uploadId"): Operation(abort_multipart_upload.run),
}

CONFIGURATION = Operation(bucket_configuration.run)

BUCKET_SUBRESOURCES = frozenset({"list-type", "versions", "uploads", "location", "acl", "delete"}) | bucket_configuration.SUBRESOURCES
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
    elif method == "POST" and request.bucket and not name:
        raise not_implemented("POST Object")
    raise S3Error("MethodNotAllowed", details={"Method": method, "ResourceType": name or "SERVICE"})
