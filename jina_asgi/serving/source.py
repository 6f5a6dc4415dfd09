"""The base of Deployment and Flow: a name and a Runner that can be called and mounted."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, Self, TypeVar, overload

from pydantic import BaseModel

from jina_asgi.documents.codec import Codec, codec, plain
from jina_asgi.documents.return_type import Returns
from jina_asgi.errors import UnknownEndpoint
from jina_asgi.executors.endpoints import normalised
from jina_asgi.runners.observe import ObserveRunner
from jina_asgi.serving.service_group import Household
from jina_asgi.types import EMPTY, Call, Context, Endpoint, Result, Runner, resolve

L = TypeVar("L", bound=list[Any])
M = TypeVar("M", bound=BaseModel)


class Source(ABC):
    """A name, a Runner, and how to call it with no server at all."""

    #: Answers the calls.
    runner: ObserveRunner

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        #: Where it lives, which the applications that serve it share.
        self.household = Household(_parts_of(weakref.ref(self)))

    @property
    @abstractmethod
    def name(self) -> str:
        """The name, as figures and logs have it."""

    @property
    def parts(self) -> Sequence[Source]:
        """The sources that this is made of; none, but for a Flow."""
        return ()

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """The endpoints by name.

        Raises:
            NotReady: a class is known to replicas alone, and none has loaded yet.
        """
        return self.runner.endpoints

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Loads on entering, closes on leaving; takes over what an application of it has loaded, asked before."""
        if (home := self.household.alone()) is not None:
            async with home.lifespan(wait_ready=True):
                yield
            return
        async with self.household.lifespan(), self.runner.lifespan():
            yield

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.lifespan())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @overload
    async def call(
        self,
        on: str,
        docs: Any,
        parameters: Mapping[str, Any] | BaseModel | None = None,
        *,
        context: Context | None = None,
        return_type: type[L],
    ) -> L: ...
    @overload
    async def call(
        self,
        on: str,
        docs: BaseModel,
        parameters: Mapping[str, Any] | BaseModel | None = None,
        *,
        context: Context | None = None,
        return_type: type[M],
    ) -> M: ...
    @overload
    async def call(
        self,
        on: str,
        docs: Any,
        parameters: Mapping[str, Any] | BaseModel | None = None,
        *,
        context: Context | None = None,
        return_type: type[M],
    ) -> M | list[M]: ...
    @overload
    async def call(
        self,
        on: str,
        docs: Any,
        parameters: Mapping[str, Any] | BaseModel | None = None,
        *,
        context: Context | None = None,
        return_type: None = None,
    ) -> Any: ...
    async def call(
        self,
        on: str,
        docs: Any,
        parameters: Mapping[str, Any] | BaseModel | None = None,
        *,
        context: Context | None = None,
        return_type: Any = None,
    ) -> Any:
        """Answer one call: docs in, docs out, in order.

        Where an application serves this, it waits for loading to end as the endpoints do, and may be called on any
        event loop; elsewhere it is called within `async with`.

        Args:
            on: the endpoint.
            docs: a list of documents (or of dicts with their fields), or one document, answered by a list of one.
                They are of the endpoint's class, or of another one with its fields.
            parameters: for the endpoint: a dict or a pydantic model.
            return_type: the class of the answer: `DocList[T]`, `list[T]`, or a document class, which gives the one
                document where there is one. Without it documents are of the endpoint's class, or, where that is at
                hand to replicas or another server alone, of any fields.

        Raises:
            UnknownEndpoint, InvalidDocs, ExecutorInputError, ExecutorError, DeadlineExceeded, Unavailable.
            DefinitionError: `return_type` is none.
        """
        returns = Returns.of(return_type)
        return returns.given((await self.run(on, docs, parameters, context=context)).docs)

    async def run(
        self,
        on: str,
        docs: Any,
        parameters: Mapping[str, Any] | BaseModel | None = None,
        *,
        context: Context | None = None,
        target_executor: str = "",
    ) -> Result:
        """As `call`, answering with the whole Result: docs, `__results__` and the trail.

        Args:
            on, docs, parameters, context: as for `call`.
            target_executor: of a Flow, a pattern for the names of the nodes that answer; a Deployment has but one.
        """
        runner = await self._loaded(context) if self.household.has_homes else self.runner
        call = _call(runner, on, docs, parameters, context, target_executor)
        ticket = runner.admit(on)
        try:
            return await runner.call(call)
        finally:
            ticket.close()

    @overload
    def stream(
        self,
        on: str,
        doc: Any,
        parameters: Mapping[str, Any] | BaseModel | None = None,
        *,
        context: Context | None = None,
        return_type: type[M],
    ) -> AsyncGenerator[M, None]: ...
    @overload
    def stream(
        self,
        on: str,
        doc: Any,
        parameters: Mapping[str, Any] | BaseModel | None = None,
        *,
        context: Context | None = None,
        return_type: None = None,
    ) -> AsyncGenerator[Any, None]: ...
    async def stream(
        self,
        on: str,
        doc: Any,
        parameters: Mapping[str, Any] | BaseModel | None = None,
        *,
        context: Context | None = None,
        return_type: Any = None,
    ) -> AsyncGenerator[Any, None]:
        """Answer one call to a streaming endpoint, document by document. Close it to stop the work; it waits as `call`.

        Arguments and errors are those of `call`.
        """
        returns = Returns.of(return_type)
        runner = await self._loaded(context) if self.household.has_homes else self.runner
        call = _call(runner, on, doc, parameters, context)
        ticket = runner.admit(on)
        try:
            async with aclosing(runner.stream(call)) as steps:
                async for docs in steps:
                    yield returns.read(docs)[0]
        finally:
            ticket.close()

    async def _loaded(self, context: Context | None) -> Runner:
        """The Runner as this loop may call it, once it has loaded.

        Raises:
            NotReady, DeadlineExceeded.
        """
        home = self.household.home()
        if home is None or (self.household.is_over and home.state == "stopped"):
            return (
                self.runner
            )  # loaded by `async with` alone; or ended, and not to be loaded anew by the host's own code
        return await home.runner(None if context is None else context.deadline)


def _parts_of(source: weakref.ref[Source]) -> Callable[[], list[Household]]:
    """The households of a source's parts, as long as it is there."""

    def parts() -> list[Household]:
        found = source()
        return [] if found is None else [part.household for part in found.parts]

    return parts


def _call(
    runner: Runner,
    on: str,
    docs: Any,
    parameters: Mapping[str, Any] | BaseModel | None,
    context: Context | None,
    target_executor: str = "",
) -> Call:
    name = normalised(on) or on
    endpoint = resolve(runner.endpoints, name)
    if endpoint is None:
        raise UnknownEndpoint(f"no endpoint {name!r} and no '/default'; known: {', '.join(runner.endpoints)}")
    reader = codec(endpoint.input)
    items = list(docs) if isinstance(docs, list | tuple) else [docs]
    given = plain(parameters) if isinstance(parameters, BaseModel) else parameters or EMPTY
    return Call(name, reader.docs(_typed(reader, items)), given, context or Context(), (), target_executor)


def _typed(reader: Codec, items: list[Any]) -> list[Any]:
    """Documents as an endpoint takes them: objects of its class, or, where that is at hand to replicas alone, dicts."""
    model = reader.model
    if model is not None and all(type(item) is model for item in items):
        return reader.wrap(items)
    own: Any = () if model is None else model
    return reader.read([plain(i) if isinstance(i, BaseModel) and not isinstance(i, own) else i for i in items])
