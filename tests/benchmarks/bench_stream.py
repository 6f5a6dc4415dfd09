"""Tokens a second and the time to the first one, over streams of 200 tokens with no work between them.

The generators yield to the loop once a token, except where a system runs them elsewhere.

    python tests/benchmarks/bench_stream.py --seconds 3 --rounds 5 --systems sse-starlette,jina_asgi
"""

import re

import load
from harness import Benchmark, Request, System, dumps, main, parser
from work import TOKENS


def complete(word: str, raw: bytes) -> bool:
    return [int(number) for number in re.findall(rb"tok(\d+) ", raw)] == list(range(TOKENS))


def asked(path: str, body: dict, method: str = "POST") -> dict:
    return {"request": lambda word: Request(path, dumps(body), method=method), "check": complete}


TEXT = {"text": "go"}

BENCHMARK = Benchmark(
    title="Streams of 200 tokens",
    cells={"1 stream": 1, "32 streams": 32, "128 streams": 128},
    systems=[
        System("sse-starlette", "starlette", args=["sse"], **asked("/run", {})),
        System("StreamingResponse", "starlette", args=["raw"], **asked("/run", {})),
        System("jina_asgi", "jina_asgi", **asked("/stream", {"data": TEXT})),
        System("mosec", "mosec", args=["stream"], peer="mosec", **asked("/inference", TEXT)),
        System("BentoML", "bentoml", peer="bentoml", **asked("/stream", TEXT)),
        System("LitServe", "litserve", args=["stream"], peer="litserve", **asked("/predict", TEXT)),
        System("Jina 3.34", "jina", peer="jina", **asked("/stream", TEXT, "GET")),
        System("Jina 3.34 (pydantic 1)", "jina", peer="jina-pydantic1", **asked("/stream", TEXT, "GET")),
    ],
    measure=load.streams,
    main="tokens/s",
)

if __name__ == "__main__":
    main([BENCHMARK], parser(__doc__, seconds=3, rounds=5).parse_args())
