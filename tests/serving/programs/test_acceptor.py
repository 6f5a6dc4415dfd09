"""Connections to the pool host that end before they are served."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from jina_asgi.processes.handshake import HostRequest
from jina_asgi.serving.programs.acceptor import AcceptedConnection


async def test_a_connection_that_ended_before_it_was_served_is_not_waited_for() -> None:
    welcomed: asyncio.Queue[AcceptedConnection] = asyncio.Queue()
    theirs, ours = socket.socketpair()
    loop = asyncio.get_running_loop()
    await loop.connect_accepted_socket(
        lambda: AcceptedConnection(lambda reception, ask: welcomed.put_nowait(reception), dict), ours
    )
    with theirs:
        theirs.sendall(HostRequest(ask="serve").dumps())
        reception = await welcomed.get()
    await asyncio.wait_for(reception.gone.wait(), 5)
    generation: Any = None  # is not looked at
    await asyncio.wait_for(reception.hand_over(generation), 5)
    reception.close()
