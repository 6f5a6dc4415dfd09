"""Arrays there and back between processes, one at a time: through the pool, and by a pipe of multiprocessing.

python tests/benchmarks/bench_arrays.py --rounds 5

GB/s is the array's size twice, there and back, over the median time; the pipe's answer is not made into an array.
"""

import asyncio
import multiprocessing
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

import numpy as np
from harness import parser, spread

from jina_asgi import Deployment, ReplicaPool

SIZES = {"64 KB": 2**16, "1 MB": 2**20, "16 MB": 2**24}
COLD = 5


async def timed(call: Callable[[], Awaitable[object]], count: int) -> float:
    """The median time of a call, in seconds."""
    took = []
    for _ in range(COLD + count):
        begun = time.perf_counter()
        await call()
        took.append(time.perf_counter() - begun)
    return statistics.median(took[COLD:])


async def pooled(pool: Deployment, size: int) -> float:
    array = np.arange(size // 4, dtype=np.float32)

    async def call() -> None:
        [doc] = await pool.call("/echo", {"tensor": array})
        answer = doc["tensor"]
        if answer[-1] != array[-1] or answer.nbytes != array.nbytes:
            raise AssertionError("another array came back")

    return await timed(call, max(20, 2**25 // size))


def _echo(pipe: Connection) -> None:
    while data := pipe.recv_bytes():
        pipe.send_bytes(data)


async def piped(pipe: Connection, size: int) -> float:
    data = os.urandom(size)

    async def call() -> None:
        pipe.send_bytes(data)
        pipe.recv_bytes()

    return await timed(call, max(20, 2**25 // size))


async def main(rounds: int) -> None:
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_echo, args=(theirs,))
    child.start()
    rows: dict[str, dict[str, list[float]]] = {}
    uses = "pooled_arrays.Echo"
    async with ReplicaPool(uses, replicas=1, name="own") as own, Deployment(uses, replicas=1, name="hosted") as hosted:
        for _ in range(rounds):
            for label, size in SIZES.items():
                row = rows.setdefault(label, {"pipe": [], "ReplicaPool": [], "Deployment": []})
                row["pipe"].append(await piped(ours, size))
                row["ReplicaPool"].append(await pooled(own, size))
                row["Deployment"].append(await pooled(hosted, size))
    child.kill()
    child.join()
    print("## Arrays there and back\n\n| | | ms | GB/s each way | x pipe |\n|---|---|--:|--:|--:|")
    for label, row in rows.items():
        for name, took in row.items():
            median = statistics.median(took)
            ratios = [pipe / one for pipe, one in zip(row["pipe"], took, strict=True)]
            print(
                f"| {label} | {name} | {median * 1e3:.3f} | {2 * SIZES[label] / median / 1e9:.2f} | {spread(ratios)} |"
            )


if __name__ == "__main__":
    options = parser(__doc__, seconds=0, rounds=3).parse_args()
    asyncio.run(main(options.rounds))
