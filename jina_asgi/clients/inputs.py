"""Reads a Client's `inputs` and `files` in batches, each no sooner than it is sent, and limits how many requests are open.

Limits how many requests are open: at most `ahead` at the same time, and inputs are not read further.

There are two versions: for a thread whose requests run on another thread's event loop, and for a task.
"""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import aclosing
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from pydantic import BaseModel

from jina_asgi.concurrency.loops import LoopThread
from jina_asgi.concurrency.tasks import cancel_and_wait, start_task
from jina_asgi.excepts import BadClientInput

_WANTED = "a document, a list or generator of documents, a function that gives one of these, or None"


def batches(inputs: Any, size: int, thread: LoopThread | None = None) -> Generator[list[BaseModel], None, None]:
    """Yields batches of `size` documents, each read when it is asked for; a single batch with a size of 0 or less.

    An async generator runs on the event loop of `thread`.

    Raises:
        BadClientInput: the inputs have an unsupported type, or hold something other than documents.
    """
    source = _source(inputs)
    if isinstance(source, AsyncIterable):
        if thread is None:
            raise BadClientInput("an async generator is checked as it is sent, and not before")
        yield from _waited(source, size, thread)
        return
    if source is None:
        yield []
        return
    batch: list[BaseModel] = []
    for item in source:
        batch.append(_document(item, batch))
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _waited(source: AsyncIterable[Any], size: int, thread: LoopThread) -> Generator[list[BaseModel], None, None]:
    """Yields the batches of an asynchronous source, which is closed with this generator."""
    made = async_batches(source, size)
    try:
        while (batch := thread.run(_next(made))) is not None:
            yield batch
    finally:
        thread.run(made.aclose())


async def _next(made: AsyncGenerator[list[BaseModel], None]) -> list[BaseModel] | None:
    return await anext(made, None)


async def async_batches(inputs: Any, size: int) -> AsyncGenerator[list[BaseModel], None]:
    """As `batches`; the inputs may also be an async generator."""
    source = _source(inputs)
    if not isinstance(source, AsyncIterable):
        for made in batches(source, size):
            yield made
        return
    batch: list[BaseModel] = []
    async with aclosing(_items(source)) as items:
        async for item in items:
            batch.append(_document(item, batch))
            if len(batch) == size:
                yield batch
                batch = []
    if batch:
        yield batch


def the_document(inputs: Any) -> BaseModel:
    """The single document that a stream is called with.

    Raises:
        BadClientInput: there is none, or more than one.
    """
    if not isinstance(inputs, BaseModel):
        raise BadClientInput(f"stream_doc takes one document as inputs, got {type(inputs).__name__}")
    return inputs


async def _items(source: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    """Yields the items of a source, which is closed with this generator."""
    if isinstance(source, AsyncGenerator):
        async with aclosing(source):
            async for item in source:
                yield item
    else:
        async for item in source:
            yield item


def _source(inputs: Any) -> Iterable[Any] | AsyncIterable[Any] | None:
    if isinstance(inputs, BaseModel):
        return [inputs]
    if callable(inputs) and not isinstance(inputs, type):
        return _source(inputs())
    if inputs is None or isinstance(inputs, AsyncIterable):
        return inputs
    if isinstance(inputs, str | bytes | Mapping) or not isinstance(inputs, Iterable):
        raise BadClientInput(f"expected {_WANTED} as inputs, got {type(inputs).__name__}")
    return inputs


def _document(item: Any, batch: list[BaseModel]) -> BaseModel:
    if not isinstance(item, BaseModel):
        raise BadClientInput(
            f"expected documents (BaseDoc, or any pydantic model) in inputs, got {type(item).__name__}"
        )
    if batch and not isinstance(item, type(batch[0])):
        wanted, got = type(batch[0]).__name__, type(item).__name__
        raise BadClientInput(f"the documents of one request are of one class: expected {wanted}, got {got}")
    return item


#: A field's name; the file's name, bytes and media type.
Part = tuple[str, tuple[str | None, bytes, str]]
_FILES_WANTED = "a path, bytes, an open binary file, (name, content) or (name, content, media type), or a list of these"


def parts_of(files: Any) -> tuple[Part, ...]:
    """Reads the files of one request, one form part for each.

    Args:
        files: by field: a file in any supported form, or a list of files for a field that takes several, or for
            several documents.

    Raises:
        BadClientInput: a value of another type, or a file that cannot be read.
    """
    if not isinstance(files, Mapping):
        raise BadClientInput(f"expected files as a dict by field, got {type(files).__name__}")
    return tuple(
        (str(name), _file(name, given))
        for name, several in files.items()
        for given in (several if isinstance(several, list) else [several])
    )


def _file(field: str, given: Any) -> tuple[str | None, bytes, str]:
    if isinstance(given, tuple) and len(given) in (2, 3):
        name, content, *media = given
        return name, _content(field, content)[1], media[0] if media else _media(name)
    name, content = _content(field, given)
    return name, content, _media(name)


def _content(field: str, given: Any) -> tuple[str, bytes]:
    """The file's name and its content."""
    if isinstance(given, bytes | bytearray | memoryview):
        return field, bytes(given)
    try:
        if isinstance(given, str | Path):
            return Path(given).name, Path(given).read_bytes()
        if hasattr(given, "read"):
            content, name = given.read(), getattr(given, "name", field)
            if isinstance(content, bytes):
                return Path(name).name if isinstance(name, str) else field, content
    except OSError as error:
        raise BadClientInput(f"files[{field!r}] cannot be read: {error}") from error
    raise BadClientInput(f"files[{field!r}]: expected {_WANTED}, got {type(given).__name__}")


def _media(name: str | None) -> str:
    found = mimetypes.guess_type(name)[0] if name else None
    return found or "application/octet-stream"


B = TypeVar("B")
T = TypeVar("T")


def answers(
    batches: Iterator[B], submit: Callable[[B], Future[T]], *, ahead: int, in_order: bool
) -> Generator[T, None, None]:
    """Yields the answers to batches, as they come or in the batches' order; closing it cancels the open requests.

    An answer that has arrived is yielded before the next batch is read.
    """
    opened: dict[Future[T], None] = {}
    done: SimpleQueue[Future[T]] = SimpleQueue()

    def next_one(wait: bool) -> Future[T] | None:
        if in_order:
            first = next(iter(opened))
            return first if wait or first.done() else None
        return done.get() if wait or not done.empty() else None

    try:
        for batch in batches:
            future = submit(batch)
            opened[future] = None
            if not in_order:
                future.add_done_callback(done.put)
            while opened and (answered := next_one(wait=len(opened) >= ahead)) is not None:
                yield answered.result()
                del opened[answered]
        while opened:
            answered = next_one(wait=True)
            assert answered is not None
            yield answered.result()
            del opened[answered]
    finally:
        for future in opened:
            future.cancel()


async def async_answers(
    batches: AsyncGenerator[B, None],
    ask: Callable[[B], Coroutine[Any, Any, T]],
    *,
    ahead: int,
    in_order: bool,
) -> AsyncGenerator[T, None]:
    """As `answers`. The next batch is read while answers are awaited; closing this closes `batches`."""
    opened: dict[asyncio.Task[T], None] = {}
    events: asyncio.Queue[asyncio.Task[Any]] = asyncio.Queue()
    reading: asyncio.Task[Any] | None = None
    is_read = False

    def begin(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return start_task(work, events.put_nowait)

    try:
        while True:
            if reading is None and not is_read and len(opened) < ahead:
                reading = begin(_next_batch(batches))
            if reading is None and not opened:
                return
            event = await events.get()
            if event is reading:
                reading, batch = None, event.result()
                is_read = batch is None
                if batch is not None:
                    opened[begin(ask(batch))] = None
                continue
            for task in _ready(opened, event, in_order):
                yield task.result()
                del opened[task]
    finally:
        try:
            await cancel_and_wait([*opened, *([] if reading is None else [reading])])
        finally:
            await batches.aclose()


def _ready(opened: dict[asyncio.Task[T], None], event: asyncio.Task[T], in_order: bool) -> list[asyncio.Task[T]]:
    """The answers that can be yielded after `event` has finished."""
    if not in_order:
        return [event]
    ready = []
    for task in opened:
        if not task.done():
            break
        ready.append(task)
    return ready


async def _next_batch(batches: AsyncGenerator[B, None]) -> B | None:
    return await anext(batches, None)
