"""The loads that the options of batching are for, each in process, on models that sleep as a device would be busy.

Each function measures one setting and answers with figures; `bench_batching_options.py` prints them side by side, and
`plot_batching_options.py` draws them.
"""

import asyncio
import itertools
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pydantic import BaseModel

from jina_asgi import Deployment, Executor, Overloaded, requests

CALL, TOKEN, ITEM = 0.005, 0.00002, 0.0008  # seconds: of a call, of a padded token, of an item
SLOW = 0.040  # seconds of a call of the model that costs by item
SHORT, LONG = 8, 256  # tokens


class Text(BaseModel):
    id: str = ""
    text: str = ""
    tokens: int = 1
    whose: str = ""
    level: int = 0


class Model(Executor):
    """Counts what it is given; one call at a time."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: Counter[str] = Counter()

    @requests(on="/padded")
    def padded(self, docs: list[Text]) -> list[Text]:
        """As an encoder that pads to the longest: its time grows with padded tokens."""
        padded = len(docs) * max(doc.tokens for doc in docs)
        SEEN.update(calls=1, items=len(docs), padded=padded, real=sum(doc.tokens for doc in docs))
        time.sleep(CALL + TOKEN * padded)
        return docs

    @requests(on="/run")
    def run(self, docs: list[Text]) -> list[Text]:
        """40 ms a call and 0.8 ms an item."""
        SEEN.update(calls=1, items=len(docs))
        time.sleep(SLOW + ITEM * len(docs))
        return docs

    @requests(on="/flat")
    def flat(self, docs: list[Text]) -> list[Text]:
        """40 ms a call, whatever its size: what a GPU does as long as it is not full."""
        SEEN.update(calls=1, items=len(docs))
        time.sleep(SLOW)
        return docs


SEEN: Counter[str] = Counter()


def deployment(on: str, **options: Any) -> Deployment:
    return Deployment(Model, uses_dynamic_batching={on: options}, max_queue=100_000)


def percentile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(int(len(values) * part), len(values) - 1)] if values else math.nan


async def closed(callers: Sequence[Callable[[], Awaitable[Any]]], seconds: float, *more: Counter[str]) -> None:
    """Each caller asks again when it has its answer; counts are those of the time when all are under way."""
    counts = (SEEN, *more)
    over = False

    async def ask(caller: Callable[[], Awaitable[Any]]) -> None:
        while not over:
            await caller()

    tasks = [asyncio.ensure_future(ask(caller)) for caller in callers]
    await asyncio.sleep(0.3)
    for counted in counts:
        counted.clear()
    await asyncio.sleep(seconds)
    kept = [Counter(counted) for counted in counts]
    over = True
    await asyncio.gather(*tasks)
    for counted, found in zip(counts, kept, strict=True):
        counted.clear()
        counted.update(found)


async def open_loop(ask: Callable[[int], Awaitable[Any]], rate: float, seconds: float) -> None:
    """So many calls a second, whatever becomes of them."""
    begun = time.perf_counter()
    tasks: list[asyncio.Task[Any]] = []
    while (now := time.perf_counter() - begun) < seconds:
        due = int(now * rate) - len(tasks)
        tasks += [asyncio.ensure_future(ask(len(tasks) + more)) for more in range(due)]  # type: ignore[arg-type]
        await asyncio.sleep(0.002)
    await asyncio.gather(*tasks)


def mixed() -> int:
    """Nine of ten texts are short."""
    return LONG if random.random() < 0.1 else SHORT


def spread() -> int:
    """Lengths from 4 to 256, as many in each doubling."""
    return int(4 * 2 ** (6 * random.random()))


async def lengths(seconds: float, draw: Callable[[], int], **options: Any) -> dict[str, float]:
    """Tokens a second of 64 callers, the padding, and how long the longest texts take."""
    took: list[float] = []
    begun = time.perf_counter()
    async with deployment("/padded", preferred_batch_size=32, **options) as model:

        async def caller() -> None:
            tokens, asked = draw(), time.perf_counter()
            await model.call("/padded", [Text(tokens=tokens)])
            if tokens > 200 and asked > begun + 0.3:
                took.append(time.perf_counter() - asked)

        await closed([caller] * 64, seconds)
    return {
        "tokens/s": SEEN["real"] / seconds,
        "padding": SEEN["padded"] / SEEN["real"],
        "batch": SEEN["items"] / SEEN["calls"],
        "long p99 ms": percentile(took, 0.99) * 1000,
    }


async def shares(seconds: float, **options: Any) -> float:
    """How many answers `gold` had for each of `plain`, with 64 callers each."""
    had: Counter[str] = Counter()
    async with deployment("/flat", preferred_batch_size=16, tenant="whose", **options) as model:

        def caller(whose: str) -> Callable[[], Awaitable[Any]]:
            async def ask() -> None:
                await model.call("/flat", [Text(whose=whose)])
                had[whose] += 1

            return ask

        await closed([caller("gold")] * 64 + [caller("plain")] * 64, seconds, had)
    return had["gold"] / had["plain"]


async def queries(seconds: float, on: str, *, bulk: bool, **options: Any) -> tuple[float, float]:
    """The median and 99th percentile, in ms, of a client that asks ten times a second beside one of 1,000 at a time."""
    took: list[float] = []
    over = False
    async with deployment(on, **{"preferred_batch_size": 32, **options}) as model:

        async def flood() -> None:
            while not over and bulk:
                await model.call(on, [Text(whose="bulk")] * 1000)

        async def query(_: int) -> None:
            asked = time.perf_counter()
            await model.call(on, [Text(whose="query", level=5)])
            took.append(time.perf_counter() - asked)

        floods = [asyncio.ensure_future(flood()) for _ in range(2)]
        await asyncio.sleep(0.2)
        await open_loop(query, 10, seconds)
        over = True
        for task in floods:
            task.cancel()
        await asyncio.gather(*floods, return_exceptions=True)
    return percentile(took, 0.5) * 1000, percentile(took, 0.99) * 1000


async def levels(seconds: float, load: float, **options: Any) -> dict[str, float]:
    """Median latencies in ms at a part of the capacity, of the tenth that is urgent and of the others."""
    took: dict[int, list[float]] = {0: [], 5: []}
    rate = load * 16 / (SLOW + 16 * ITEM)
    async with deployment("/run", preferred_batch_size=16, **options) as model:

        async def ask(number: int) -> None:
            level, asked = 0 if number % 10 else 5, time.perf_counter()
            await model.call("/run", [Text(level=level)])
            took[level].append(time.perf_counter() - asked)

        await open_loop(ask, rate, seconds)
    return {"urgent": percentile(took[5], 0.5) * 1000, "others": percentile(took[0], 0.5) * 1000}


async def zipf(seconds: float, texts: int, **options: Any) -> dict[str, float]:
    """Calls a second of 64 callers who ask for texts of which few are frequent (Zipf's law, 1.1)."""
    weights = list(itertools.accumulate(1 / (rank + 1) ** 1.1 for rank in range(texts)))
    answered: Counter[str] = Counter()
    async with deployment("/run", preferred_batch_size=16, **options) as model:

        async def caller() -> None:
            [number] = random.choices(range(texts), cum_weights=weights)
            own = f"{random.getrandbits(64):x}"
            [answer] = await model.call("/run", [Text(id=own, text=str(number))])
            assert (answer.id, answer.text) == (own, str(number))
            answered["calls"] += 1

        await closed([caller] * 64, seconds, answered)
    return {"calls/s": answered["calls"] / seconds, "items/s": SEEN["items"] / seconds}


async def goodput(seconds: float, load: float, within: float, **options: Any) -> dict[str, float]:
    """Of the capacity, the part that is answered in time; the 99th percentile of what is answered at all, in ms."""
    took: list[float] = []
    rate = load * 64 / (SLOW + 64 * ITEM)
    refused = 0
    async with deployment("/run", preferred_batch_size=64, **options) as model:

        async def ask(number: int) -> None:
            nonlocal refused
            asked = time.perf_counter()
            try:
                await model.call("/run", [Text()])
            except Overloaded:
                refused += 1
            else:
                took.append(time.perf_counter() - asked)

        await open_loop(ask, rate, seconds)
    good = sum(one <= within for one in took) / (rate / load * seconds)
    return {"goodput": good, "p99 ms": percentile(took, 0.99) * 1000, "refused": refused / (rate * seconds)}
