"""Tokens a second of the text generation engine, beside other ways to run the same model, without a server.

    python tests/benchmarks/bench_text_generation.py --rounds 3 --tokens 64 --dtype auto

The ways take turns within a round; the table has the median of the rounds. All generate greedily, `--tokens` tokens a
stream, from the same prompt. "In turn" is `generate()` for one stream after the other, "static" one `generate()` for
all (nothing may join or leave, and nothing streams), "continuous" transformers' own continuous batching.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from jina_asgi.contrib.text_generation import Sampling
from jina_asgi.contrib.text_generation.decoder import decoder_for
from jina_asgi.contrib.text_generation.engine import Engine
from jina_asgi.contrib.text_generation.loading import ChatLanguage, Loaded, load

TEXT = "Write a long story about a knight, a dragon and the sea."


class Endless(ChatLanguage):
    """The model's language without an end, so that every way does the same work."""

    def __init__(self, language: ChatLanguage) -> None:
        self.__dict__.update(vars(language))
        self.ends = frozenset()


class Measured:
    """One run: the seconds it took, and those until each stream's first token (None where there is none to see)."""

    def __init__(self, seconds: float, tokens: int, first: list[float] | None = None) -> None:
        self.speed, self.first = tokens / seconds, first


class OurEngine:
    name = "engine"

    def __init__(self, loaded: Loaded, tokens: int, slots: int) -> None:
        self.sampling = Sampling(temperature=0, max_new_tokens=tokens)
        decoder = decoder_for(loaded.model, slots, loaded.max_context)
        self.engine = Engine(decoder, Endless(loaded.language), max_context=loaded.max_context)
        self.engine.start()

    def run(self, streams: int) -> Measured:
        async def one(began: float) -> float:
            first = 0.0
            async with aclosing(self.engine.stream(TEXT, self.sampling)) as deltas:
                async for _ in deltas:
                    first = first or time.perf_counter() - began
            return first

        async def every() -> Measured:
            began = time.perf_counter()
            first = await asyncio.gather(*(one(began) for _ in range(streams)))
            return Measured(time.perf_counter() - began, streams * self.sampling.max_new_tokens, first)

        return asyncio.run(every())

    def cancel(self) -> float:
        """Seconds from closing a stream until its slot is free."""

        async def leave() -> float:
            stream = self.engine.stream(TEXT, Sampling(max_new_tokens=2000))
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

    def __init__(self, loaded: Loaded, tokens: int, slots: int) -> None:
        self.tokens, self.prompt = tokens, loaded.language.encode(TEXT, None)
        self.manager: Any = loaded.model.init_continuous_batching(
            generation_config=_greedy(tokens),
            continuous_batching_config=ContinuousBatchingConfig(page_size=32, num_blocks=512, max_batch_tokens=512),
        )
        self.manager.start()

    def run(self, streams: int) -> Measured:
        began = time.perf_counter()
        waiting = {self._add(self.tokens) for _ in range(streams)}
        first: dict[str, float] = {}
        while waiting:
            result = self.manager.get_result(timeout=60)
            first.setdefault(result.request_id, time.perf_counter() - began)
            if result.is_finished():
                waiting.remove(result.request_id)
        return Measured(time.perf_counter() - began, streams * self.tokens, list(first.values()))

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
        return str(self.manager.add_request(list(self.prompt), max_new_tokens=tokens, streaming=True))


class Generate:
    """`generate()`: one stream after the other, or all in one call."""

    def __init__(self, loaded: Loaded, tokens: int, slots: int, *, together: bool) -> None:
        self.name = "static" if together else "in turn"
        self.model, self.tokens, self.together = loaded.model, tokens, together
        self.prompt = loaded.language.encode(TEXT, None)

    def run(self, streams: int) -> Measured:
        rows, calls = (streams, 1) if self.together else (1, streams)
        ids = torch.tensor([self.prompt] * rows, device=self.model.device)
        began = time.perf_counter()
        for _ in range(calls):
            self.model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=_greedy(self.tokens))
        return Measured(time.perf_counter() - began, streams * self.tokens)

    def close(self) -> None:
        pass


def _greedy(tokens: int) -> GenerationConfig:
    return GenerationConfig(do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens, pad_token_id=0)


@contextmanager
def _way(make: Callable[..., Any], *args: Any, **options: Any) -> Iterator[Any]:
    """One way at a time: an idle engine beside it would hold memory, and transformers changes the model's attention."""
    way = make(*args, **options)
    try:
        yield way
    finally:
        way.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--streams", default="1,2,4,8")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    counts = [int(count) for count in options.streams.split(",")]
    slots = max(counts)
    ways: list[tuple[Callable[..., Any], dict[str, Any]]] = [
        (OurEngine, {}),
        (Continuous, {}),
        (Generate, {"together": True}),
        (Generate, {"together": False}),
    ]
    found: dict[str, dict[int, list[Measured]]] = {}
    idle: dict[str, list[float]] = {}
    cancel: dict[str, list[float]] = {}
    dtype = ""
    for _ in range(options.rounds):
        for make, more in ways:
            loaded = load(options.model, device="auto", dtype=options.dtype, max_context=2048)
            dtype = str(loaded.model.dtype)
            with _way(make, loaded, options.tokens, slots, **more) as way:
                way.run(1)
                for count in counts:
                    found.setdefault(way.name, {}).setdefault(count, []).append(way.run(count))
                if hasattr(way, "cancel"):
                    cancel.setdefault(way.name, []).append(way.cancel())
                    began = time.process_time()
                    time.sleep(2)
                    idle.setdefault(way.name, []).append((time.process_time() - began) / 2)
    print(f"{options.model}, {dtype}, {options.threads} threads, {options.tokens} tokens a stream, {options.rounds} rounds")
    for title, value in (
        ("tokens/s", lambda runs: f"{statistics.median(run.speed for run in runs):.1f}"),
        ("seconds to the first token of the last stream", lambda runs: _first(runs)),
    ):
        print(f"\n| {title} | " + " | ".join(f"{count} streams" for count in counts) + " |")
        print("|---" * (len(counts) + 1) + "|")
        for name, cells in found.items():
            print(f"| {name} | " + " | ".join(value(cells[count]) for count in counts) + " |")
    print("\n| | cancel to free slot, ms | CPU while idle, % of a core |\n|---|---|---|")
    for name in cancel:
        print(f"| {name} | {1e3 * statistics.median(cancel[name]):.0f} | {100 * statistics.median(idle[name]):.2f} |")


def _first(runs: list[Measured]) -> str:
    firsts = [max(run.first) for run in runs if run.first]
    return f"{statistics.median(firsts):.3f}" if firsts else "-"


if __name__ == "__main__":
    main()
