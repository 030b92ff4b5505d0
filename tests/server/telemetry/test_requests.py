from __future__ import annotations

import json
import logging

import pytest
from prometheus_client import CollectorRegistry

from server.telemetry.requests import S3Metrics, S3Telemetry


class Wire:
    """One request with a body, and what the middleware let through."""

    def __init__(self, app, **scope) -> None:
        self.registry = CollectorRegistry()
        self.app = S3Telemetry(app, S3Metrics(self.registry), access_log=True)
        self.scope = {"type": "http", "method": "PUT", "path": "/b/k", "headers": [], "client": ("127.0.0.1", 1), **scope}
        self.sent: list = []

    async def run(self) -> Wire:
        async def receive():
            return {"type": "http.request", "body": b"12345", "more_body": False}

        async def send(message):
            self.sent.append(message)

        await self.app(self.scope, receive, send)
        return self

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


async def answer(scope, receive, send, *headers):
    await receive()
    scope["operation"] = "PutObject"
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
    await send({"type": "http.response.body", "body": b"abc"})


async def test_counts_and_times_by_operation(caplog):
    with caplog.at_level(logging.INFO, "trefoil.s3"):
        wire = await Wire(answer).run()
    assert wire.value("trefoil_s3_requests_total", operation="PutObject", status="200") == 1
    assert wire.value("trefoil_s3_request_seconds_count", operation="PutObject") == 1
    assert wire.value("trefoil_s3_received_bytes_total") == 5
    assert wire.value("trefoil_s3_sent_bytes_total") == 3
    assert wire.value("trefoil_s3_requests_in_flight") == 0
    assert (caplog.records[0].operation, caplog.records[0].status) == ("PutObject", 200)
    assert dict(wire.sent[0]["headers"])[b"x-amz-request-id"].decode() == caplog.records[0].request_id


async def test_the_gateways_request_id_is_the_logs(caplog):
    async def own(scope, receive, send):
        assert scope["request_id"]
        await answer(scope, receive, send, (b"x-amz-request-id", b"OWN"))

    with caplog.at_level(logging.INFO, "trefoil.s3"):
        wire = await Wire(own).run()
    assert wire.sent[0]["headers"] == [(b"x-amz-request-id", b"OWN")]
    assert caplog.records[0].request_id == "OWN"


async def test_a_failure_counts_as_500_and_goes_on():
    async def failing(scope, receive, send):
        raise RuntimeError("bug")

    wire = Wire(failing)
    with pytest.raises(RuntimeError):
        await wire.run()
    assert wire.value("trefoil_s3_requests_total", operation="PUT", status="500") == 1
    assert wire.value("trefoil_s3_requests_in_flight") == 0


async def test_a_method_of_the_clients_invention_makes_no_new_label():
    async def refusing(scope, receive, send):
        await send({"type": "http.response.start", "status": 405, "headers": []})

    wire = await Wire(refusing, method="XYZZY" * 100).run()
    assert wire.value("trefoil_s3_requests_total", operation="other", status="405") == 1


async def test_the_access_log_holds_no_query_and_no_header(caplog):
    wire = Wire(answer, query_string=b"X-Amz-Signature=SECRET", headers=[(b"authorization", b"SECRET")])
    with caplog.at_level(logging.INFO, "trefoil.s3"):
        await wire.run()
    assert "SECRET" not in json.dumps({name: str(value) for name, value in vars(caplog.records[0]).items()})
