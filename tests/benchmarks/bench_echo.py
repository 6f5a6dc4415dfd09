"""Requests a second of one document echoed over HTTP, no batching: what a request costs beside the model.

python tests/benchmarks/bench_echo.py --seconds 2 --rounds 5 --systems Starlette,jina_asgi
"""

import json

import load
from harness import Benchmark, Request, System, dumps, main, parser


def docs(path: str) -> dict:
    """What is asked of a server of documents, Jina's way."""
    return {
        "request": lambda word: Request(path, dumps({"data": [{"text": word}]})),
        "check": lambda word, raw: json.loads(raw)["data"][0]["text"] == word,
    }


def plain(path: str) -> dict:
    """What is asked of the others: the same text in the least JSON."""
    return {
        "request": lambda word: Request(path, dumps({"text": word})),
        "check": lambda word, raw: json.loads(raw) == {"text": word},
    }


BENCHMARK = Benchmark(
    title="Echo of one document over HTTP",
    cells={"1 client": 1, "32 clients": 32, "256 clients": 256},
    systems=[
        System("Starlette", "starlette", args=["echo"], **docs("/run")),
        System("FastAPI", "starlette", args=["fastapi"], **docs("/run")),
        System("jina_asgi", "jina_asgi", **docs("/echo")),
        System("jina_asgi (sync endpoint)", "jina_asgi", **docs("/echo_sync")),
        System("jina_asgi in FastAPI", "jina_asgi", args=["mounted"], **docs("/lm/echo")),
        System("mosec", "mosec", args=["echo"], peer="mosec", **plain("/inference")),
        System("BentoML", "bentoml", peer="bentoml", **plain("/echo")),
        System("LitServe", "litserve", args=["echo"], peer="litserve", **plain("/predict")),
        System("Jina 3.34", "jina", peer="jina", **docs("/echo")),
        System("Jina 3.34 (pydantic 1)", "jina", peer="jina-pydantic1", **docs("/echo")),
    ],
    measure=load.requests,
    main="requests/s",
)

if __name__ == "__main__":
    main([BENCHMARK], parser(__doc__, seconds=2, rounds=5).parse_args())
