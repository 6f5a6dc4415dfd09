"""`Client`: calls a served Deployment or Flow, of this library or of a real Jina, with Jina's own interface."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from jina_asgi.clients.address import address_of
from jina_asgi.excepts import NotSupportedError
from jina_asgi.settings import ClientSettings
from jina_asgi.settings.options import ClientOptions

if TYPE_CHECKING:
    from jina_asgi.clients.asynchronous import AsyncClient
    from jina_asgi.clients.sync import SyncClient


@overload
def Client(
    host: str = ...,
    port: int | None = ...,
    protocol: str = ...,
    asyncio: Literal[False] = ...,
    tls: bool = ...,
    prefetch: int = ...,
    app: Any = ...,
    **options: Unpack[ClientOptions],
) -> SyncClient: ...


@overload
def Client(
    host: str = ...,
    port: int | None = ...,
    protocol: str = ...,
    *,
    asyncio: Literal[True],
    tls: bool = ...,
    prefetch: int = ...,
    app: Any = ...,
    **options: Unpack[ClientOptions],
) -> AsyncClient: ...


def Client(  # noqa: N802  # Jina's name, and used as a class is
    host: str = "127.0.0.1",
    port: int | None = None,
    protocol: str = "grpc",
    asyncio: bool = False,
    tls: bool = False,
    prefetch: int = 1000,
    app: Any = None,
    **options: Unpack[ClientOptions],
) -> SyncClient | AsyncClient:
    """Creates a client of a server, or of an ASGI application in this process.

    Args:
        host: the server's name or address, with or without a scheme, a port and a prefix: "http://models:8000/lm". A
            scheme overrides `protocol`. Over gRPC also several servers with the same endpoints, "a:54321,b:54321": each
            call goes to the next one that is reachable.
        port: the server's port; by default that of the scheme.
        protocol: "grpc", "http", or "websocket" (extra `websocket`): this library's own JSON protocol, or a real Jina's
            binary one, which needs the extra `grpc` too.
        asyncio: create the asynchronous Client, whose calls are async generators.
        tls: encrypt, as "https" in `host` does.
        prefetch: how many requests of one call are open at the same time; inputs are not read further ahead.
        app: an ASGI application to call in place of a server, over HTTP and without sockets; `host` is then needed for
            the prefix only, "http://app/lm". The app's owner runs its lifespan; a JinaASGI without one loads when
            called.
        options: those of `ClientSettings`: `headers`, `verify`, `proxy`, and options of Jina's that have no effect
            here.

    Raises:
        NotSupportedError: the protocol needs an extra that is not installed.
        DefinitionError: an invalid address or option.
    """
    address = address_of(host, port, "http" if app is not None else protocol, tls=tls)
    if address.protocol == "grpc" and find_spec("grpc") is None:
        raise NotSupportedError(
            "Client(protocol='grpc') needs the extra grpc: pip install 'jina-asgi[grpc]'; or pass protocol='http', or a"
            " host such as 'http://127.0.0.1:8000'"
        )
    settings = ClientSettings.of(options)
    if asyncio:
        from jina_asgi.clients.asynchronous import AsyncClient  # needs httpx

        return AsyncClient(address, settings, prefetch=prefetch, app=app)
    from jina_asgi.clients.sync import SyncClient  # needs httpx

    return SyncClient(address, settings, prefetch=prefetch, app=app)
