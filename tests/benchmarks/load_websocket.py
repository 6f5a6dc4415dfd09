"""The load generator for WebSockets: one epoll loop that writes frames made beforehand and counts what comes back."""

from __future__ import annotations

import selectors
import socket
import statistics
import time

from harness import Row, Server, dumps
from load import DRAIN_SECONDS
from work import TOKENS

_END, _DATA, _ERROR = b'"event":"end"', b'"event":"data"', b'"event":"error"'


class Socket:
    """One WebSocket, without compression."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lines = [
            "GET /-/ws HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            "Sec-WebSocket-Version: 13",
        ]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.socket.recv(4096)
        if not answer.startswith(b"HTTP/1.1 101"):
            raise RuntimeError(f"no WebSocket: {answer[:200]!r}")
        self.tail = b""
        self.socket.setblocking(False)

    def send(self, message: bytes) -> None:
        """A frame masked by zeros, which leave it as it is."""
        assert 125 < len(message) < 1 << 16 or len(message) < 126
        size = bytes([0x80 | len(message)]) if len(message) < 126 else b"\xfe" + len(message).to_bytes(2, "big")
        self.socket.sendall(b"\x81" + size + b"\0\0\0\0" + message)

    def read(self) -> tuple[int, int]:
        """Take what has come: how many documents, and how many ends."""
        chunk = self.socket.recv(1 << 18)
        if not chunk:
            raise RuntimeError("the server closed a WebSocket")
        if b'": ' in chunk:
            chunk = chunk.replace(b'": ', b'":')  # json's own spaces, which Starlette's answers have
        seen, before = self.tail + chunk, self.tail
        if _ERROR in seen:
            raise RuntimeError(f"an error came: {seen[-500:]!r}")
        self.tail = seen[-(len(_DATA) + 1) :]
        return seen.count(_DATA) - before.count(_DATA), seen.count(_END) - before.count(_END)


def echoes(server: Server, connections: int, seconds: float) -> Row:
    """Calls a second over `connections` sockets, each sending the next call when one has ended."""
    message = dumps({"id": 1, "endpoint": "/echo", "data": [{"text": "x" * 64}]})
    calls, begin = 0, time.perf_counter()
    end = begin + seconds
    with selectors.EpollSelector() as selector:
        for _ in range(connections):
            one = Socket(server.port)
            one.send(message)
            selector.register(one.socket, selectors.EVENT_READ, one)
        while (now := time.perf_counter()) < end:
            for key, _ in selector.select(timeout=1):
                sock: Socket = key.data
                for _ in range(sock.read()[1]):
                    calls += 1
                    sock.send(message)
        took = now - begin
        for key in list(selector.get_map().values()):
            key.data.socket.close()
    return {"calls/s": calls / took, "count": calls}


def streams(server: Server, at_once: int, seconds: float) -> Row:
    """Tokens a second over `at_once` streams of one socket; each end is followed by another stream until time is up."""
    messages = [dumps({"id": number, "endpoint": "/stream", "data": {"text": "go"}}) for number in range(at_once)]
    one = Socket(server.port)
    begin = time.perf_counter()
    end, tokens, count, ended, free = begin + seconds, 0, 0, 0, 0
    for message in messages:
        one.send(message)
    started = at_once
    firsts = [0.0]
    with selectors.EpollSelector() as selector:
        selector.register(one.socket, selectors.EVENT_READ)
        while ended < started:
            selector.select(timeout=1)
            now = time.perf_counter()
            if now > end + DRAIN_SECONDS:
                raise RuntimeError(f"streams did not end {DRAIN_SECONDS:.0f} s after the last began")
            docs, ends = one.read()
            if not count and docs:
                firsts = [(now - begin) * 1000]
            tokens += docs if now < end else 0
            count += docs
            ended += ends
            for _ in range(ends if now < end else 0):
                free += 1
                one.send(dumps({"id": at_once + free, "endpoint": "/stream", "data": {"text": "go"}}))
                started += 1
    one.socket.close()
    if count != started * TOKENS:
        raise RuntimeError(f"{started} streams gave {count} tokens")
    return {
        "tokens/s": tokens / seconds,
        "first token p50 ms": statistics.median(firsts),
        "first token max ms": max(firsts),
        "count": count,
    }
