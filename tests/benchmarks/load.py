"""The two load generators: wrk for requests, and one epoll loop for streams, which costs 2 µs a chunk."""

from __future__ import annotations

import json
import os
import selectors
import socket
import statistics
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from harness import Request, Row, Server
from work import TOKENS, token

HERE = Path(__file__).parent
LAST = token(TOKENS - 1).strip().encode()
DRAIN_SECONDS = 20.0


def requests(server: Server, connections: int, seconds: float) -> Row:
    """Requests a second over `connections` kept-alive connections, each sending one at a time.

    Where none ends in time, as wrk counts whole answers only, it tries once more for eight times as long.
    """
    figures = _wrk(server, connections, seconds)
    if not figures["requests"]:
        figures = _wrk(server, connections, 8 * max(seconds, 1))
    if figures["errors"] or not figures["requests"]:
        raise RuntimeError(f"{figures['errors']} requests failed, {figures['requests']} did not")
    return {
        "requests/s": figures["requests"] / figures["us"] * 1e6,
        "p50 ms": figures["p50"],
        "p99 ms": figures["p99"],
        "count": figures["requests"],
    }


def _wrk(server: Server, connections: int, seconds: float) -> dict[str, float]:
    request = server.system.request("load")
    body = Path(server.folder.name, "body")
    body.write_bytes(request.body)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(round(seconds), 1)}s", "--timeout", "60s"]
    done = subprocess.run(
        [*command, "-s", str(HERE / "wrk.lua"), f"http://127.0.0.1:{server.port}{request.path}"],
        env={**os.environ, "BODY": str(body), "TYPE": request.content_type, "METHOD": request.method},
        capture_output=True,
        text=True,
        check=True,
    )
    figures: dict[str, float] = json.loads(done.stdout.split("FIGURES ")[1].splitlines()[0])
    return figures


class Stream:
    """One streaming request over a connection of its own, read to its end."""

    def __init__(self, port: int, head: bytes) -> None:
        self.first: float | None = None
        self.tokens = 0
        self.tail = b""
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.start = time.perf_counter()
        self.socket.sendall(head)
        self.socket.setblocking(False)

    def read(self) -> bool:
        """Take what has come; False at the end of the stream."""
        chunk = self.socket.recv(1 << 18)
        if not chunk:
            self.socket.close()
            return False
        seen = self.tail + chunk
        found = seen.count(b"tok") - self.tail.count(b"tok")
        if found:
            self.first = self.first or time.perf_counter()
            self.tokens += found
        self.tail = seen[-64:]
        return True

    @property
    def complete(self) -> bool:
        return self.tokens == TOKENS and LAST in self.tail


def streams(server: Server, at_once: int, seconds: float) -> Row:
    """Tokens a second over `at_once` streams, each followed by another until the time is up; then all end."""
    head = _head(server.system.request("load"))
    begin = time.perf_counter()
    end, tokens, firsts, count = begin + seconds, 0, list[float](), 0
    with selectors.EpollSelector() as selector:

        def start() -> None:
            stream = Stream(server.port, head)
            selector.register(stream.socket, selectors.EVENT_READ, stream)

        for _ in range(at_once):
            start()
        while selector.get_map():
            ready = selector.select(timeout=1)
            now = time.perf_counter()
            if now > end + DRAIN_SECONDS:
                _close(key.fileobj for key in list(selector.get_map().values()))
                raise RuntimeError(f"streams did not end {DRAIN_SECONDS:.0f} s after the last began")
            for key, _ in ready:
                stream: Stream = key.data
                before = stream.tokens
                if stream.read():
                    tokens += stream.tokens - before if now < end else 0
                    continue
                selector.unregister(key.fd)
                if not stream.complete or stream.first is None:
                    raise RuntimeError(f"a stream ended after {stream.tokens} of {TOKENS} tokens: {stream.tail!r}")
                firsts.append((stream.first - stream.start) * 1000)
                count += TOKENS
                if now < end:
                    start()
    return {
        "tokens/s": tokens / seconds,
        "first token p50 ms": statistics.median(firsts),
        "first token max ms": max(firsts),
        "count": count,
    }


def _head(request: Request) -> bytes:
    lines = [
        f"{request.method} {request.path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Connection: close",
        "Accept: text/event-stream",
        f"Content-Type: {request.content_type}",
        f"Content-Length: {len(request.body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + request.body


def _close(sockets: Iterable[object]) -> None:
    for one in sockets:
        assert isinstance(one, socket.socket)
        one.close()
