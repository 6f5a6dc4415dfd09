"""Tokens a second of the text generation engine, beside other ways to run the same model, without a server.

    python tests/benchmarks/bench_text_generation.py --rounds 3 --tokens 64 --dtype auto

The ways take turns within a round, each in a process of its own (two pools of torch's threads disturb each other); the
table has the median of the rounds. All generate greedily, `--tokens` tokens a stream. "In turn" is `generate()` for one stream after the other, "static" one `generate()` for
all (nothing may join or leave, and nothing streams), "continuous" transformers' own continuous batching.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import count, islice
from multiprocessing import get_context
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from jina_asgi.contrib.cores import default_threads
from jina_asgi.contrib.text_generation import Sampling
from jina_asgi.contrib.text_generation.engine import Engine, Model
from jina_asgi.contrib.text_generation.loading import ChatLanguage, default_folder, load


def prompts() -> Iterator[str]:
    """One for each stream, all of one length and none twice: transformers shares the past of equal beginnings."""
    return (f"{number} words. Write a long story about a knight, a dragon and the sea." for number in count(1000))


class Endless(ChatLanguage):
    """The model's language without an end, so that every way does the same work."""

    def __init__(self, language: ChatLanguage) -> None:
        self.__dict__.update(vars(language))
        self.ends = frozenset()


@dataclass(frozen=True)
class Task:
    """What every way does."""

    model: str
    dtype: str
    threads: int
    tokens: int
    counts: tuple[int, ...]


class Clock:
    """Started when made; `measured` reads it. CPU time is steadier than the wall's where others compute too."""

    def __init__(self) -> None:
        self.began, self.cpu = time.perf_counter(), time.process_time()

    def elapsed(self) -> float:
        return time.perf_counter() - self.began

    def measured(self, tokens: int, first: list[float] | None = None) -> Measured:
        return Measured(tokens / self.elapsed(), tokens / (time.process_time() - self.cpu), first)


@dataclass
class Measured:
    """One run: tokens by time, and the seconds until each stream's first token (None where there is none to see)."""

    speed: float
    cpu_speed: float
    first: list[float] | None


@dataclass
class Measures:
    """All of one way in one round: runs by their number of streams, and what only streaming ways have."""

    runs: dict[int, Measured]
    cancel: float | None = None
    idle: float = 0.0


class OurEngine:
    name = "engine"

    def __init__(self, task: Task) -> None:
        self.prompts, self.sampling = prompts(), Sampling(temperature=0, max_new_tokens=task.tokens)
        self.engine = Engine(lambda: self._load(task), threads=task.threads)
        self.engine.start()

    @staticmethod
    def _load(task: Task) -> Model:
        model = load(task.model, device="auto", dtype=task.dtype, rows=max(task.counts), max_context=2048)
        assert isinstance(model.language, ChatLanguage)
        return replace(model, language=Endless(model.language))

    def run(self, streams: int) -> Measured:
        async def one(clock: Clock) -> float:
            first = 0.0
            async with aclosing(self.engine.stream(next(self.prompts), self.sampling)) as deltas:
                async for _ in deltas:
                    first = first or clock.elapsed()
            return first

        async def every() -> Measured:
            clock = Clock()
            first = await asyncio.gather(*(one(clock) for _ in range(streams)))
            return clock.measured(streams * self.sampling.max_new_tokens, first)

        return asyncio.run(every())

    def cancel(self) -> float:
        """Seconds from closing a stream until its slot is free."""

        async def leave() -> float:
            stream = self.engine.stream(next(self.prompts), Sampling(max_new_tokens=2000))
            for _ in range(5):
                await anext(stream)
            began = time.perf_counter()
            await stream.aclose()
            while self.engine.running:
                await asyncio.sleep(0.001)
            return time.perf_counter() - began

        return asyncio.run(leave())

    def close(self) -> None:
        self.engine.close()


class Continuous:
    name = "continuous"

    def __init__(self, task: Task) -> None:
        model, self.prompts = _plain(task)
        self.tokens = task.tokens
        self.manager: Any = model.init_continuous_batching(
            generation_config=_greedy(task.tokens),
            continuous_batching_config=ContinuousBatchingConfig(page_size=32, num_blocks=512, max_batch_tokens=512),
        )
        self.manager.start()

    def run(self, streams: int) -> Measured:
        clock = Clock()
        waiting = {self._add(self.tokens) for _ in range(streams)}
        first: dict[str, float] = {}
        while waiting:
            result = self.manager.get_result(timeout=60)
            first.setdefault(result.request_id, clock.elapsed())
            if result.is_finished():
                waiting.remove(result.request_id)
        return clock.measured(streams * self.tokens, list(first.values()))

    def cancel(self) -> float:
        request = self._add(2000)
        for _ in range(5):
            self.manager.get_result(timeout=60)
        began = time.perf_counter()
        self.manager.cancel_request(request)
        while self.manager.batch_processor.has_pending_requests():
            time.sleep(0.001)
        seconds = time.perf_counter() - began
        while self.manager.get_result(timeout=0.2) is not None:
            pass
        return seconds

    def close(self) -> None:
        self.manager.stop(block=True, timeout=30)

    def _add(self, tokens: int) -> str:
        return str(self.manager.add_request(next(self.prompts), max_new_tokens=tokens, streaming=True))


class Generate:
    """`generate()`, one stream after the other."""

    name = "in turn"

    together = False

    def __init__(self, task: Task) -> None:
        self.model, self.prompts = _plain(task)
        self.tokens = task.tokens

    def run(self, streams: int) -> Measured:
        rows, calls = (streams, 1) if self.together else (1, streams)
        clock = Clock()
        for _ in range(calls):
            ids = torch.tensor(list(islice(self.prompts, rows)), device=self.model.device)
            self.model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=_greedy(self.tokens))
        return clock.measured(streams * self.tokens)

    def close(self) -> None:
        pass


class Static(Generate):
    """One `generate()` for all."""

    name, together = "static", True


WAYS: list[type[Any]] = [OurEngine, Continuous, Static, Generate]


def _plain(task: Task) -> tuple[Any, Iterator[list[int]]]:
    """The model without an engine, in this thread, and the prompts' tokens."""
    torch.set_num_threads(task.threads)
    model = load(task.model, device="auto", dtype=task.dtype, rows=1, max_context=2048)
    return model.decoder.model, (model.language.encode(text, None) for text in prompts())


def _greedy(tokens: int) -> GenerationConfig:
    return GenerationConfig(do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens, pad_token_id=0)


def measure(place: int, task: Task) -> Measures:
    """One way, in this process."""
    way = WAYS[place](task)
    try:
        way.run(1)
        measures = Measures({number: way.run(number) for number in task.counts})
        if hasattr(way, "cancel"):
            measures.cancel = way.cancel()
            began = time.process_time()
            time.sleep(2)
            measures.idle = (time.process_time() - began) / 2
        return measures
    finally:
        way.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, default=default_threads() or torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--streams", default="1,2,4,8")
    given = parser.parse_args()
    counts = tuple(int(number) for number in given.streams.split(","))
    task = Task(given.model, given.dtype, given.threads, given.tokens, counts)
    default_folder()  # fetched before anything is timed
    found: dict[str, list[Measures]] = {way.name: [] for way in WAYS}
    for _ in range(given.rounds):
        for place, way in enumerate(WAYS):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                found[way.name].append(process.submit(measure, place, task).result())
    print(task, f"{given.rounds} rounds")
    for title, value in (
        ("tokens/s", _speed),
        ("tokens per CPU second", _cpu_speed),
        ("seconds to the last stream's first token", _first),
    ):
        print(f"\n| {title} | " + " | ".join(f"{number} streams" for number in counts) + " |")
        print("|---" * (len(counts) + 1) + "|")
        for name, rounds in found.items():
            print(f"| {name} | " + " | ".join(value([one.runs[number] for one in rounds]) for number in counts) + " |")
    print("\n| | cancel to free slot, ms | CPU while idle, % of a core |\n|---|---|---|")
    for name, rounds in found.items():
        if cancels := [one.cancel for one in rounds if one.cancel is not None]:
            idle = statistics.median(one.idle for one in rounds)
            print(f"| {name} | {1e3 * statistics.median(cancels):.0f} | {100 * idle:.2f} |")


def _speed(runs: list[Measured]) -> str:
    return f"{statistics.median(run.speed for run in runs):.1f}"


def _cpu_speed(runs: list[Measured]) -> str:
    return f"{statistics.median(run.cpu_speed for run in runs):.1f}"


def _first(runs: list[Measured]) -> str:
    firsts = [max(run.first) for run in runs if run.first]
    return f"{statistics.median(firsts):.3f}" if firsts else "-"


if __name__ == "__main__":
    main()
