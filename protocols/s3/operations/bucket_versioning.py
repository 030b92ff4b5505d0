"""GetBucketVersioning and PutBucketVersioning: once turned on, versioning can only be suspended."""

from __future__ import annotations

from protocols.s3 import xml
from protocols.s3.context import Context
from protocols.s3.errors import S3Error, not_implemented
from protocols.s3.payload import Payload
from protocols.s3.request import Request
from protocols.s3.response import Response, xml_response
from protocols.s3.versioning_state import STATUSES, status_of, with_status


def parse_status(body: bytes) -> str:
    """Raises MalformedXML, IllegalVersioningConfigurationException, NotImplemented."""
    root = xml.parse(body, "VersioningConfiguration")
    if (root.value("MfaDelete") or root.value("MFADelete") or "Disabled").strip() != "Disabled":
        raise not_implemented("MFA delete")
    status = root.value("Status")
    if status is None:
        raise S3Error("IllegalVersioningConfigurationException")
    if status.strip() not in STATUSES:
        raise S3Error("MalformedXML")
    return status.strip()


async def get(context: Context, request: Request) -> Response:
    status = status_of((await context.store.view(request.bucket)).attributes)
    return xml_response("VersioningConfiguration", xml.element("Status", status) if status else "")


async def put(context: Context, request: Request) -> Response:
    status = await Payload(request, context.config).document(parse_status)
    view = await context.store.view(request.bucket)
    try:
        await context.store.set_view_attributes(request.bucket, with_status(view.attributes, status))
    finally:
        context.forget_bucket(request.bucket)
    return Response(200)
