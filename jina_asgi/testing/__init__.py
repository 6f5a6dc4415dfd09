"""For tests: an httpx client or a WebSocket for an app, without sockets, and conformance checks for Runners.

async with client(app) as http:
    answer = await http.post("/lm/default", json={"data": [{"text": "hi"}]})

async with websocket(app, "/lm/-/ws") as socket:
    await socket.send({"id": 1, "endpoint": "/default", "data": [{"text": "hi"}]})
    event = await socket.receive()

@pytest.mark.parametrize("check", runner_conformance, ids=lambda check: check.__name__)
async def test_my_runner(check):
    await check(make_my_runner)  # (executor_class, **options of a Deployment) -> Runner
"""

from jina_asgi.protocols.http.asgi_transport import ASGITransport, Event, events
from jina_asgi.protocols.websocket.asgi_transport import InProcessSocket, SocketClosed, SocketRefused
from jina_asgi.testing.conformance import runner_conformance
from jina_asgi.testing.transport import client, websocket

__all__ = [
    "ASGITransport",
    "Event",
    "InProcessSocket",
    "SocketClosed",
    "SocketRefused",
    "client",
    "events",
    "runner_conformance",
    "websocket",
]
