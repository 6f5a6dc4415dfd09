"""The base of Deployment and Flow: a name and a Runner that can be called and mounted."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from os import PathLike
from pathlib import PurePath
from typing import Any, Self, TypeVar, overload

from pydantic import BaseModel

from jina_asgi.documents.codec import Codec, codec, plain
from jina_asgi.documents.return_type import Returns
from jina_asgi.errors import UnknownEndpoint
from jina_asgi.executors.endpoints import normalised
from jina_asgi.executors.executor import Executor
from jina_asgi.runners.flow._graph import GATEWAY
from jina_asgi.runners.wrappers import ObserveRunner
from jina_asgi.serving.config.reading import Reading
from jina_asgi.serving.service_group import ServiceGroup
from jina_asgi.settings.document import Document
from jina_asgi.settings.metrics import MetricsSettings
from jina_asgi.settings.options import NodeOptions
from jina_asgi.settings.tracing import TracingSettings
from jina_asgi.types import EMPTY, Call, Context, Endpoint, Result, Runner, resolve

L = TypeVar("L", bound=list[Any])
M = TypeVar("M", bound=BaseModel)


class Source(ABC):
    """A name, a Runner, and methods to call it without a server."""

    #: Answers the calls.
    runner: ObserveRunner

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        #: The services of this source, one for each application.
        self.group = ServiceGroup(_parts_of(weakref.ref(self)))

    @property
    @abstractmethod
    def name(self) -> str:
        """The name in metrics and logs."""

    @property
    def parts(self) -> Sequence[Source]:
        """The sources of a Flow's nodes; empty for other sources."""
        return ()

    @property
    def tracing(self) -> TracingSettings | None:
        """The options of tracing, if it has any."""
        return None

    @property
    def metrics(self) -> MetricsSettings | None:
        """The options of metrics, if it has any."""
        return None

    @property
    def label(self) -> str:
        """What it is, in a few words for pictures: the name of its class, its file or its host."""
        return type(self).__name__

    def drawing(self) -> dict[str, Any]:
        """The graph as data, for the page: its nodes, what each needs, and the node whose documents are the answer."""
        node = {
            "name": self.name,
            "label": short_label(self),
            "deployment": self.name,
            "needs": [GATEWAY],
            "dotted": False,
        }
        return {"name": self.name, "kind": type(self).__name__, "end": self.name, "nodes": [node]}

    @property
    @abstractmethod
    def access_log(self) -> bool:
        """Whether each call is logged."""

    def configure_log(self, *, with_access: bool = False) -> None:  # noqa: B027  # a source without options needs none
        """Applies the options of the log, as serving begins; with access lines, so that they are seen."""

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """The endpoints by name.

        Raises:
            NotReady: only replicas know the class, and none has loaded yet.
        """
        return self.runner.endpoints

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Loads on entering, closes on leaving; takes over a model that an application has loaded for an earlier call."""
        if (member := self.group.alone()) is not None:
            async with member.lifespan(wait_ready=True):
                yield
            return
        async with self.group.lifespan(), self.runner.lifespan():
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

        If an application serves this source, the call waits for loading as the endpoints do, and may be made on any event
        loop; else call it within `async with`.

        Args:
            on: the endpoint.
            docs: a list of documents (or of dicts with their fields), or one document, for which the answer is a list of one.
                They are of the endpoint's class, or of another class with its fields.
            parameters: for the endpoint: a dict or a pydantic model.
            return_type: the class of the answer: `DocList[T]`, `list[T]`, or a document class, which returns the
                document itself if there is one. Without it documents are of the endpoint's class; if only replicas or
                another server have that class, they are dicts with attributes.

        Raises:
            UnknownEndpoint, InvalidDocs, ExecutorInputError, ExecutorError, DeadlineExceeded, Unavailable.
            DefinitionError: `return_type` is not a document class or a list of one.
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
        """As `call`, but returns the whole Result: docs, `__results__` and the trail.

        Args:
            on, docs, parameters, context: as for `call`.
            target_executor: a pattern for the names of the Flow's nodes that answer.
        """
        runner = await self._loaded(context) if self.group.has_members else self.runner
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
        """Answer one call to a streaming endpoint, document by document. Close it to cancel the call; it waits as `call` does.

        Arguments and errors are those of `call`.
        """
        returns = Returns.of(return_type)
        runner = await self._loaded(context) if self.group.has_members else self.runner
        call = _call(runner, on, doc, parameters, context)
        ticket = runner.admit(on)
        try:
            async with aclosing(runner.stream(call)) as steps:
                async for docs in steps:
                    yield returns.read(docs)[0]
        finally:
            ticket.close()

    async def _loaded(self, context: Context | None) -> Runner:
        """Waits for the Runner, and returns it for use on this event loop.

        Raises:
            NotReady, DeadlineExceeded.
        """
        member = self.group.member()
        if member is None or (self.group.is_over and member.state == "stopped"):
            return self.runner  # loaded by `async with`; or ended, and not to be loaded again by the host's own code
        return await member.runner(None if context is None else context.deadline)


def _parts_of(source: weakref.ref[Source]) -> Callable[[], list[ServiceGroup]]:
    """A function that returns the groups of a source's parts, as long as the source exists."""

    def parts() -> list[ServiceGroup]:
        found = source()
        return [] if found is None else [part.group for part in found.parts]

    return parts


def short_label(source: Source | None) -> str:
    """The label of a node on a page that others see: of a file only the name."""
    return "joins" if source is None else PurePath(source.label).name


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
    """Converts documents for an endpoint: to its class, or to dicts if only replicas have the class."""
    model = reader.model
    if model is not None and all(type(item) is model for item in items):
        return reader.wrap(items)
    own: Any = () if model is None else model
    return reader.read([plain(i) if isinstance(i, BaseModel) and not isinstance(i, own) else i for i in items])


#: The argument `uses` of `add`; None: the node passes its documents on.
Uses = type[Executor] | str | PathLike[str] | Mapping[str, Any] | Document | Source | None
Needs = str | Sequence[str] | AbstractSet[str] | None


class JoinOptions(NodeOptions, total=False):
    """The arguments of `Flow.add` but the name and the needs."""

    uses: Uses
    when: Mapping[str, Any] | str | None
    floating: bool
    no_reduce: bool
    copy: bool
    copy_flow: bool
    reading: Reading | None
