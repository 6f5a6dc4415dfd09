"""The protocols under test: a server around any Executor, and the client half that calls it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from jina_asgi import Deployment, Executor, GRPCSidecar, JinaASGI
from jina_asgi.protocols.grpc.remote import GrpcRunner
from jina_asgi.protocols.remote.server import HttpRunner
from jina_asgi.runners.wrappers import Wrapper
from jina_asgi.testing import ASGITransport
from jina_asgi.types import Endpoint, Runner
from tests.doubles.uvicorn_server import free_port, serving
from tests.doubles.websocket_runner import WebSocketRunner, app_dialler

Endpoints = Mapping[str, Endpoint] | None


class Served(Wrapper):
    """A Runner that calls a server, which lives as long.

    Args:
        endpoints: those of the server, with their classes.
        server: serves while it is entered.
        client: makes a Runner that calls the server, from its endpoints or without them.
    """

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        server: Callable[[], AbstractAsyncContextManager[Any]],
        client: Callable[[Endpoints], Runner],
    ) -> None:
        super().__init__(client(endpoints))
        self.server, self.client = server, client

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with self.server(), self.inner.lifespan():
            yield


def application(uses: type[Executor], **options: Any) -> JinaASGI:
    """What an Executor raised is told here, as the checks ask what it was: elsewhere that is no client's business."""
    return JinaASGI(Deployment(uses, **options), wait_ready=True, expose_errors=True)


@asynccontextmanager
async def loaded_within(listening: AbstractAsyncContextManager[Any], asgi: JinaASGI) -> AsyncIterator[None]:
    """Listens, and within that loads: open calls end before their connections do."""
    async with listening, asgi.lifespan():
        yield


def over_http(uses: type[Executor], /, *, grace: float = 30.0, **options: Any) -> Served:
    asgi = application(uses, grace=grace, **options)

    def client(endpoints: Endpoints) -> Runner:
        return HttpRunner("http://test", transport=ASGITransport(asgi), endpoints=endpoints, grace=grace)

    return Served(asgi.source.endpoints, asgi.lifespan, client)


def over_a_socket(uses: type[Executor], /, *, grace: float = 30.0, **options: Any) -> Served:
    asgi, port = application(uses, grace=grace, **options), free_port()

    def client(endpoints: Endpoints) -> Runner:
        return HttpRunner(f"http://127.0.0.1:{port}", endpoints=endpoints, grace=grace)

    return Served(asgi.source.endpoints, lambda: loaded_within(serving(asgi, port=port), asgi), client)


#: HTTP/1.1 says nothing of a request that its client has left: that the generator was closed is seen a moment later.
over_a_socket.confirms_closing = False  # type: ignore[attr-defined]  # a check reads it


def over_a_websocket_in_process(uses: type[Executor], /, *, grace: float = 30.0, **options: Any) -> Served:
    asgi = application(uses, grace=grace, **options)

    def client(endpoints: Endpoints) -> Runner:
        dial, transport = app_dialler(asgi), ASGITransport(asgi)
        return WebSocketRunner("http://test", dial=dial, transport=transport, endpoints=endpoints, grace=grace)

    return Served(asgi.source.endpoints, asgi.lifespan, client)


def over_a_websocket(uses: type[Executor], /, *, grace: float = 30.0, **options: Any) -> Served:
    asgi, port = application(uses, grace=grace, **options), free_port()

    def client(endpoints: Endpoints) -> Runner:
        return WebSocketRunner(f"http://127.0.0.1:{port}", endpoints=endpoints, grace=grace)

    return Served(asgi.source.endpoints, lambda: loaded_within(serving(asgi, port=port), asgi), client)


def over_grpc(uses: type[Executor], /, *, grace: float = 30.0, **options: Any) -> Served:
    deployment, where = Deployment(uses, grace=grace, **options), f"127.0.0.1:{free_port()}"
    sidecar = GRPCSidecar(deployment, where, expose_errors=True)
    return Served(
        deployment.endpoints, sidecar.lifespan, lambda endpoints: GrpcRunner([where], endpoints=endpoints, grace=grace)
    )


#: HTTP/2 says that a call was cancelled, and not when its server has ended it.
over_grpc.confirms_closing = False  # type: ignore[attr-defined]  # a check reads it

#: Every protocol, by the function that makes its server and its client half.
PROTOCOLS = [over_http, over_a_socket, over_a_websocket_in_process, over_a_websocket, over_grpc]
