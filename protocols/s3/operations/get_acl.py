"""GetBucketAcl and GetObjectAcl: the bucket owner has full control and nobody else anything."""

from __future__ import annotations

from protocols.s3 import xml
from protocols.s3.context import Context
from protocols.s3.request import Request
from protocols.s3.response import Response, xml_response
from protocols.s3.versions import check_version


async def run(context: Context, request: Request) -> Response:
    if request.key:
        check_version(request)
        await context.store.lookup(request.bucket, request.key)
    owner = await context.owner_user(request.owner)
    fields = xml.element("ID", owner.id) + xml.element("DisplayName", owner.display_name)
    grantee = f'<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser">{fields}</Grantee>'
    grants = f"<AccessControlList><Grant>{grantee}<Permission>FULL_CONTROL</Permission></Grant></AccessControlList>"
    return xml_response("AccessControlPolicy", f"<Owner>{fields}</Owner>{grants}")
