"""Hostile bytes into everything that reads frames: only ProtocolError may come out, and memory stays bounded.

    python tests/faults/fuzz_frames.py --frames 1000000 --seed 0

Frames are changed, cut, repeated, spliced or made up, sent in chunks of any size, and what the reader still takes
for frames goes on to both states and to everything that reads heads. The same seed gives the same bytes.
"""

from __future__ import annotations

import argparse
import random
import resource
import struct
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parents[2]))

from jina_asgi.errors import InvalidDocs, JinaASGIError, ProtocolError
from jina_asgi.protocols.frames import _layout
from jina_asgi.protocols.frames._heads import (
    MAGIC,
    VERSIONS,
    CallHead,
    CreditHead,
    ErrorHead,
    GoodbyeHead,
    Hello,
    NewsHead,
    ResultHead,
    describe,
    endpoint_of,
    error_of,
    read,
    write,
    write_error,
)
from jina_asgi.protocols.frames._layout import Frame, FrameReader, write_frame
from jina_asgi.protocols.frames._rules import ClientState, ServerState, Window
from jina_asgi.types import Endpoint, Field, Schema

LIMIT = 1 << 16
#: What this process may grow by while it reads a million hostile frames.
MEMORY_LIMIT = 64 << 20
HEADER = struct.Struct("<IQBBII")
INTERESTING = (0, 1, 2, 4, 22, 127, 128, 255, 256, 2**16, 2**31 - 1, 2**31, 2**32 - 1)
# Bytes with which msgpack promises much: arrays, maps, strings, binaries and extensions with long lengths.
PROMISES = (*tuple(bytes([code]) + b"\xff" * 4 for code in (221, 223, 219, 198, 201, 220, 222)), b"\x91" * 200)

TEXT = Schema("Text", {"Text": (Field("text", "str"),)}, {"type": "object"})
ENDPOINT = describe(Endpoint(name="/call", kind="batch", input=TEXT, output=TEXT))
HELLO = write(Hello(MAGIC, *VERSIONS, version=VERSIONS[1], endpoints=[ENDPOINT]))


def seeds() -> list[bytes]:
    """One valid frame of every kind, and some with docs."""
    heads: list[tuple[int, int, bytes, tuple[bytes, ...]]] = [
        (_layout.HELLO, 0, HELLO, ()),
        (_layout.CALL, 1, write(CallHead("/call", "id", headers={"a": "b"}, remaining=1.5)), (b"doc",)),
        (_layout.CALL, 2, write(CallHead("/call", "id", sources=[("a", 1)])), (b"doc", b"", b"x" * 5000)),
        (_layout.STREAM, 3, write(CallHead("/call", "id", items=16, size=1 << 18)), (b"doc",)),
        (_layout.CANCEL, 1, b"", ()),
        (_layout.CREDIT, 3, write(CreditHead(8, 1000)), ()),
        (_layout.RESULT, 1, write(ResultHead(b"\x80", [("a", 1.0, 2.0, None)])), (b"doc",) * 20),
        (_layout.ITEM, 3, b"", (b"doc",)),
        (_layout.END, 3, b"", ()),
        (_layout.ERROR, 2, write_error(InvalidDocs("why", [{"loc": [0]}])), ()),
        (_layout.GOODBYE, 0, write(GoodbyeHead(3)), ()),
        (_layout.PING, 0, b"", ()),
        (_layout.PONG, 0, b"", ()),
        (_layout.NEWS, 0, write(NewsHead("why")), ()),
    ]
    found = []
    for kind, request, head, docs in heads:
        out: list[Any] = []
        write_frame(out, kind, request, head, docs)
        found.append(b"".join(out))
    return found


@dataclass
class Hostile:
    """Makes the bytes."""

    dice: random.Random
    seeds: list[bytes] = field(default_factory=seeds)

    def frame(self) -> bytes:
        ways: list[Callable[[bytes], bytes]] = [
            self.flip, self.flip, self.lie, self.promise, self.cut, self.splice, self.noise, self.header, lambda f: f,
        ]  # fmt: skip
        frame = self.dice.choice(self.seeds)
        for _ in range(self.dice.choice((1, 1, 1, 2, 3))):
            frame = self.dice.choice(ways)(frame)
        return frame

    def flip(self, frame: bytes) -> bytes:
        changed = bytearray(frame or b"\0")
        for _ in range(self.dice.choice((1, 1, 2, 8))):
            changed[self.dice.randrange(len(changed))] = self.dice.randrange(256)
        return bytes(changed)

    def lie(self, frame: bytes) -> bytes:
        """Another number in one field of the header."""
        if len(frame) < HEADER.size:
            return frame
        facts = list(HEADER.unpack_from(frame))
        place = self.dice.randrange(len(facts))
        number = self.dice.choice(INTERESTING)
        facts[place] = number % 256 if place in (2, 3) else number
        return HEADER.pack(*facts) + frame[HEADER.size :]

    def promise(self, frame: bytes) -> bytes:
        """msgpack that promises more than it has, the frame's own lengths kept right."""
        head = self.dice.choice(PROMISES) + self.dice.randbytes(self.dice.randrange(8))
        out: list[Any] = []
        write_frame(out, self.dice.randint(_layout.HELLO, _layout.NEWS), self.dice.randrange(4), head)
        return b"".join(out)

    def cut(self, frame: bytes) -> bytes:
        return frame[: self.dice.randrange(len(frame) + 1)]

    def splice(self, frame: bytes) -> bytes:
        other = self.dice.choice(self.seeds)
        return frame[: self.dice.randrange(len(frame) + 1)] + other[self.dice.randrange(len(other)) :]

    def noise(self, frame: bytes) -> bytes:
        return self.dice.randbytes(self.dice.randrange(64))

    def header(self, frame: bytes) -> bytes:
        """A made-up header that is nearly right."""
        length, head = self.dice.randrange(64), self.dice.randrange(64)
        kind = self.dice.randint(_layout.HELLO, _layout.NEWS)
        facts = (length, self.dice.randrange(5), kind, 0, min(head, length), self.dice.randrange(8))
        return HEADER.pack(*facts) + self.dice.randbytes(length)


class Victim:
    """One connection's worth of readers: the bytes' own, both states, every head."""

    HEADS = (Hello, CallHead, ResultHead, ErrorHead, CreditHead, GoodbyeHead, NewsHead)

    def __init__(self) -> None:
        self.reader = FrameReader(LIMIT)
        self.asking: ClientState[None] = ClientState()
        self.answering: ServerState[None] = ServerState()
        hello = Frame(_layout.HELLO, 0, HELLO)
        self.asking.receive(hello)
        self.answering.receive(hello)
        for window in (None, None, Window()):
            self.asking.open_request(None, window)

    def take(self, chunk: bytes, seen: Counter[str]) -> None:
        """Read a chunk as far as it goes.

        Raises:
            ProtocolError: the connection is over.
        """
        for frame in self.reader.feed(chunk):
            seen["frames read"] += 1
            self.look_at_heads(frame)
            for state in (self.asking, self.answering):
                try:
                    state.receive(frame)
                except ProtocolError:
                    seen["out of order"] += 1

    def look_at_heads(self, frame: Frame) -> None:
        for kind in self.HEADS:
            try:
                head = read(frame, kind)
                if isinstance(head, ErrorHead):
                    assert isinstance(error_of(head), JinaASGIError)
                if isinstance(head, Hello):
                    for endpoint in head.endpoints:
                        endpoint_of(endpoint)
            except ProtocolError:
                continue


def one_connection(hostile: Hostile, left: int, seen: Counter[str]) -> int:
    """Send frames until the connection breaks, or fifty; how many were sent."""
    victim, dice, sent = Victim(), hostile.dice, 0
    for _ in range(min(left, 50)):
        sent += 1
        data = hostile.frame()
        piece = dice.choice((len(data), len(data), 7, 1)) or 1
        try:
            for start in range(0, len(data), piece):
                victim.take(data[start : start + piece], seen)
        except ProtocolError:
            seen["connections broken"] += 1
            break
        assert victim.reader.pending <= LIMIT + HEADER.size
    return sent


def fuzz(frames: int, seed: int) -> Counter[str]:
    """Send that many frames; what was seen.

    Raises:
        Exception: whatever a reader raised that is no ProtocolError.
    """
    hostile, seen = Hostile(random.Random(seed)), Counter[str]()
    sent = 0
    while sent < frames:
        sent += one_connection(hostile, frames - sent, seen)
        seen["connections"] += 1
    seen["frames sent"] = sent
    return seen


def peak() -> int:
    """The most memory this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    fuzz(2000, options.seed)  # caches fill
    before, start = peak(), time.perf_counter()
    try:
        seen = fuzz(options.frames, options.seed)
    except (Exception, msgspec.MsgspecError):  # the one thing that must not happen
        traceback.print_exc()
        return 1
    seconds, grown = time.perf_counter() - start, peak() - before
    print(f"{options.frames / seconds:,.0f} frames/s, {seconds:.1f} s, grown by {grown / 2**20:.1f} MiB")
    print(", ".join(f"{name}: {count:,}" for name, count in sorted(seen.items())))
    if grown > MEMORY_LIMIT:
        print(f"expected to grow by at most {MEMORY_LIMIT / 2**20:.0f} MiB")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
