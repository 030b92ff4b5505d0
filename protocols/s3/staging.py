"""Content on its way into the store, with the promise that it is published or discarded, whatever happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from element_store.interface import Staged
from protocols.s3.context import Context
from protocols.s3.payload import Payload


@asynccontextmanager
async def stage_payload(context: Context, payload: Payload) -> AsyncIterator[tuple[Staged, Mapping[str, bytes]]]:
    """Stages and verifies the body; yields it, ready to publish, with the digests to keep. Discards it on any failure."""
    staged = context.store.stage(digests=payload.computed_names, size_hint=payload.length)
    try:
        async for piece in payload.pieces(context.config.put_bytes_max):
            await staged.write(piece)
        digests = await staged.finish()
        payload.compare(digests)
        yield staged, {name: digests[name] for name in payload.kept_names}
    except BaseException:
        await staged.discard()
        raise
