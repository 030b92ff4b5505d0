"""The admin REST in this process, on the model store: every route, and every error as one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from element_store.types import Damaged
from protocols.auth import Authenticator
from server.admin import create_admin
from server.config import FileSection, NfsSection, Settings
from server.daemon import Daemon, Phase
from server.hooks import HookRunner
from server.mount import Mounts
from server.state import StateDirectory
from server.telemetry.collector import StoreCollector
from tests.model.store import ModelStore


@pytest.fixture
async def running(tmp_path: Path) -> Daemon:
    store: Any = ModelStore()
    collector = StoreCollector(store)
    registry = CollectorRegistry()
    registry.register(collector)
    daemon = Daemon(
        Settings(state=tmp_path),
        StateDirectory(tmp_path),
        store,
        Authenticator(store),
        registry,
        collector,
        Mounts(store, FileSection()),
        HookRunner(None),
        Phase.READY,
    )
    await daemon.accounts.ensure_root("ROOTKEY", "root-secret")
    return daemon


@pytest.fixture
async def http(running):
    transport = httpx.ASGITransport(create_admin(running), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        yield client


async def test_buckets_from_birth_to_death(http):
    made = await http.post("/api/v1/buckets", json={"name": "photos"})
    assert (made.status_code, made.json()["owner"]) == (201, "root")
    assert [bucket["name"] for bucket in (await http.get("/api/v1/buckets")).json()] == ["photos"]
    assert (await http.get("/api/v1/buckets/photos")).json()["name"] == "photos"
    assert (await http.delete("/api/v1/buckets/photos")).status_code == 204
    assert (await http.get("/api/v1/buckets")).json() == []


async def test_a_bucket_belongs_to_its_owners_ids(http, running):
    await http.post("/api/v1/users", json={"id": "ann", "uid": 5000})
    await http.post("/api/v1/buckets", json={"name": "of-ann", "owner": "ann"})
    view = await running.store.view("of-ann")
    assert (view.attributes.uid, view.attributes.gid, view.attributes.xattrs["trefoil.owner"]) == (5000, 5000, b"ann")


async def test_users_and_keys_from_birth_to_death(http):
    made = (await http.post("/api/v1/users", json={"id": "ann", "email": "ann@example.org"})).json()
    assert made["uid"] >= 1000
    key = (await http.post("/api/v1/keys", json={"user_id": "ann"})).json()
    assert len(key["secret_key"]) == 40
    listed = (await http.get("/api/v1/keys", params={"user_id": "ann"})).json()
    assert listed == [{"access_key": key["access_key"], "user_id": "ann"}]
    assert (await http.delete(f"/api/v1/keys/{key['access_key']}")).status_code == 204
    assert (await http.delete("/api/v1/users/ann")).status_code == 204
    assert [user["id"] for user in (await http.get("/api/v1/users")).json()] == ["root"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "sentence"),
    [
        ("POST", "/api/v1/buckets", {"name": "No"}, 400, "is not a bucket name"),
        ("POST", "/api/v1/buckets", {"name": "taken"}, 409, "bucket taken exists already"),
        ("POST", "/api/v1/buckets", {"name": "fine", "owner": "nobody"}, 404, "there is no user nobody"),
        ("POST", "/api/v1/buckets", {"nmae": "x"}, 400, "Field required"),
        ("POST", "/api/v1/buckets", {"name": "fine", "colour": 1}, 400, "Extra inputs"),
        ("GET", "/api/v1/buckets/absent", None, 404, "there is no bucket absent"),
        ("DELETE", "/api/v1/buckets/absent", None, 404, "there is no bucket absent"),
        ("DELETE", "/api/v1/buckets/taken", None, 409, "bucket taken is not empty"),
        ("POST", "/api/v1/users", {"id": "root"}, 409, "user root exists already"),
        ("POST", "/api/v1/users", {"id": "a b"}, 400, "is not a user id"),
        ("PATCH", "/api/v1/users/absent", {"uid": 5}, 404, "there is no user absent"),
        ("PATCH", "/api/v1/users/root", {"directory_mode": 0o600}, 400, "a directory mode is"),
        ("DELETE", "/api/v1/users/root", None, 400, "root user cannot be deleted"),
        ("DELETE", "/api/v1/users/absent", None, 404, "there is no user absent"),
        ("POST", "/api/v1/keys", {"user_id": "absent"}, 404, "there is no user absent"),
        ("POST", "/api/v1/keys", {"user_id": "root", "access_key": "ROOTKEY"}, 409, "exists already"),
        ("POST", "/api/v1/keys", {"user_id": "root", "secret_key": "x"}, 400, "secret key"),
        ("DELETE", "/api/v1/keys/ROOTKEY", None, 409, "root key cannot be deleted"),
        ("DELETE", "/api/v1/keys/absent", None, 404, "there is no access key absent"),
        ("GET", "/api/v1/nothing", None, 404, "the daemon has nothing there"),
    ],
)
async def test_each_refusal_is_one_sentence(http, running, method, path, body, status, sentence):
    from element_store.types import Attributes

    await running.store.create_view("taken", Attributes())
    await running.store.put("taken", b"k", b"x", Attributes())
    answer = await http.request(method, path, json=body)
    assert (answer.status_code, set(answer.json())) == (status, {"error", "kind"})
    assert sentence in answer.json()["error"]


async def test_reduction_of_a_prefix_and_why(http, running):
    from element_store.types import Attributes

    await running.store.create_view("reduced", Attributes())
    await running.store.put("reduced", b"a/b", b"12345", Attributes())
    await running.store.put("reduced", b"c", b"1", Attributes())
    assert (await http.get("/api/v1/reduction", params={"scope": "/reduced/a/"})).json()["logical_bytes"] == 5
    assert (await http.get("/api/v1/reduction")).json()["mode"] == "balanced"
    wanted = {"path": "/reduced", "mode": "fast"}
    assert (await http.put("/api/v1/reduction", json=wanted)).json() == wanted
    assert (await http.get("/api/v1/reduction", params={"scope": "/reduced"})).json()["mode"] == "fast"
    assert (await http.put("/api/v1/reduction", json={"path": "/reduced", "mode": "best"})).status_code == 422
    assert (await http.put("/api/v1/reduction", json={"path": "/none", "mode": None})).status_code == 404
    found = (await http.get("/api/v1/why", params={"element": "/reduced/a/b"})).json()
    assert [part["length"] for part in found["parts"]] == [5]


async def test_status_names_pool_and_endpoints(http):
    answer = (await http.get("/api/v1/status")).json()
    assert (answer["phase"], answer["pool"]["code"], answer["endpoints"]["s3"]) == ("ready", "1+0", "http://127.0.0.1:9000")


async def test_probes_follow_the_phase(http, running):
    assert (await http.get("/healthz")).status_code == 200
    assert (await http.get("/readyz")).text == "ready\n"
    running.phase = Phase.DRAINING
    assert (await http.get("/readyz")).status_code == 503
    assert (await http.get("/healthz")).status_code == 200


async def test_metrics_are_prometheus_text(http):
    answer = await http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "trefoil_pool_used_bytes 0.0" in answer.text


async def test_doctor_answers_findings(http):
    findings = (await http.get("/api/v1/doctor")).json()
    assert {"state", "open-files", "pool", "flush"} <= {finding["check"] for finding in findings}


@pytest.mark.expects_warnings
async def test_damage_is_an_error_of_ours_and_logged(http, running, monkeypatch):
    async def damaged(*_):
        raise Damaged("segment 3: too few shards")

    monkeypatch.setattr(running.store, "views", damaged)
    answer = await http.get("/api/v1/buckets")
    assert (answer.status_code, answer.json()["kind"]) == (500, "damaged")


@pytest.mark.expects_warnings
async def test_a_bug_tells_the_client_nothing(http, running, monkeypatch):
    async def broken(*_):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(running.store, "views", broken)
    answer = await http.get("/api/v1/buckets")
    assert answer.status_code == 500
    assert "secret" not in answer.text


async def test_readiness_fails_with_the_store(http, running, monkeypatch):
    """A store that lost too many devices takes no requests; its status must still be shown."""

    async def closed(*_):
        from element_store.types import Closed

        raise Closed("too many devices lost")

    for call in ("get_record", "views", "lookup"):
        monkeypatch.setattr(running.store, call, closed)
    answer = await http.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "store: too many devices lost\n")
    status = await http.get("/api/v1/status")
    assert (status.status_code, status.json()["buckets"]) == (200, None)
    assert (await http.get("/metrics")).status_code == 200


async def test_exports_come_with_the_lines_that_mount_them(http, running):
    assert (await http.get("/api/v1/exports")).json()["exports"] == []
    nfs = NfsSection.model_validate({"listen": "0.0.0.0:2049", "export": [{"path": "/photos"}]})
    running.settings = running.settings.model_copy(update={"nfs": nfs})
    answer = (await http.get("/api/v1/exports", params={"host": "server"})).json()
    assert answer["exports"][0]["mount"].endswith(" server:/photos /mnt")
    assert (answer["address"], answer["nfsd"]) == (None, None)
