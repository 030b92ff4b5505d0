"""Noticing that the client has left while a long response is being sent: servers drop what is sent then without a word."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from protocols.s3.request import Request


class Watch:
    __slots__ = ("gone",)

    def __init__(self) -> None:
        self.gone = False


async def _wait(request: Request, watch: Watch) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    watch.gone = True


@contextmanager
def disconnect_watch(request: Request, wanted: bool) -> Iterator[Watch]:
    watch = Watch()
    task = asyncio.create_task(_wait(request, watch)) if wanted else None
    try:
        yield watch
    finally:
        if task is not None:
            task.cancel()
