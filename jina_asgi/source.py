"""What answers calls and may be mounted: the words that a Deployment and a Flow share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from typing import Any, Self

from pydantic import BaseModel

from jina_asgi.codecs import Codec, codec
from jina_asgi.endpoints import normalised
from jina_asgi.errors import UnknownEndpoint
from jina_asgi.runners.observe import ObserveRunner
from jina_asgi.types import EMPTY, Call, Context, Endpoint, Result, Runner, resolve


class Source(ABC):
    """A name, a Runner, and how to call it with no server at all."""

    #: What answers.
    runner: ObserveRunner

    def __init__(self) -> None:
        self._stack = AsyncExitStack()

    @property
    @abstractmethod
    def name(self) -> str:
        """The name, as figures and logs have it."""

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """The endpoints by name.

        Raises:
            NotReady: a class is known to replicas alone, and none has loaded yet.
        """
        return self.runner.endpoints

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """Loads on entering, closes on leaving."""
        return self.runner.lifespan()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.lifespan())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def call(
        self, on: str, docs: Any, parameters: Mapping[str, Any] | None = None, *, context: Context | None = None
    ) -> Any:
        """Answer one call: docs in, docs out, in order.

        Args:
            on: the endpoint.
            docs: a list of documents (or of dicts with their fields), or one document, answered by a list of one.
            parameters: for the endpoint.

        Raises:
            UnknownEndpoint, InvalidDocs, ExecutorInputError, ExecutorError, DeadlineExceeded, Unavailable.
        """
        return (await self.run(on, docs, parameters, context=context)).docs.typed

    async def run(
        self,
        on: str,
        docs: Any,
        parameters: Mapping[str, Any] | None = None,
        *,
        context: Context | None = None,
        target_executor: str = "",
    ) -> Result:
        """As `call`, answering with the whole Result: docs, `__results__` and the trail.

        Args:
            on, docs, parameters, context: as for `call`.
            target_executor: of a Flow, a pattern for the names of the nodes that answer; a Deployment has but one.
        """
        call = _call(self.runner, on, docs, parameters, context, target_executor)
        ticket = self.runner.admit(on)
        try:
            return await self.runner.call(call)
        finally:
            ticket.close()

    async def stream(
        self, on: str, doc: Any, parameters: Mapping[str, Any] | None = None, *, context: Context | None = None
    ) -> AsyncGenerator[Any, None]:
        """Answer one call to a streaming endpoint, document by document. Close it to stop the work."""
        call = _call(self.runner, on, doc, parameters, context)
        ticket = self.runner.admit(on)
        try:
            async with aclosing(self.runner.stream(call)) as steps:
                async for docs in steps:
                    yield docs.typed[0]
        finally:
            ticket.close()


def _call(
    runner: Runner,
    on: str,
    docs: Any,
    parameters: Mapping[str, Any] | None,
    context: Context | None,
    target_executor: str = "",
) -> Call:
    name = normalised(on) or on
    endpoint = resolve(runner.endpoints, name)
    if endpoint is None:
        raise UnknownEndpoint(f"no endpoint {name!r} and no '/default'; known: {', '.join(runner.endpoints)}")
    reader = codec(endpoint.input)
    items = list(docs) if isinstance(docs, list | tuple) else [docs]
    return Call(
        name, reader.docs(_typed(reader, items)), parameters or EMPTY, context or Context(), (), target_executor
    )


def _typed(reader: Codec, items: list[Any]) -> list[Any]:
    """Documents as an endpoint takes them: objects of its class, or, where that is at hand to replicas alone, dicts."""
    if all(type(item) is reader.model for item in items):
        return reader.wrap(items)
    if reader.model is None and any(isinstance(item, BaseModel) for item in items):
        return reader.decode(reader.encode(items))
    return reader.read(items)
