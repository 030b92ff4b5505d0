"""The facade on a store in memory: what starts, what is refused, and what handles depend on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from element_store import Invalid, Refused, Store
from element_store.testing import MemoryDevices
from element_store.types import Attributes
from protocols.nfs import Export, NfsServer
from tests.proof.nfs.client import STALE, NfsClient, NfsError

ANY = "127.0.0.1:0"
TRUSTED = Export("/view", squash="none")


@pytest.fixture
def devices() -> MemoryDevices:
    return MemoryDevices(2)


@pytest.fixture
async def store(devices: MemoryDevices, tmp_path: Path) -> AsyncIterator[Store]:
    opened = await devices.open(state=tmp_path / "state")
    await opened.create_view("view", Attributes())
    yield opened
    await opened.close()


async def handle_of(server: NfsServer, path: str = "/view") -> bytes:
    def mount() -> bytes:
        host, _, port = server.address.rpartition(":")
        with NfsClient(host, int(port)) as client:
            return client.mount(path)

    return await asyncio.to_thread(mount)


async def test_handles_are_the_pools_and_not_the_state_directorys(store, devices, tmp_path):
    server = await NfsServer.start(store, ANY, [TRUSTED])
    first = await handle_of(server)
    await server.stop()
    again = await NfsServer.start(store, ANY, [TRUSTED])
    assert await handle_of(again) == first
    await again.stop()
    await store.close()
    moved = await devices.open(state=tmp_path / "elsewhere")
    server = await NfsServer.start(moved, ANY, [TRUSTED])
    assert await handle_of(server) == first
    await server.stop()
    await moved.close()


async def test_another_pool_takes_no_handle_of_this_one(store, tmp_path):
    server = await NfsServer.start(store, ANY, [TRUSTED])
    handle = await handle_of(server)
    await server.stop()
    other = await MemoryDevices(2).open(state=tmp_path / "other")
    await other.create_view("view", Attributes())
    server = await NfsServer.start(other, ANY, [TRUSTED])

    def ask() -> None:
        host, _, port = server.address.rpartition(":")
        with NfsClient(host, int(port)) as client:
            client.getattr(handle)

    with pytest.raises(NfsError) as refused:
        await asyncio.to_thread(ask)
    assert refused.value.status != STALE, "it is no handle at all, not one of something that is gone"
    await server.stop()
    await other.close()


async def test_a_taken_port_is_refused_in_one_sentence(store):
    server = await NfsServer.start(store, ANY, [TRUSTED])
    with pytest.raises(Refused, match=f"NFS: cannot listen on {server.address}: Address already in use"):
        await NfsServer.start(store, server.address, [TRUSTED])
    await server.stop()


async def test_a_damaged_list_of_hosts_is_refused_by_name(store, tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("nonsense")
    with pytest.raises(Refused, match=f"NFS: {hosts} is damaged: remove it"):
        await NfsServer.start(store, ANY, [TRUSTED], lock_hosts=hosts)


async def test_what_is_no_network_or_address_is_invalid(store):
    with pytest.raises(Invalid, match="'host' is no network"):
        await NfsServer.start(store, ANY, [Export("/view", networks=["host"])])
    with pytest.raises(Invalid, match="'localhost:1' is no address"):
        await NfsServer.start(store, "localhost:1", [TRUSTED])


async def test_it_stops_once_and_counts(store):
    server = await NfsServer.start(store, ANY, [TRUSTED])
    await handle_of(server)
    assert server.metrics()['nfs_calls_total{procedure="other"}'] == 1
    await server.stop()
    with pytest.raises(Invalid, match="the server was stopped"):
        await server.stop()
