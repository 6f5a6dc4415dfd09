"""Deployment: an Executor and its options, ready to mount or to call."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from typing import Any, Self

from jina_asgi.assembly import assemble, assemble_pool
from jina_asgi.codecs import codec
from jina_asgi.endpoints import normalised
from jina_asgi.errors import DefinitionError, UnknownEndpoint
from jina_asgi.executor import Executor
from jina_asgi.runners.observe import ObserveRunner
from jina_asgi.settings import DeploymentSettings
from jina_asgi.types import EMPTY, Call, Context, Endpoint, Result, Runner, resolve
from jina_asgi.uses import Uses


class Deployment:
    """One Executor, its options, and the Runner made of them.

    Mount it (`mount(app, "/lm", Deployment(uses=Model))`), or use it with no server at all:

        async with Deployment(uses=Model) as model:
            docs = await model.call("/encode", [Text(text="hi")])

    Args:
        uses: the Executor class, its import path ("package.module.Class"), or the path of its YAML ("config.yml"). In a
            pool of replicas a class that is named is imported by them alone, and the endpoints are known once one of
            them has loaded.
        options: as in `DeploymentSettings`: `name`, `uses_with` (what `__init__` is given), `uses_requests`,
            `uses_metas`, `workspace`, `allow_concurrent`, `idempotent`, `max_queue`, `max_queue_bytes`, `grace`;
            `replicas`, and for these `placement`, `env`, `devices`, `startup_timeout`, `heartbeat`, `max_requests`,
            `max_rss`.

    Raises:
        DefinitionError: an option that does not exist or does not fit; it names the nearest one.
    """

    def __init__(self, uses: type[Executor] | str, **options: Any) -> None:
        kind = type(self).__name__
        if not (isinstance(uses, str) or (isinstance(uses, type) and issubclass(uses, Executor))):
            raise DefinitionError(
                f"{kind}(uses={uses!r}): expected a class derived from jina_asgi.Executor, or its import path, or the path of its YAML"
            )
        named: Uses | type[Executor]
        if isinstance(uses, str) and uses.endswith((".yml", ".yaml")):
            from jina_asgi.config import read_executor  # with yaml

            named, options = read_executor(uses, options)
        else:
            named = Uses.at(uses) if isinstance(uses, str) else uses
        self.uses, self.settings = uses, DeploymentSettings.of(options)
        self.runner = self._assembled(named)
        self._stack = AsyncExitStack()

    def _assembled(self, uses: Uses | type[Executor]) -> ObserveRunner:
        return assemble(uses, self.settings)

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """The endpoints by name.

        Raises:
            NotReady: the class is known to replicas alone, and none has loaded yet.
        """
        return self.runner.endpoints

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """Loads the Executor on entering, closes it on leaving."""
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
        self, on: str, docs: Any, parameters: Mapping[str, Any] | None = None, *, context: Context | None = None
    ) -> Result:
        """As `call`, answering with the whole Result: docs, `__results__` and the trail."""
        call = _call(self.runner, on, docs, parameters, context)
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


class ReplicaPool(Deployment):
    """A Deployment whose replicas are kept by this process itself, for a program that is one process.

    A server with several workers wants `Deployment(replicas=...)`: one pool for all of them.
    """

    def _assembled(self, uses: Uses | type[Executor]) -> ObserveRunner:
        return assemble_pool(uses, self.settings)


def _call(runner: Runner, on: str, docs: Any, parameters: Mapping[str, Any] | None, context: Context | None) -> Call:
    name = normalised(on) or on
    endpoint = resolve(runner.endpoints, name)
    if endpoint is None:
        raise UnknownEndpoint(f"no endpoint {name!r} and no '/default'; known: {', '.join(runner.endpoints)}")
    reader = codec(endpoint.input)
    items = list(docs) if isinstance(docs, list | tuple) else [docs]
    model = reader.model
    typed = reader.wrap(items) if all(type(item) is model for item in items) else reader.read(items)
    return Call(name, reader.docs(typed), parameters or EMPTY, context or Context())
