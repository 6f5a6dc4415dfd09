"""One thread that generates for many requests at once, a step at a time (continuous batching).

A step gives every request that has read its prompt one more token, in one pass of the model, and lets those that have
not read a bounded piece of it, so that a long prompt delays the others' tokens little. Between steps requests come and
go: one that ended or whose reader left gives its row to the next that waits. With nothing to do the thread sleeps.

The model is loaded in that thread too, and touched in no other: torch keeps a pool of workers for each thread that
ever computed, and with two pools on the same cores a step took 1.6 times as long (measured with GNU OpenMP).

The event loop's side is `Engine.stream`; the two sides meet in `_Request`. Passes of the model are `decoder.py`, what
comes of them `progress.py`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass

import torch

from jina_asgi import ExecutorInputError, NotReady, Overloaded

from .decoder import Decoder
from .documents import Sampling
from .progress import Delta, Language, Progress

logger = logging.getLogger(__name__)

#: A prompt of more characters for each token of the context cannot fit, and is not worth tokenizing.
_CHARACTERS_A_TOKEN = 64
#: Seconds that `close` waits for the running step.
_CLOSE_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Model:
    """What an engine runs. `max_context` is how many tokens a prompt and its answer may have together."""

    name: str
    decoder: Decoder
    language: Language
    max_context: int


class _Request:
    """One request. The loop's side makes it, reads `events` and sets `cancelled`; `progress` is the thread's."""

    def __init__(self, text: str, system: str | None, sampling: Sampling) -> None:
        self.text, self.system, self.sampling = text, system, sampling
        self.events: asyncio.Queue[Delta | Exception] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()
        self.cancelled = False
        self.progress: Progress

    def put(self, event: Delta | Exception) -> None:
        """Hand an event to the loop's side; a loop that is gone has no reader."""
        try:
            self.loop.call_soon_threadsafe(self.events.put_nowait, event)
        except RuntimeError:  # the loop is closed
            self.cancelled = True


class Engine:
    """Generates with one model. `start` once, `close` once; `stream` in between, from any event loop.

    Args:
        load: reads the model; called in the engine's thread.
        max_waiting: how many requests may wait for a row.
        threads: CPU threads of torch's arithmetic; None leaves torch's choice.
        prompt_step: prompt tokens that one step reads, over all requests; 512 take about as long as a few steps of
            generating on a CPU.
    """

    def __init__(
        self,
        load: Callable[[], Model],
        *,
        max_waiting: int = 64,
        threads: int | None = None,
        prompt_step: int = 512,
    ) -> None:
        self._prompt_step = prompt_step
        #: Tokens generated so far.
        self.tokens = 0
        self._load, self._max_waiting, self._threads = load, max_waiting, threads
        self._loaded: Future[Model] = Future()
        #: Guards `_waiting` and `_closing`, which both sides touch.
        self._changed = threading.Condition()
        self._waiting: deque[_Request] = deque()
        self._closing = False
        #: In the order of the decoder's rows: first those that generate, then those that still read their prompts.
        self._generating: list[_Request] = []
        self._reading: list[_Request] = []
        self._thread = threading.Thread(target=self._run, name="text-generation", daemon=True)

    @property
    def model(self) -> Model:
        """The model, once `start` has returned."""
        return self._loaded.result(timeout=0)

    @property
    def slots(self) -> int:
        """How many requests share a step."""
        return self.model.decoder.rows

    @property
    def alive(self) -> bool:
        """Whether requests are answered."""
        return self._thread.is_alive() and not self._closing

    @property
    def running(self) -> int:
        return len(self._generating) + len(self._reading)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def start(self) -> None:
        """Return once the model is loaded; raise what loading raised."""
        self._thread.start()
        self._loaded.result()

    def close(self) -> None:
        """Fail what runs or waits with `NotReady`, after the running step, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_TIMEOUT)
            if self._thread.is_alive():
                logger.error("a step of the text generation still runs after %s s", _CLOSE_TIMEOUT)

    async def stream(self, text: str, sampling: Sampling, *, system: str | None = None) -> AsyncGenerator[Delta, None]:
        """Generate: a `Delta` a token, the last one with a `finish_reason`.

        Closing the generator early gives its place to another request before the next step.

        Raises:
            ExecutorInputError: the prompt has no tokens, or more than fit.
            Overloaded: too many requests wait already.
            NotReady: the engine is not running.
        """
        request, length = _Request(text, system, sampling), len(text) + len(system or "")
        with self._changed:
            if not self.alive:
                raise NotReady("the text generation engine is not running")
            if length > (most := _CHARACTERS_A_TOKEN * self.model.max_context):
                raise ExecutorInputError(f"the prompt has {length} characters; at most {most} are read")
            if len(self._waiting) >= self._max_waiting:
                raise Overloaded(f"{len(self._waiting)} requests wait for the model already", retry_after=2.0)
            self._waiting.append(request)
            self._changed.notify()
        try:
            while True:
                event = await request.events.get()
                if isinstance(event, Exception):
                    raise event
                yield event
                if event.finish_reason is not None:
                    return
        finally:
            self._let_go(request)

    async def complete(self, text: str, sampling: Sampling, *, system: str | None = None) -> tuple[str, Delta]:
        """The whole text, and the last `Delta` with its counts. Raises as `stream` does."""
        texts: list[str] = []
        async with aclosing(self.stream(text, sampling, system=system)) as deltas:
            async for delta in deltas:
                texts.append(delta.text)
        return "".join(texts), delta

    def _let_go(self, request: _Request) -> None:
        """Nobody reads this request any more: it leaves the queue now, or its row before the next step."""
        request.cancelled = True
        with self._changed:
            if request in self._waiting:
                self._waiting.remove(request)

    def _run(self) -> None:
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        try:
            self._loaded.set_result(self._load())
        except BaseException as error:  # `start` raises it, whatever it is
            self._loaded.set_exception(error)
            return
        with torch.inference_mode():
            while self._wait_for_work():
                try:
                    self._change_places()
                    self._read_prompts()
                    self._generate()
                except Exception as error:
                    logger.exception("a step of the text generation failed, and %s requests with it", self.running)
                    self._end_running(error)
        self._end_running(None)
        with self._changed:
            while self._waiting:
                self._waiting.popleft().put(_stopped())

    def _wait_for_work(self) -> bool:
        """Sleep until there is something to do; False when that is to stop."""
        with self._changed:
            while not (self._closing or self._waiting or self.running):
                self._changed.wait()
            return not self._closing

    def _change_places(self) -> None:
        """Let go of those whose readers left, and take in those who wait."""
        for request in [r for r in (*self._generating, *self._reading) if r.cancelled]:
            self._remove(request)
        while self.running < self.slots:
            with self._changed:
                if not self._waiting:
                    return
                request = self._waiting.popleft()
            try:
                self._admit(request)
            except Exception as error:  # the prompt does not fit, or whatever a tokenizer raises at it
                request.put(error)

    def _admit(self, request: _Request) -> None:
        model = self.model
        request.progress = Progress(
            request.text, request.system, request.sampling, model.language, max_context=model.max_context
        )
        model.decoder.add()
        self._reading.append(request)

    def _read_prompts(self) -> None:
        """One pass over a piece of each prompt that is not read yet; a prompt's end gives its first token."""
        if not self._reading:
            return
        first, readers = len(self._generating), list(self._reading)
        size = max(self._prompt_step // len(readers), 1)
        pieces = [request.progress.piece(size) for request in readers]
        logits = self.model.decoder.forward(first, pieces)
        for request, piece, row in zip(readers, pieces, logits, strict=True):
            request.progress.read += len(piece)
            if request.progress.read == len(request.progress.prompt):
                self._begin_generating(request)
                self._advance(request, row)

    def _begin_generating(self, request: _Request) -> None:
        """Move a request behind those who generate."""
        place, at = len(self._generating), self._reading.index(request)
        if at:
            self.model.decoder.swap(place, place + at)
            self._reading[0], self._reading[at] = self._reading[at], self._reading[0]
        self._generating.append(self._reading.pop(0))

    def _generate(self) -> None:
        """One pass that gives each generating request its next token."""
        if not self._generating:
            return
        requests = list(self._generating)
        logits = self.model.decoder.forward(0, [[request.progress.last] for request in requests])
        for request, row in zip(requests, logits, strict=True):
            self._advance(request, row)

    def _advance(self, request: _Request, logits: torch.Tensor) -> None:
        """Hand over what one more token adds, and see whether that was the end."""
        event: Delta | Exception
        try:
            event = request.progress.take(logits)
            self.tokens += 1
        except Exception as error:  # of this request alone, such as logits that are no numbers
            event = error
        if isinstance(event, Exception) or event.finish_reason is not None:
            self._remove(request)
        request.put(event)

    def _remove(self, request: _Request) -> None:
        """Take a request from its row, so that those who generate stay in front of those who read."""
        if request in self._generating:
            row, last = self._generating.index(request), len(self._generating) - 1
            if row != last:
                self.model.decoder.swap(row, last)
                self._generating[row], self._generating[last] = self._generating[last], self._generating[row]
            self._generating.pop()
            self.model.decoder.remove(last)
            if self._reading:  # the last row came to the front
                self._reading.insert(0, self._reading.pop())
        else:
            at = self._reading.index(request)
            self.model.decoder.remove(len(self._generating) + at)
            self._reading[at] = self._reading[-1]
            self._reading.pop()

    def _end_running(self, cause: Exception | None) -> None:
        """End all that run, with an error each: `cause` of a failed step, or None when the engine stops."""
        running = [*self._generating, *self._reading]
        self._generating.clear()
        self._reading.clear()
        self.model.decoder.clear()
        for request in running:
            error = _stopped() if cause is None else RuntimeError("a step of the text generation failed")
            error.__cause__ = cause
            request.put(error)


def _stopped() -> Exception:
    return NotReady("the text generation engine was stopped")
