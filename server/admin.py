"""The admin REST application: routes together, and every error as one JSON sentence.

Errors are `{"error": sentence, "kind": word}`. It trusts whoever reaches it: `access` and `listen` decide who does.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from element_store import types as store
from protocols.auth import AccountError
from server import __version__
from server.daemon import Daemon
from server.routes import (
    buckets,
    check,
    doctor,
    exports,
    hosts,
    keys,
    metrics,
    mounts,
    probes,
    reduction,
    snapshots,
    status,
    users,
    volumes,
)

log = logging.getLogger("trefoil.admin")

# Looked up along the error's class and its bases, so the last row is the default.
STORE_ERRORS: Mapping[type[store.StoreError], tuple[int, str]] = {
    store.NotFound: (404, "not_found"),
    store.Conflict: (409, "conflict"),
    store.PreconditionFailed: (412, "precondition_failed"),
    store.Invalid: (400, "invalid"),
    store.ReadOnly: (409, "read_only"),
    store.LimitExceeded: (400, "limit_exceeded"),
    store.OutOfSpace: (507, "out_of_space"),
    store.Refused: (409, "refused"),
    store.Damaged: (500, "damaged"),
    store.Closed: (503, "closed"),
    store.StoreError: (500, "internal"),
}


def create_admin(daemon: Daemon) -> FastAPI:
    app = FastAPI(title="Trefoil admin", version=__version__, docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json")
    app.state.daemon = daemon
    for module in (probes, metrics, status, buckets, users, keys, mounts, exports, volumes, hosts, snapshots, doctor, check, reduction):
        app.include_router(module.router)
    app.add_exception_handler(store.StoreError, _store_error)
    app.add_exception_handler(AccountError, _account_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _bug)
    return app


def _answer(status_code: int, kind: str, sentence: str) -> JSONResponse:
    return JSONResponse({"error": sentence, "kind": kind}, status_code)


async def _store_error(request: Request, error: Exception) -> JSONResponse:
    code, kind = next(STORE_ERRORS[base] for base in type(error).__mro__ if base in STORE_ERRORS)
    if code >= 500:
        log.error("admin request failed", extra={"path": request.url.path, "kind": kind, "reason": str(error)})
    return _answer(code, kind, str(error) or kind)


async def _account_error(request: Request, error: Exception) -> JSONResponse:
    return _answer(400, "invalid", str(error))


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    name = ".".join(str(part) for part in problem["loc"][1:])
    return _answer(400, "invalid", f"{name}: {problem['msg']}" if name else str(problem["msg"]))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    kinds = {404: "not_found", 405: "invalid", 409: "conflict", 503: "closed"}
    sentence = "the daemon has nothing there" if error.detail == "Not Found" else str(error.detail)
    return _answer(error.status_code, kinds.get(error.status_code, "invalid"), sentence)


async def _bug(request: Request, error: Exception) -> JSONResponse:
    log.error("admin request failed", exc_info=error, extra={"path": request.url.path})
    return _answer(500, "internal", "the daemon failed on this request; its log has the details")
