"""gRPC's health checks: whether the Runner can answer, asked once or watched. `auth` is not asked, as for `/-/ready`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from jina_asgi.protocols.admission import Lasting
from jina_asgi.protocols.grpc.messages import (
    NOT_SERVING,
    SERVICE_UNKNOWN,
    SERVING,
    HealthRequest,
    HealthResponse,
)

SERVICE = "grpc.health.v1.Health"
_LOOK = 0.5  # seconds: that a replica died, or came back, tells nobody here; it is looked at while somebody watches


class Health:
    """The health of some services: all of them are served, or none is."""

    def __init__(self, life: Lasting, services: Collection[str]) -> None:
        self._life, self._services = life, frozenset(("", *services))
        self._told, self._ending = asyncio.Event(), False

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """The methods by their full names."""
        return {
            f"/{SERVICE}/Check": grpc.unary_unary_rpc_method_handler(self._check),
            f"/{SERVICE}/Watch": grpc.unary_stream_rpc_method_handler(self._watch),
        }

    def begin(self) -> None:
        """Serving begins, on this loop."""
        self._told, self._ending = asyncio.Event(), False

    def end(self) -> None:
        """Serving ends: who watches is told at once, and watches no more."""
        self._ending = True
        self._told.set()

    async def _check(self, raw: bytes, context: Any) -> bytes:
        self._life.start()
        service = await _service(raw, context)
        if service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {service[:200]!r}")
        return bytes(HealthResponse(status=self._status()).SerializeToString())

    async def _watch(self, raw: bytes, context: Any) -> None:
        service = await _service(raw, context)
        told = 0
        while True:
            status = self._status() if service in self._services else SERVICE_UNKNOWN
            if status != told:
                told = status
                await context.write(HealthResponse(status=status).SerializeToString())
            if self._ending:
                return
            await self._next_look()

    async def _next_look(self) -> None:
        try:
            async with asyncio.timeout(_LOOK):
                await self._told.wait()
        except TimeoutError:
            return

    def _status(self) -> int:
        return SERVING if self._life.ready and not self._ending else NOT_SERVING


async def _service(raw: bytes, context: Any) -> str:
    try:
        return str(HealthRequest.FromString(raw).service)
    except DecodeError:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a HealthCheckRequest")
        raise
