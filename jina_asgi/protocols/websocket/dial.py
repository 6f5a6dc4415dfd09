"""Connections for WebSockets between processes, by the `websockets` library."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from jina_asgi.errors import NotReady
from jina_asgi.protocols.problems import error_of
from jina_asgi.protocols.websocket.client import Dial, Wire, WireClosed

try:
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
except ImportError as error:
    raise ImportError(
        "calling over a WebSocket needs the library websockets: pip install 'jina-asgi[websocket]'"
    ) from error

_OPEN = 10.0  # seconds for connecting


class SocketWire(Wire):
    """A connection of the `websockets` library."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def send(self, message: str | bytes) -> None:
        try:
            await self._connection.send(message)
        except ConnectionClosed as error:
            raise _closed(error) from error

    async def receive(self) -> str | bytes:
        try:
            return await self._connection.recv()
        except ConnectionClosed as error:
            raise _closed(error) from error

    async def close(self) -> None:
        await self._connection.close()


def dialler(*, verify: Any = True, proxy: bool = False, subprotocol: str | None = None) -> Dial:
    """Makes the function that opens connections.

    Args:
        verify: how a server's certificate is verified, as in httpx: an SSLContext, or False for no verification.
        proxy: use the proxy in the environment.
        subprotocol: the offered subprotocol; a server may accept the handshake without selecting it.
    """
    tls = verify if isinstance(verify, ssl.SSLContext) else ssl.create_default_context()
    if verify is False:
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE

    async def dial(url: str, headers: Mapping[str, str]) -> Wire:
        options: dict[str, Any] = {"proxy": True if proxy else None}
        if subprotocol is not None:
            options["subprotocols"] = [subprotocol]
        if url.startswith("wss"):
            options["ssl"] = tls
        try:
            made = connect(
                url, additional_headers=dict(headers), max_size=None, compression=None, open_timeout=_OPEN, **options
            )
            return SocketWire(await made)
        except InvalidStatus as error:
            response = error.response
            raise error_of(
                response.status_code,
                {key.lower(): value for key, value in response.headers.raw_items()},
                bytes(response.body or b""),
            ) from error
        except (OSError, InvalidHandshake) as error:  # a timeout is an OSError
            raise NotReady(f"cannot connect to {url}: {error}") from error

    return dial


def _closed(error: ConnectionClosed) -> WireClosed:
    return WireClosed(1006) if error.rcvd is None else WireClosed(error.rcvd.code, error.rcvd.reason)
