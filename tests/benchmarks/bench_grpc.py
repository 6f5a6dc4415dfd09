"""Jina's messages over gRPC: a bare grpc.aio server, which parses and writes the same messages, ours, and Jina's.

python tests/benchmarks/bench_grpc.py --seconds 2 --rounds 7

Bare grpc.aio runs on asyncio, as its documentation has it, and on uvloop, as ours does where that is installed.
"""

from collections.abc import Callable

import load_grpc
import numpy as np
from docarray import BaseDoc
from docarray.typing import NdArray
from harness import Benchmark, Request, System, main, parser, ratios, spread

from jina_asgi.documents.codec import codec
from jina_asgi.documents.schemas import schema_of
from jina_asgi.protocols.protobuf import requests

POST = "/jina.JinaSingleDataRequestRPC/process_single_data"
STREAM = "/jina.JinaSingleDocumentRequestRPC/stream_doc"
TOKENS = 200


class Text(BaseDoc):
    text: str = ""


class Vector(BaseDoc):
    vector: NdArray


TEXTS, VECTORS = codec(schema_of(Text)), codec(schema_of(Vector))
ARRAYS = np.random.default_rng(0).random((64, 768), np.float32)


def post(on: str, docs) -> Request:
    return Request(POST, requests.request(on, docs, {}, request_id="r").SerializeToString())


def echo(word: str) -> Request:
    return post("/echo", TEXTS.docs([Text(text=word)]))


def echoed(word: str, raw: bytes) -> bool:
    return [row["text"] for row in requests.values(requests.read(raw))] == [word]


def vectors(word: str) -> Request:
    return post("/vectors", VECTORS.docs([Vector(id=f"{word}{n}", vector=row) for n, row in enumerate(ARRAYS)]))


def returned(word: str, raw: bytes) -> bool:
    rows = requests.values(requests.read(raw))
    same = len(rows) == len(ARRAYS) and all(map(np.array_equal, [row["vector"] for row in rows], ARRAYS))
    return same and rows[0]["id"] == f"{word}0"


def stream(word: str) -> Request:
    docs = TEXTS.docs([Text(text=word)])
    return Request(STREAM, requests.single("/tokens", docs, {}, request_id="r").SerializeToString())


def streamed(word: str, raw: bytes) -> bool:
    return raw.count(b"token ") == TOKENS and b"token 199" in raw


class Compared(Benchmark):
    """With ours beside each other system: by what was answered, and by what one call costs the server."""

    def markdown(self) -> str:
        told = [super().markdown()]
        for systems in self.rows.values():
            ours = systems.get("jina_asgi", [])
            for name, rows in systems.items():
                if ours and rows is not ours:
                    by_calls, by_cost = ratios(ours, rows, self.main), ratios(rows, ours, "CPU µs")
                    told.append(f"- jina_asgi × {name}: {spread(by_calls)}; by CPU time a call {spread(by_cost)}")
        return "\n".join([*told, ""])


def compared(
    title: str, at_once: int, request: Callable[[str], Request], check: Callable[[str, bytes], bool]
) -> Compared:
    def system(name: str, kind: str, peer: str | None = None) -> System:
        return System(name, "grpc", request, check, args=[kind], peer=peer, ask=load_grpc.ask)

    systems = [
        system("grpc.aio", "asyncio"),
        system("grpc.aio on uvloop", "uvloop"),
        system("jina_asgi", "jina_asgi"),
        system("Jina 3.34", "jina", "jina"),
    ]
    return Compared(title, {f"{at_once} at once": at_once}, systems, load_grpc.calls, main="calls/s")


if __name__ == "__main__":
    main(
        [
            compared("One document echoed over gRPC", 16, echo, echoed),
            compared("64 documents of 768 float32 over gRPC", 4, vectors, returned),
            compared("Streams of 200 tokens over gRPC", 8, stream, streamed),
        ],
        parser(__doc__, seconds=2, rounds=7).parse_args(),
    )
