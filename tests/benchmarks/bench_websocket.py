"""The JSON WebSocket: calls a second against a bare Starlette WebSocket, and streams against our own events over HTTP.

python tests/benchmarks/bench_websocket.py --seconds 3 --rounds 5
"""

import load
import load_websocket
from bench_stream import asked
from harness import Benchmark, Request, Row, Server, System, dumps, main, parser

TEXT = {"text": "go"}


def echoed(word: str, raw: bytes) -> bool:
    """Readiness is asked for over HTTP."""
    return word.encode() in raw


def echo(path: str) -> dict:
    return {"request": lambda word: Request(path, dumps({"data": [{"text": word}]})), "check": echoed}


def streams(server: Server, at_once: int, seconds: float) -> Row:
    over_a_socket = server.system.name.endswith("WebSocket")
    return (load_websocket if over_a_socket else load).streams(server, at_once, seconds)


ECHO = Benchmark(
    title="Calls of one document on WebSockets",
    cells={"1 socket": 1, "32 sockets": 32},
    systems=[
        System("Starlette", "starlette", args=["websocket"], **echo("/run")),
        System("Starlette + pydantic", "starlette", args=["websocket_checked"], **echo("/run")),
        System("jina_asgi", "jina_asgi", **echo("/echo")),
    ],
    measure=load_websocket.echoes,
    main="calls/s",
)
STREAMS = Benchmark(
    title="Streams of 200 tokens, on one WebSocket",
    cells={"1 stream": 1, "32 streams": 32},
    systems=[
        System("jina_asgi SSE", "jina_asgi", **asked("/stream", {"data": TEXT})),
        System("jina_asgi WebSocket", "jina_asgi", **asked("/stream", {"data": TEXT})),
    ],
    measure=streams,
    main="tokens/s",
)

if __name__ == "__main__":
    main([ECHO, STREAMS], parser(__doc__, seconds=3, rounds=5).parse_args())
