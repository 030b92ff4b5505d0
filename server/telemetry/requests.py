"""ASGI middleware around the S3 gateway: request id, access log, counters and latency by operation.

Owns the `trefoil_s3_*` metrics. Hands the gateway `scope["request_id"]`; reads back `scope["operation"]` and `scope["user"]`, which the gateway
sets once it knows them, so that a name of an operation exists in one place. Adds `x-amz-request-id` only where the gateway did not. Never buffers a body.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from server.telemetry.logs import request_id

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("trefoil.s3")
REQUEST_ID_HEADER = b"x-amz-request-id"
METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"})
"""The operation's label where the request was refused before its operation was known: a bounded set, whatever clients send."""
SECONDS_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)


class S3Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter("trefoil_s3_requests_total", "S3 requests answered.", ["operation", "status"], registry=registry)
        self.seconds = Histogram(
            "trefoil_s3_request_seconds",
            "From the request's head to the last byte of the answer.",
            ["operation"],
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.received = Counter("trefoil_s3_received_bytes_total", "Bytes of request bodies.", registry=registry)
        self.sent = Counter("trefoil_s3_sent_bytes_total", "Bytes of answers' bodies.", registry=registry)
        self.in_flight = Gauge("trefoil_s3_requests_in_flight", "Requests being served.", registry=registry)


@dataclass(slots=True)
class Exchange:
    """One request and its answer, while it happens."""

    id: str
    started: float
    status: int = 0
    """0 until the answer begins: the client left before it did."""
    received: int = 0
    sent: int = 0

    def wrap_receive(self, receive: Receive) -> Receive:
        async def measured() -> Message:
            message = await receive()
            self.received += len(message.get("body", b""))
            return message

        return measured

    def wrap_send(self, send: Send) -> Send:
        async def measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._begin(message)
            else:
                self.sent += len(message.get("body", b""))
            await send(message)

        return measured

    def _begin(self, message: Message) -> None:
        self.status = message["status"]
        headers = list(message.get("headers", ()))
        for name, value in headers:
            if name.lower() == REQUEST_ID_HEADER:
                self.id = value.decode("latin-1")
                return
        message["headers"] = [*headers, (REQUEST_ID_HEADER, self.id.encode())]


class S3Telemetry:
    def __init__(self, app: Asgi, metrics: S3Metrics, *, access_log: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(secrets.token_hex(8).upper(), time.monotonic())
        scope["request_id"] = exchange.id  # the gateway answers with it
        request_id.set(exchange.id)  # each request runs in a task, and so in a context, of its own
        self._metrics.in_flight.inc()
        try:
            await self._app(scope, exchange.wrap_receive(receive), exchange.wrap_send(send))
        except Exception:
            exchange.status = exchange.status or 500
            raise
        finally:
            self._metrics.in_flight.dec()
            self._record(scope, exchange)

    def _record(self, scope: Scope, exchange: Exchange) -> None:
        seconds = time.monotonic() - exchange.started
        operation = str(scope.get("operation") or (scope["method"] if scope["method"] in METHODS else "other"))
        metrics = self._metrics
        metrics.requests.labels(operation, str(exchange.status)).inc()
        metrics.seconds.labels(operation).observe(seconds)
        metrics.received.inc(exchange.received)
        metrics.sent.inc(exchange.sent)
        if self._access_log:
            client = scope.get("client") or ("", 0)
            fields = {
                "request_id": exchange.id,
                "operation": operation,
                "method": scope["method"],
                "path": scope["path"],
                "status": exchange.status,
                "received_bytes": exchange.received,
                "sent_bytes": exchange.sent,
                "seconds": round(seconds, 6),
                "client": client[0],
                "user": scope.get("user", ""),
            }
            log.info("request", extra=fields)
