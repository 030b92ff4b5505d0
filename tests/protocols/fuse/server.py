"""A store in memory, mounted by one engine, in a process of its own: `python -m tests.protocols.fuse.server`, driven by JSON lines.

In its own process because programs must not share the interpreter that answers them. It reads one command a line and answers each with one line:
`{"do": NAME, ...}` is answered `{"ok": VALUE}` or `{"refused": SENTENCE}` or `{"errno": NUMBER}`. Bytes travel as latin-1 text.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from element_store import Store, StoreError
from element_store.files import FileSystem
from element_store.testing import MemoryDevices
from element_store.types import Attributes
from protocols.fuse import Engine, Mount, Options

VIEW = "view"


class Server:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._files: FileSystem = store.files()
        self._mounts: dict[str, Mount] = {}

    async def mount(self, path: str, engine: str, **options: Any) -> None:
        self._mounts[path] = await Mount.start(self._store, Path(path), Options(engine=Engine(engine), **options))

    async def end(self, path: str) -> None:
        await self._mounts.pop(path).end()

    async def is_mounted(self, path: str) -> bool:
        return self._mounts[path].is_mounted

    async def call(self, name: str, args: list[Any]) -> Any:
        """As another face of the same store would."""
        given = [argument.encode("latin-1") if isinstance(argument, str) else argument for argument in args]
        return await asyncio.to_thread(getattr(self._files, name), *given)

    async def snapshot(self, path: str, name: str) -> None:
        await self._store.snapshots.create(path.encode(), name)

    async def delete_snapshot(self, path: str, name: str) -> None:
        await self._store.snapshots.delete(path.encode(), name)

    async def do(self, command: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"ok": await getattr(self, command.pop("do"))(**command)}
        except StoreError as error:
            return {"refused": str(error)}
        except OSError as error:
            return {"errno": error.errno}

    async def close(self) -> None:
        for path in list(self._mounts):
            await self.end(path)


async def serve(state: Path) -> None:
    store = await MemoryDevices(2).open(state=state)
    server = Server(store)
    try:
        await store.create_view(VIEW, Attributes(mode=0o755))
        while line := await asyncio.to_thread(sys.stdin.readline):
            answer = await server.do(json.loads(line))
            print(json.dumps(answer, default=lambda value: bytes(value).decode("latin-1")), flush=True)
        await server.close()
    finally:
        await store.close()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
