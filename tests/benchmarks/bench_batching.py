"""Batching: the model's own pace against what is served, and an overload.

python tests/benchmarks/bench_batching.py --parts inprocess,http --seconds 3 --rounds 3 --systems ideal,jina_asgi,mosec

`ideal` is the model called back to back with full batches: what a device can give. Each part prints a table.
"""

import asyncio
import http.client
import json
import statistics
import sys
import time
from pathlib import Path

import load
import overload
from batch_models import BATCH, FOLDER, MODELS, counted
from harness import Benchmark, Request, Row, Server, System, dumps, main, parser, spread

SUFFIX = {"sleep": "!", "matmul": ":"}
CLIENTS = {"64 clients": 64, "256 clients": 256}


def systems(model: str) -> list[System]:
    def asked(path: str, wrap: str = "") -> dict:
        def request(word: str) -> Request:
            body = {"": {"text": word}, "texts": {"texts": [word]}, "data": {"data": [{"text": word}]}}[wrap]
            return Request(path, dumps(body))

        return {"request": request, "check": lambda word, raw: f"{word}{SUFFIX[model]}".encode() in raw}

    plain = [("mosec", "/inference", ""), ("litserve", "/predict", ""), ("bentoml", "/run", "texts")]
    return [
        System("ideal", "ideal", args=[model], **asked("/run")),
        System("jina_asgi", "batching", args=[model], **asked("/run", "data")),
        System("batched in Starlette", "batched", args=[model], peer="batched", **asked("/run")),
        *(System(name, name, args=[model], peer=name, **asked(path, wrap)) for name, path, wrap in plain),
        System("jina", "jina", args=[model], peer="jina", **asked("/run", "data")),
    ]


def measure(server: Server, connections: int, seconds: float) -> Row:
    calls, items = counted(Path(server.folder.name))
    if server.system.name == "ideal":
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("POST", "/run", dumps({"seconds": seconds}))
        found = json.loads(connection.getresponse().read())
        connection.close()
        row = {"requests/s": found["items"] / found["seconds"], "p50 ms": 0.0, "p99 ms": 0.0, "count": found["items"]}
    else:
        row = dict(load.requests(server, connections, seconds))
    after_calls, after_items = counted(Path(server.folder.name))
    return {**row, "mean batch": (after_items - items) / max(after_calls - calls, 1)}


def over_http(model: str) -> Benchmark:
    title = f"Batching over HTTP, model `{model}`, batch {BATCH}"
    return Benchmark(title=title, cells=CLIENTS, systems=systems(model), measure=measure, main="requests/s")


async def closed_loop(deployment: object, make: type, clients: int, seconds: float) -> tuple[float, float]:
    """Calls a second by so many callers, each of which asks again when it has its answer; and the mean batch.

    Whole batches are counted, from one's end to another's, once they are under way.
    """
    folder = FOLDER
    stopped = False

    async def caller() -> None:
        while not stopped:
            await deployment.call("/run", [make(text="load")])  # type: ignore[attr-defined]

    async def batch_ended() -> tuple[int, int, float]:
        calls, _ = counted(folder)
        while counted(folder)[0] == calls:
            await deployment.call("/run", [make(text="load")])  # type: ignore[attr-defined]
        return *counted(folder), time.perf_counter()

    callers = [asyncio.ensure_future(caller()) for _ in range(clients)]
    await asyncio.sleep(0.3)
    calls, items, begun = await batch_ended()
    await asyncio.sleep(seconds)
    last_calls, last_items, ended = await batch_ended()
    stopped = True
    await asyncio.gather(*callers)
    return (last_items - items) / (ended - begun), (last_items - items) / (last_calls - calls)


def ideal(seconds: float) -> float:
    begun, items = time.perf_counter(), 0
    while time.perf_counter() < begun + seconds:
        items += len(MODELS["sleep"](["load"] * BATCH))
    return items / (time.perf_counter() - begun)


async def in_process(seconds: float, rounds: int) -> str:
    sys.argv[1:] = ["0", "sleep"]
    from serve_batching import Text, Work

    from jina_asgi import Deployment

    lines = [
        "## Batching in process, model `sleep`",
        "",
        "| callers | × ideal | calls/s | mean batch |",
        "|--:|--:|--:|--:|",
    ]
    batching = {"/run": {"preferred_batch_size": BATCH, "timeout": 20}}
    async with Deployment(Work, uses_dynamic_batching=batching) as deployment:
        for clients in CLIENTS.values():
            found = []
            for _ in range(rounds):
                best = ideal(seconds)
                rate, batch = await closed_loop(deployment, Text, clients, seconds)
                found.append((rate / best, rate, batch))
            ratios, rates, batches = zip(*found, strict=True)
            medians = f"{statistics.median(rates):.0f} | {statistics.median(batches):.1f}"
            lines.append(f"| {clients} | {spread(ratios)} | {medians} |")
        lines += ["", await lone(deployment, Text)]
    return "\n".join(lines)


async def lone(deployment: object, make: type) -> str:
    """What a call costs over the model's own time when nobody else asks."""
    alone, called = [], []
    for _ in range(100):
        begun = time.perf_counter()
        MODELS["sleep"](["load"])
        alone.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        await deployment.call("/run", [make(text="load")])  # type: ignore[attr-defined]
        called.append(time.perf_counter() - begun)
    over = (statistics.median(called) - statistics.median(alone)) * 1000
    return (
        f"A lone call, batch {BATCH} and a 20 ms window set: {over:.2f} ms over the model's own time (median of 100)."
    )


if __name__ == "__main__":
    options = parser(__doc__, seconds=4, rounds=3)
    options.add_argument("--parts", default="inprocess,http,matmul,overload", help="(%(default)s)")
    options.add_argument("--overload-seconds", type=float, default=30.0, help="(%(default)s)")
    chosen = options.parse_args()
    parts = chosen.parts.split(",")
    if "inprocess" in parts:
        print(asyncio.run(in_process(chosen.seconds, chosen.rounds)), flush=True)
        for left in FOLDER.glob("batches-*"):
            left.unlink()
    if "overload" in parts:
        print(overload.report(chosen.overload_seconds), flush=True)
    served = [over_http(model) for part, model in (("http", "sleep"), ("matmul", "matmul")) if part in parts]
    if served:
        main(served, chosen)
