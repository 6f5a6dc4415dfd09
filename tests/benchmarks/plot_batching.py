"""The two plots of docs/batching.md, measured here and drawn as SVG: plot_batching.py [FOLDER], by default docs.

In process, the model `sleep` (10 ms + 0.2 ms an item): throughput and latency against `preferred_batch_size` at 64
callers, and latency against the load at a batch size of 32.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from batch_models import FOLDER, MODELS
from pydantic import BaseModel

from jina_asgi import Deployment, Executor, requests

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
LOADS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
CAPACITY = 32 / (0.010 + 0.0002 * 32)
SECONDS = 2.0
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 300, 60, 45, 30
Series = tuple[str, str, Sequence[float]]


class Text(BaseModel):
    text: str


class Work(Executor):
    @requests(on="/run")
    def run(self, docs: list[Text]) -> list[Text]:
        MODELS["sleep"]([doc.text for doc in docs])
        return docs


def deployment(size: int) -> Deployment:
    return Deployment(Work, uses_dynamic_batching={"/run": {"preferred_batch_size": size}}, max_queue=100_000)


async def closed_loop(size: int, callers: int = 64) -> tuple[float, float]:
    """Calls a second, and their median latency in ms."""
    took: list[float] = []
    async with deployment(size) as model:
        end = time.perf_counter() + SECONDS

        async def caller() -> None:
            while (begun := time.perf_counter()) < end:
                await model.call("/run", [Text(text="load")])
                if (now := time.perf_counter()) < end:
                    took.append(now - begun)

        await asyncio.gather(*(caller() for _ in range(callers)))
    return len(took) / SECONDS, statistics.median(took) * 1000


async def open_loop(load: float) -> tuple[float, float]:
    """The median and 99th percentile of the latency, in ms, at a part of the capacity."""
    took: list[float] = []

    async def caller(model: Deployment) -> None:
        begun = time.perf_counter()
        await model.call("/run", [Text(text="load")])
        took.append(time.perf_counter() - begun)

    async with deployment(32) as model:
        begun = time.perf_counter()
        tasks: list[asyncio.Task[None]] = []
        while (now := time.perf_counter() - begun) < SECONDS:
            due = int(now * CAPACITY * load) - len(tasks)
            tasks += [asyncio.ensure_future(caller(model)) for _ in range(due)]
            await asyncio.sleep(0.001)
        await asyncio.gather(*tasks)
    took.sort()
    return statistics.median(took) * 1000, took[int(len(took) * 0.99)] * 1000


def chart(title: str, xlabel: str, ticks: Sequence[str], series: Sequence[Series], *, one_scale: bool = False) -> str:
    """Lines over evenly spaced ticks, each scaled to its own greatest value, or all to the greatest of all."""
    inner, high = WIDTH - LEFT - 20, HEIGHT - BOTTOM - TOP
    xs = [LEFT + inner * i / (len(ticks) - 1) for i in range(len(ticks))]
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT + 20 * len(series)}" font-family="sans-serif" font-size="12">',
        f'<rect width="100%" height="100%" fill="white"/><text x="{LEFT}" y="18" font-size="14">{title}</text>',
        f'<path d="M{LEFT} {TOP}V{TOP + high}H{LEFT + inner}" fill="none" stroke="black"/>',
        f'<text x="{LEFT + inner / 2}" y="{HEIGHT - 8}" text-anchor="middle">{xlabel}</text>',
    ]
    out += [
        f'<text x="{x:.0f}" y="{TOP + high + 16}" text-anchor="middle">{t}</text>'
        for x, t in zip(xs, ticks, strict=True)
    ]
    for row, (name, colour, values) in enumerate(series):
        most = max(max(line) for _, _, line in series) if one_scale else max(values)
        ys = [TOP + high * (1 - value / most) for value in values]
        points = " ".join(f"{x:.0f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, y, value in zip(xs, ys, values, strict=True):
            beside = y + 14 if row or y < TOP + 16 else y - 6  # the second line's figures stand below it
            out.append(f'<circle cx="{x:.0f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
            out.append(
                f'<text x="{x:.0f}" y="{beside:.1f}" text-anchor="middle" font-size="10" fill="{colour}">{value:.0f}</text>'
            )
        y = HEIGHT + 20 * row + 8
        out.append(
            f'<path d="M{LEFT} {y - 4}h24" stroke="{colour}" stroke-width="2"/><text x="{LEFT + 32}" y="{y}">{name}</text>'
        )
    return "\n".join([*out, "</svg>", ""])


def _medians(runs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    medians, tails = zip(*runs, strict=True)
    return statistics.median(medians), statistics.median(tails)


def main(folder: Path) -> None:
    by_size = [asyncio.run(closed_loop(size)) for size in SIZES]
    by_load = [_medians([asyncio.run(open_loop(load)) for _ in range(3)]) for load in LOADS]
    for left in FOLDER.glob("batches-*"):
        left.unlink()
    rates, latencies = zip(*by_size, strict=True)
    medians, tails = zip(*by_load, strict=True)
    size_chart = chart(
        "64 callers, model of 10 ms + 0.2 ms a document",
        "preferred_batch_size",
        [str(size) for size in SIZES],
        [("calls a second", "#1b6ca8", rates), ("median latency, ms", "#c0392b", latencies)],
    )
    load_chart = chart(
        "Latency by load, preferred_batch_size 32, no window",
        "load, as a part of what full batches can carry",
        [f"{load:.0%}" for load in LOADS],
        [("99th percentile, ms", "#c0392b", tails), ("median, ms", "#1b6ca8", medians)],
    )
    (folder / "batching-size.svg").write_text(size_chart)
    (folder / "batching-load.svg").write_text(load_chart)
    print("| preferred_batch_size | calls/s | median ms |\n|--:|--:|--:|")
    for size, (rate, latency) in zip(SIZES, by_size, strict=True):
        print(f"| {size} | {rate:.0f} | {latency:.1f} |")
    print("\n| load | median ms | p99 ms |\n|--:|--:|--:|")
    for load, (median, tail) in zip(LOADS, by_load, strict=True):
        print(f"| {load:.0%} | {median:.1f} | {tail:.1f} |")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2] / "docs"))
