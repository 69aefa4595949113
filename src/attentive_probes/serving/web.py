"""The web service: requests and answers of the Hub's image-classification task."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as AnyHTTPException

from attentive_probes.checks import COUNT, NOT_NEGATIVE, Range, check_ranges
from attentive_probes.serving.batcher import Batcher, BusyError
from attentive_probes.serving.heads import SharedPass, answer_of

OPAQUE = (
    "",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
)  # what clients send for bytes of any kind


@dataclass(frozen=True)
class Limits:
    """What a service takes.

    Args:
        max_batch: Images per backbone pass.
        max_wait: Seconds that a request waits for company.
        max_queue: Requests that are under way at a time; more are told to come again.
        max_bytes: Size of a request.

    Raises:
        ValueError: If one is not positive.
    """

    max_batch: int = 16
    max_wait: float = 0.005
    max_queue: int = 256
    max_bytes: int = 10_000_000

    def __post_init__(self) -> None:
        numbers = {"max_batch": COUNT, "max_queue": COUNT, "max_bytes": Range(1, whole=True), "max_wait": NOT_NEGATIVE}
        check_ranges(self, numbers)


class Service:
    """Answers requests to named probes, in batches.

    Args:
        served: Name of each probe -> the pass that it is read in; the first is the default.
        limits: What is taken.
    """

    def __init__(self, served: Mapping[str, SharedPass], limits: Limits):
        self.served, self.limits, self.default = dict(served), limits, next(iter(served))
        sizes = (limits.max_batch, limits.max_wait, limits.max_queue)
        self.batchers = {one: Batcher(one.logits, *sizes) for one in served.values()}
        self.under_way = 0

    async def answer(self, request: Request, name: str) -> list[dict[str, Any]]:
        """Labels and scores of the image of a request.

        Raises:
            HTTPException: With the status that says what is wrong.
        """
        if name not in self.served:
            raise HTTPException(404, f"There is no probe {name!r} here; there are {', '.join(self.served)}.")
        if self.under_way >= self.limits.max_queue:
            raise _busy()
        self.under_way += 1
        try:
            content, parameters = _parsed(await self._body(request), request.headers.get("content-type", ""))
            shared = self.served[name]
            pixels = await run_in_threadpool(shared.decode, content)
            logits = await self.batchers[shared].submit((name, pixels))
            return answer_of(shared.probes[name], logits, **parameters)
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        except BusyError:
            raise _busy() from None
        finally:
            self.under_way -= 1

    async def _body(self, request: Request) -> bytes:
        """The content of a request, read no further than the limit."""
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self.limits.max_bytes:
                raise HTTPException(413, f"The request is larger than {self.limits.max_bytes} bytes.")
            parts.append(part)
        return b"".join(parts)


def _busy() -> HTTPException:
    return HTTPException(503, "Too many requests wait; try again.", {"Retry-After": "1"})


def _parsed(body: bytes, content_type: str) -> tuple[bytes, dict[str, Any]]:
    """Bytes of the image and parameters of a request: an image as it is, or JSON with one in base64.

    Raises:
        HTTPException: If it is of another kind.
        ValueError: If it is not what it should be.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith("image/") or kind in OPAQUE:
        return body, {}
    if kind != "application/json":
        raise HTTPException(415, f"The content is {kind!r}; send an image, or JSON with one in base64.")
    try:
        content = json.loads(body)
        image = base64.b64decode(content["inputs"].rpartition(",")[2], validate=True)  # also of a data address
        parameters = content.get("parameters") or {}
        unknown = set(parameters) - {"function_to_apply", "top_k"}
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise ValueError('The JSON must be {"inputs": "<image in base64>", "parameters": {...}}.') from error
    if unknown:
        raise ValueError(f"Unknown parameters {sorted(unknown)}; known are function_to_apply and top_k.")
    return image, parameters


def create_app(served: Mapping[str, SharedPass], limits: Limits | None = None) -> FastAPI:
    """The service as an ASGI application.

    Args:
        served: What `load_served` gave.
        limits: What is taken.
    """
    service = Service(served, limits or Limits())

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        for batcher in service.batchers.values():
            await batcher.close()

    app = FastAPI(title="attentive-probes", lifespan=life, docs_url=None, redoc_url=None)

    @app.exception_handler(AnyHTTPException)  # also of addresses and methods that there are not
    async def explain(request: Request, error: AnyHTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def explain_malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "under_way": service.under_way}

    @app.get("/models")
    async def models() -> list[dict[str, Any]]:
        return [
            {"name": name, "labels": list(one.probes[name].config.id2label.values())} for name, one in served.items()
        ]

    @app.post("/")
    async def classify(request: Request) -> list[dict[str, Any]]:
        return await service.answer(request, service.default)

    @app.post("/models/{name}")
    async def classify_by(request: Request, name: str) -> list[dict[str, Any]]:
        return await service.answer(request, name)

    return app
