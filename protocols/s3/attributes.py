"""Changing an object's attributes while others may be changing the object."""

from __future__ import annotations

from collections.abc import Callable

from element_store.types import Attributes, Condition, Element, PreconditionFailed
from protocols.s3.context import Context
from protocols.s3.errors import S3Error
from protocols.s3.request import Request

ATTEMPTS_MAX = 8


async def replace_attributes(
    context: Context, request: Request, version: int | None, change: Callable[[Attributes], Attributes]
) -> Element:
    """Read, change and write back, on the condition that the same content is still there. Raises NotFound, ConditionalRequestConflict."""
    for _ in range(ATTEMPTS_MAX):
        element = await context.store.lookup(request.bucket, request.key, version=version)
        condition = Condition(if_match=(element.etag,))
        try:
            return await context.store.set_attributes(
                request.bucket, request.key, change(element.attributes), version=version, condition=condition
            )
        except PreconditionFailed:
            continue
    raise S3Error("ConditionalRequestConflict")
