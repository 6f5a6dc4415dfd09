"""The text embedder under 64 clients of one text each, beside the model alone; by length, beside by count; binary answers.

    python tests/benchmarks/bench_embedding.py --seconds 10 --rounds 5

It needs the extra `text`, and fetches all-MiniLM-L6-v2 (83 MB) once. In a round the model alone, then the server, then
the one that batches by count have their turn on core 0, the load on core 1; ratios are paired within a round.
"""

import asyncio
import json
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import httpx
import numpy as np
from docarray import DocList
from harness import LOAD_CORE, Request, Row, Server, System, dumps, parser, spread
from transformers import AutoTokenizer

from jina_asgi import Executor, JinaASGI, requests
from jina_asgi.contrib.text_embedding import Embedding, Text
from jina_asgi.contrib.text_embedding.loading import default_folder
from jina_asgi.testing import client

CLIENTS, SHORT, LONG, LONG_SHARE = 64, 8, 256, 0.1
EVEN = 16  # a question or a sentence
TEXTS, DIMENSIONS = 256, 384

Draw = Callable[[], tuple[str, int]]


def drawer(seed: int, even: bool) -> Draw:
    """Draws texts and how many tokens they are, special ones among them; none comes twice."""
    draw = random.Random(seed)
    tokenizer = AutoTokenizer.from_pretrained(default_folder())
    words = [word for word in tokenizer.get_vocab() if word.isalpha() and word.isascii() and len(word) > 2]

    def text() -> tuple[str, int]:
        tokens = EVEN if even else LONG if draw.random() < LONG_SHARE else SHORT
        return " ".join(draw.choices(words, k=tokens - 2)), tokens

    return text


def request(text: str) -> Request:
    return Request("/embed", dumps({"data": [{"text": text}]}))


def is_vector(word: str, raw: bytes) -> bool:
    return len(json.loads(raw)["data"][0]["embedding"]) == DIMENSIONS


PASSES = System("jina_asgi", "embedding", request, is_vector, args=["passes"])
COUNT = System("by count", "embedding", request, is_vector, args=["count"])


async def ask(port: int, draw: Draw, until: float) -> list[tuple[float, int]]:
    """One client on one connection: the seconds and the tokens of each answer that came in time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = []
    while time.perf_counter() < until:
        text, tokens = draw()
        body = request(text).body
        begun = time.perf_counter()
        writer.write(b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ")
        writer.write(b"%d\r\n\r\n%b" % (len(body), body))
        head = await reader.readuntil(b"\r\n\r\n")
        answer = await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        if b" 200 " not in head.split(b"\r\n")[0] or b'"embedding":[' not in answer:
            raise RuntimeError(f"{head!r} {answer[:200]!r}")
        if time.perf_counter() <= until:
            found.append((time.perf_counter() - begun, tokens))
    writer.close()
    return found


async def load(port: int, draw: Draw, seconds: float) -> list[tuple[float, int]]:
    until = time.perf_counter() + seconds
    answers = await asyncio.gather(*(ask(port, draw, until) for _ in range(CLIENTS)))
    return [one for answer in answers for one in answer]


def post(port: int, path: str, data: Any) -> Any:
    answer = httpx.post(f"http://127.0.0.1:{port}{path}", json={"data": data}, timeout=120)
    answer.raise_for_status()
    return answer.json()["data"][0]


def served(server: Server, draw: Draw, seconds: float) -> Row:
    """One turn of a server under its clients."""
    with server.awake():
        asyncio.run(load(server.port, draw, min(1.0, seconds)))
        before, cpu = post(server.port, "/state", {}), server.cpu()
        begun = time.perf_counter()
        answers = asyncio.run(load(server.port, draw, seconds))
        took = time.perf_counter() - begun
        after, cpu = post(server.port, "/state", {}), server.cpu() - cpu
    did = {
        name: after[name] - before[name] for name in ("texts", "tokenizer_calls", "passes", "tokens", "padded_tokens")
    }
    return {
        "texts/s": len(answers) / seconds,
        "tokens/s": sum(tokens for _, tokens in answers) / seconds,
        "p50 ms": statistics.median(seconds for seconds, _ in answers) * 1e3,
        "texts a pass": did["texts"] / did["passes"],
        "tokenizer calls a text": did["tokenizer_calls"] / did["texts"],
        "padded / real": did["padded_tokens"] / did["tokens"],
        "CPU ms a text": cpu / did["texts"] * 1e3,
        "cores": cpu / took,
    }


def bare(server: Server, texts: Sequence[str], seconds: float) -> dict[str, float]:
    with server.awake():
        found: dict[str, float] = post(server.port, "/bare", {"texts": texts, "seconds": seconds})
    return found


class Prepared(Executor):
    """Answers with vectors that it has already."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        vectors = np.random.default_rng(0).standard_normal((TEXTS, DIMENSIONS), dtype=np.float32)
        self.docs = DocList[Embedding](Embedding(embedding=vector, tokens=8) for vector in vectors)

    @requests(on="/embed")
    async def embed(self, docs: DocList[Text]) -> DocList[Embedding]:
        return self.docs if docs[0].text == "all" else self.docs[:1]


async def answered(app: JinaASGI, text: str, accept: str) -> None:
    """One request as a server hands it over, without the server."""
    body, left = dumps({"data": [{"text": text}]}), asyncio.Event()
    headers = {"accept": accept, "content-type": "application/json", "content-length": str(len(body))}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/embed",
        "raw_path": b"/embed",
        "root_path": "",
        "query_string": b"",
        "client": None,
        "server": None,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    sent: list[Any] = []
    parts = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        return next(parts, None) or await left.wait()

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert sent[0]["status"] == 200


async def answers(count: int) -> dict[str, float]:
    """CPU seconds of an answer with all vectors, less those of one with a single vector, by its form."""
    forms = {
        "JSON": "application/json",
        "msgpack": "application/msgpack",
        "columns": "application/msgpack; columns=true",
    }
    found, app = {}, JinaASGI(Prepared, wait_ready=True)
    async with client(app):  # which runs its lifespan
        for name, accept in forms.items():
            took: dict[str, list[float]] = {"all": [], "one": []}
            for text, times in took.items():
                for _ in range(count):
                    begun = time.process_time()
                    await answered(app, text, accept)
                    times.append(time.process_time() - begun)
            found[name] = statistics.median(took["all"]) - statistics.median(took["one"])
    return found


def median(rows: Sequence[Row], column: str) -> str:
    return f"{statistics.median(row[column] for row in rows):.4g}"


def table(title: str, base: Sequence[float], baseline: str, rows: dict[str, list[Row]], column: str) -> None:
    columns = list(next(iter(rows.values()))[0])
    print(f"\n## {title}\n\n| | × {baseline} | " + " | ".join(columns) + " |\n|---|--:|" + "--:|" * len(columns))
    for name, found in rows.items():
        ratio = spread([row[column] / other for row, other in zip(found, base, strict=True)])
        print(f"| {name} | {ratio} | " + " | ".join(median(found, one) for one in columns) + " |")


def run(seconds: float, rounds: int) -> None:
    even, mixed = drawer(1, even=True), drawer(2, even=False)
    alone: list[dict[str, float]] = []
    same: list[Row] = []
    lengths: dict[str, list[Row]] = {"by count": [], "jina_asgi": []}
    forms: list[dict[str, float]] = []
    with ExitStack() as stack:
        ours, count = (stack.enter_context(Server(system)) for system in (PASSES, COUNT))
        for server in (ours, count):
            server.signal(signal.SIGSTOP)
        os.sched_setaffinity(0, LOAD_CORE)
        for number in range(rounds):
            alone.append(bare(ours, [even()[0] for _ in range(CLIENTS)], seconds))
            same.append(served(ours, even, seconds))
            for name, server in (("by count", count), ("jina_asgi", ours)):
                lengths[name].append(served(server, mixed, seconds))
            forms.append(asyncio.run(answers(30)))
            print(f"  round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    model = [one["model"] for one in alone]
    both = statistics.median(one["with_tokenizer"] for one in alone)
    title = f"{CLIENTS} clients, one text of {EVEN} tokens each"
    table(f"MiniLM, {title}", model, f"the model alone, {CLIENTS} at a time", {"jina_asgi": same}, "texts/s")
    cpu = [one["model_cpu"] * 1e3 for one in alone]
    by_cpu = spread([one / row["CPU ms a text"] for one, row in zip(cpu, same, strict=True)])
    print(
        f"\nThe model alone: {statistics.median(model):.4g} texts/s ({statistics.median(cpu):.3f} CPU ms a text), with its"
        f" tokenizer before each batch {both:.4g}. By CPU time, which a busy machine disturbs less: × {by_cpu}."
    )
    title = f"{1 - LONG_SHARE:.0%} texts of {SHORT} tokens, {LONG_SHARE:.0%} of {LONG}"
    base = [row["tokens/s"] for row in lengths["by count"]]
    table(f"MiniLM, {CLIENTS} clients, {title}", base, "by count", lengths, "tokens/s")
    print(f"\n## An answer of {TEXTS} x {DIMENSIONS} float32\n\n| | × JSON | CPU ms |\n|---|--:|--:|")
    for name in forms[0]:
        ratio = spread([one[name] / one["JSON"] for one in forms])
        print(f"| {name} | {ratio} | {statistics.median(one[name] for one in forms) * 1e3:.3f} |")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = parser(__doc__, seconds=10, rounds=5).parse_args()
    run(options.seconds, options.rounds)
