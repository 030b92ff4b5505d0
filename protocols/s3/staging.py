"""Content on its way into the store, with the promise that it is published or discarded, whatever happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager

from element_store.interface import Buffer, Staged
from protocols.s3.context import Context
from protocols.s3.payload import Payload


@asynccontextmanager
async def stage_payload(context: Context, payload: Payload) -> AsyncIterator[tuple[Staged, Mapping[str, bytes]]]:
    """Stages and verifies the body; yields it, ready to publish, with the digests to keep. Discards it on any failure."""
    pieces = payload.pieces(context.config.put_bytes_max)
    async with stage_pieces(context, pieces, payload.computed_names, payload.length) as (staged, digests):
        payload.compare(digests)
        yield staged, {name: digests[name] for name in payload.kept_names}


@asynccontextmanager
async def stage_pieces(
    context: Context, pieces: AsyncIterator[Buffer], names: Collection[str], size_hint: int | None
) -> AsyncIterator[tuple[Staged, Mapping[str, bytes]]]:
    """Stages content; yields it, finished, with its digests of these names. Discards it on any failure."""
    staged = context.store.stage(digests=names, size_hint=size_hint)
    try:
        async for piece in pieces:
            await staged.write(piece)
        yield staged, await staged.finish()
    except BaseException:
        await staged.discard()
        raise
