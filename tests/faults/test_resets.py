"""A connection that is reset keeps nothing, though idle ones are kept for a minute."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from jina_asgi import JinaASGI
from jina_asgi.serving.uvicorn_server import released
from tests.doubles.uvicorn_server import serving
from tests.doubles.websockets import Spoken
from tests.faults.wire import Wire


@pytest.mark.parametrize("protocol", [H11Protocol, HttpToolsProtocol])
async def test_what_was_reset_is_let_go_at_once(protocol: Any) -> None:
    made: list[weakref.ref[Any]] = []
    lost: list[asyncio.Future[None]] = []

    class Counted(released(protocol)):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(weakref.ref(self))
            lost.append(asyncio.get_running_loop().create_future())
            self.number = len(lost) - 1

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost[self.number].set_result(None)

    async with serving(JinaASGI(Spoken), http=Counted, timeout_keep_alive=75) as port:
        for _ in range(5):
            async with Wire(port) as wire:
                await wire.send(b"GET /-/live HTTP/1.1\r\nhost: x\r\n\r\n")
                assert (await wire.head()).startswith(b"HTTP/1.1 200")
                wire.reset()
        async with asyncio.timeout(10):
            await asyncio.gather(*lost)
        await asyncio.sleep(0)
        gc.collect()
        assert [None] * 5 == [connection() for connection in made]
