"""Reads a Client's `inputs` in batches of documents, each no sooner than it is sent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Mapping
from contextlib import aclosing
from typing import Any

from pydantic import BaseModel

from jina_asgi.concurrency.loops import LoopThread
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
