"""Requests a second of 64 documents of 768 float32 each, doubled and sent back: as JSON, and as bytes.

python tests/benchmarks/bench_vectors.py --seconds 2 --rounds 5
"""

import json
from collections.abc import Callable

import load
import numpy as np
from harness import Benchmark, Request, System, dumps, main, parser
from work import DIM, DOCS

from jina_asgi.documents.msgpack import pack, unpack

VECTORS = np.random.default_rng(0).standard_normal((DOCS, DIM), dtype=np.float32)


def doubled(of: Callable[[bytes], object]) -> Callable[[str, bytes], bool]:
    return lambda word, raw: np.allclose(np.asarray(of(raw), np.float32), VECTORS * 2)


def docs(path: str) -> dict:
    body = dumps({"data": [{"vector": vector} for vector in VECTORS.tolist()]})
    return {
        "request": lambda word: Request(path, body),
        "check": doubled(lambda raw: [doc["vector"] for doc in json.loads(raw)["data"]]),
    }


def plain(path: str) -> dict:
    body = dumps({"vectors": VECTORS.tolist()})
    return {"request": lambda word: Request(path, body), "check": doubled(lambda raw: json.loads(raw)["vectors"])}


def octets(path: str, factor: int = 2) -> dict:
    return {
        "request": lambda word: Request(path, VECTORS.tobytes(), "application/octet-stream"),
        "check": lambda word, raw: raw == (VECTORS * factor).tobytes(),
    }


def packed(path: str) -> dict:
    """Our msgpack: a buffer a document."""
    return {
        "request": lambda word: Request(path, pack({"data": [{"vector": v} for v in VECTORS]}), "application/msgpack"),
        "check": doubled(lambda raw: [doc["vector"] for doc in unpack(raw)["data"]]),
    }


def columns(path: str) -> dict:
    """Our msgpack, field by field: the vectors are one array."""
    return {
        "request": lambda word: Request(path, pack({"data": {"columns": {"vector": VECTORS}}}), "application/msgpack"),
        "check": doubled(lambda raw: unpack(raw)["data"]["columns"]["vector"]),
    }


JSON = Benchmark(
    title="64 vectors of 768 float32 as JSON",
    cells={"4 clients": 4},
    systems=[
        System("Starlette (json)", "starlette", args=["vectors"], **docs("/run")),
        System("jina_asgi", "jina_asgi", **docs("/double")),
        System("mosec", "mosec", args=["double"], peer="mosec", **plain("/inference")),
        System("BentoML", "bentoml", peer="bentoml", **plain("/double")),
        System("LitServe", "litserve", args=["double"], peer="litserve", **plain("/predict")),
        System("Jina 3.34", "jina", peer="jina", **docs("/double")),
        System("Jina 3.34 (pydantic 1)", "jina", peer="jina-pydantic1", **docs("/double")),
    ],
    measure=load.requests,
    main="requests/s",
)
BINARY = Benchmark(
    title="64 vectors of 768 float32 as bytes",
    cells={"4 clients": 4},
    systems=[
        System("Starlette (same bytes)", "starlette", args=["same_bytes"], **octets("/run", 1)),
        System("Starlette (doubled)", "starlette", args=["doubled_bytes"], **octets("/run")),
        System("jina_asgi (msgpack)", "jina_asgi", **packed("/double")),
        System("jina_asgi (columns)", "jina_asgi", **columns("/double")),
        System("mosec (doubled)", "mosec", args=["double_bytes"], peer="mosec", **octets("/inference")),
    ],
    measure=load.requests,
    main="requests/s",
)

if __name__ == "__main__":
    main([JSON, BINARY], parser(__doc__, seconds=2, rounds=5).parse_args())
