"""The Executor: loads the model, and answers complete or token by token. All work is in the engine's thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterable
from contextlib import aclosing
from typing import Any, TypeVar

from docarray import BaseDoc, DocList

from jina_asgi import Executor, requests
from jina_asgi.contrib.cores import default_threads

from .documents import EngineState, Generation, Prompt, Sampling, Token
from .engine import Engine
from .loading import load

T = TypeVar("T")


class TextGeneration(Executor):
    """A causal language model from transformers, many requests a step.

    Args:
        model: "smollm2" (SmolLM2-135M-Instruct, fetched and converted at the first start), the folder of a
            transformers model, or a name that transformers knows.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...
        dtype: "auto", "float32", "bfloat16" or "float16".
        max_concurrent: how many generations share a step; more wait their turn.
        max_waiting: how many may wait; more are refused with `Overloaded`.
        max_context: tokens of a prompt and its answer together; never more than the model was made for.
        threads: CPU threads of the model's arithmetic; None leaves one core to others (see `contrib/cores.py`). With several
            web workers each has a model of its own: give each its share of the cores.
    """

    def __init__(
        self,
        *,
        model: str = "smollm2",
        device: str = "auto",
        dtype: str = "auto",
        max_concurrent: int = 8,
        max_waiting: int = 64,
        max_context: int = 2048,
        threads: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.engine = Engine(
            lambda: load(model, device=device, dtype=dtype, rows=max_concurrent, max_context=max_context),
            max_waiting=max_waiting,
            threads=default_threads() if threads is None else threads,
        )
        self.engine.start()

    @requests(on=("/generate", "/default"))
    async def generate(self, docs: DocList[Prompt], parameters: Sampling) -> DocList[Generation]:
        """Answer each prompt, complete. A prompt that cannot be answered fails the request, naming its place."""
        room = asyncio.Semaphore(self.engine.slots)

        async def answer(doc: Prompt) -> Generation:
            async with room:
                text, end = await self.engine.complete(doc.text, parameters, system=doc.system)
            assert end.finish_reason is not None
            return Generation(
                text=text, tokens=end.tokens, prompt_tokens=end.prompt_tokens, finish_reason=end.finish_reason
            )

        return DocList[Generation](await _all([answer(doc) for doc in docs]))

    @requests(on="/stream")
    async def stream(self, doc: Prompt, parameters: Sampling) -> AsyncGenerator[Token, None]:
        """Answer token by token. Leaving the stream stops the model's work on it before the next step."""
        async with aclosing(self.engine.stream(doc.text, parameters, system=doc.system)) as deltas:
            async for delta in deltas:
                is_last = delta.finish_reason is not None
                yield Token(
                    text=delta.text,
                    tokens=delta.tokens,
                    finish_reason=delta.finish_reason,
                    prompt_tokens=delta.prompt_tokens if is_last else None,
                )

    @requests(on="/state")
    async def state(self, doc: BaseDoc) -> EngineState:
        """How busy the model is."""
        engine = self.engine
        return EngineState(
            model=engine.model.name,
            slots=engine.slots,
            running=engine.running,
            waiting=engine.waiting,
            tokens=engine.tokens,
        )

    def health(self) -> bool:
        return self.engine.alive

    def close(self) -> None:
        """End what runs, and the engine's thread."""
        self.engine.close()
        super().close()


async def _all(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results in order; the first error cancels the rest and comes out as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except ExceptionGroup as group_of_errors:
        raise group_of_errors.exceptions[0] from None
    return [task.result() for task in tasks]
