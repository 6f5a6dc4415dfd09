"""Client: asks a served Deployment or Flow, ours or a real Jina's, with Jina's own calls."""

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
    """A client of a server, or of an application in this process.

    Args:
        host: its name or address, with or without a scheme, a port and a prefix: "http://models:8000/lm". A scheme
            decides the protocol. Over gRPC also several that answer alike, "a:54321,b:54321": each call goes to the next
            one that is there.
        port: its port; by default the scheme's own.
        protocol: "grpc", "http" or "websocket", with the extra `websocket`: this library's own JSON one, or of a real Jina
            its binary one, which needs the extra `grpc` too.
        asyncio: give the asynchronous Client, whose calls are async generators.
        tls: encrypt, as "https" in `host` does.
        prefetch: how many requests of one call are open at once; inputs are read no further.
        app: an ASGI application to ask in place of a server, over HTTP and without sockets; `host` then needs no name
            but "http://app/lm" for the prefix. Its lifespan is its owner's; a JinaASGI without one loads when asked.
        options: those of `ClientSettings`: `headers`, `verify`, `proxy`, and Jina's that change nothing here.

    Raises:
        NotSupportedError: the extra is missing that the protocol needs.
        DefinitionError: an address, or an option, that is none.
    """
    address = address_of(host, port, "http" if app is not None else protocol, tls=tls)
    if address.protocol == "grpc" and find_spec("grpc") is None:
        raise NotSupportedError(
            "Client(protocol='grpc') needs the extra grpc: pip install 'jina-asgi[grpc]'; or pass protocol='http', or a"
            " host such as 'http://127.0.0.1:8000'"
        )
    settings = ClientSettings.of(options)
    if asyncio:
        from jina_asgi.clients.asynchronous import AsyncClient  # with httpx

        return AsyncClient(address, settings, prefetch=prefetch, app=app)
    from jina_asgi.clients.sync import SyncClient  # with httpx

    return SyncClient(address, settings, prefetch=prefetch, app=app)
