"""gRPC's health checks, unary and watched: whether calls are answered. Without authentication, as `/-/ready`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from jina_asgi.concurrency.health_signal import health_signal
from jina_asgi.protocols.grpc.messages import (
    NOT_SERVING,
    SERVICE_UNKNOWN,
    SERVING,
    HealthRequest,
    HealthResponse,
)
from jina_asgi.protocols.grpc.rpc import refuse
from jina_asgi.protocols.service import Service

SERVICE = "grpc.health.v1.Health"


class Health:
    """The health of some gRPC services, which is the same for all."""

    def __init__(self, service: Service, services: Collection[str]) -> None:
        self._service, self._services = service, frozenset(("", *services))
        self._changed, self._ending = asyncio.Event(), False
        self._stop_watching: Callable[[], None] = lambda: None

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """The methods by their full names."""
        return {
            f"/{SERVICE}/Check": grpc.unary_unary_rpc_method_handler(self._check),
            f"/{SERVICE}/Watch": grpc.unary_stream_rpc_method_handler(self._watch),
        }

    def begin(self) -> None:
        """Called when serving begins, on this loop."""
        self._changed, self._ending = asyncio.Event(), False
        loop = asyncio.get_running_loop()

        def notify() -> None:
            with suppress(RuntimeError):  # that loop is closed, and no RPC is on it
                loop.call_soon_threadsafe(self._notify)

        self._stop_watching = health_signal.watch(notify)

    def end(self) -> None:
        """Called when serving ends: watchers are notified at once, and their RPCs end."""
        self._stop_watching()
        self._ending = True
        self._notify()

    def _notify(self) -> None:
        """Wake the watchers, who look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _check(self, raw: bytes, context: Any) -> bytes:
        self._service.start()
        service = await _service(raw, context)
        if service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {service[:200]!r}")
        return bytes(HealthResponse(status=self._status()).SerializeToString())

    async def _watch(self, raw: bytes, context: Any) -> None:
        service = await _service(raw, context)
        sent = 0
        while True:
            changed = self._changed  # the one of before this look
            status = self._status() if service in self._services else SERVICE_UNKNOWN
            if status != sent:
                sent = status
                try:
                    await context.write(HealthResponse(status=status).SerializeToString())
                except grpc.aio.InternalError as error:
                    await refuse(context, error, self._service)
            if self._ending:
                return
            await changed.wait()

    def _status(self) -> int:
        return NOT_SERVING if self._ending or self._service.unhealthy_reason() else SERVING


async def _service(raw: bytes, context: Any) -> str:
    try:
        return str(HealthRequest.FromString(raw).service)
    except DecodeError:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a HealthCheckRequest")
        raise
