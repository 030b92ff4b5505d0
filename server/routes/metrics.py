"""`/metrics` in Prometheus' text format."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from element_store.types import StoreError
from server.routes.context import CurrentDaemon

router = APIRouter()


@router.get("/metrics")
async def metrics(daemon: CurrentDaemon) -> Response:
    try:
        daemon.collector.status = await daemon.store.status()
        if daemon.blocks:
            await daemon.blocks.list()
    except StoreError:
        daemon.collector.status = None  # a store that fails is when the other metrics are wanted most
    return Response(generate_latest(daemon.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)
