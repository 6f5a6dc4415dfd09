"""One call on its way through a Flow's graph: who gets which documents, and what runs beside what.

What has no neighbour to run beside runs in the caller's own task. The first error cancels the rest and leaves as itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec

from jina_asgi.concurrency.task_groups import Tasks, named
from jina_asgi.concurrency.tasks import begun, finished, is_cancel
from jina_asgi.documents.codec import codec
from jina_asgi.errors import ExecutorError, InvalidDocs
from jina_asgi.errors._raised import leave
from jina_asgi.runners.flow._graph import GATEWAY, Graph
from jina_asgi.runners.flow._route import Chain, Route, Stage, own_parameters, parameters_for
from jina_asgi.runners.flow.merging import concatenated, copied, fitted, matching, merged, some
from jina_asgi.types import Call, Context, Docs, Endpoint, Runner, Step

_END: Any = object()


@dataclass(frozen=True, slots=True)
class Place:
    """A node and what it runs: None hands documents on. `when` chooses those that it is given."""

    name: str
    runner: Runner | None = None
    when: Callable[[Any], bool] | None = None


@dataclass(frozen=True, slots=True)
class Ways:
    """What every call of one endpoint shares. `launch` takes the work of a node that nobody waits for."""

    graph: Graph
    places: Mapping[str, Place]
    names: frozenset[str]
    route: Route
    launch: Callable[[Crossing, str], None]


class Crossing:
    """The documents of one call that wait at the nodes which need them, and the answer once it is there."""

    __slots__ = ("_call", "_own", "_paired", "_waiting", "_ways", "answer", "results", "trail")

    def __init__(self, ways: Ways, call: Call, *, paired: bool = False) -> None:
        self._ways, self._call, self._paired = ways, call, paired
        self._own = bool(call.parameters) and own_parameters(call.parameters, ways.names)
        self._waiting: dict[str, dict[str, Docs]] = {}
        self.answer: Docs = call.docs
        self.results: dict[str, Any] = {}
        self.trail: list[Step] = []

    @property
    def endpoint(self) -> str:
        """The endpoint as it was asked for."""
        return self._call.endpoint

    def answering(self, node: str) -> Endpoint | None:
        """What a node answers with; None: it hands on."""
        return self._ways.route.answering.get(node)

    def detached(self) -> Context:
        """The call's context for what goes on after its answer: neither its deadline nor its caller end that."""
        context = self._call.context
        return Context(
            context.request_id,
            headers=context.headers,
            identity=context.identity,
            tenant=context.tenant,
            priority=context.priority,
            trace=context.trace,
        )

    async def run(self, chains: Sequence[Chain]) -> None:
        """Run these; whichever has what it needs, at once."""
        if len(chains) == 1:
            await self._walk(chains[0])
            return
        waiting, tasks = list(chains), Tasks()
        try:
            while waiting or tasks.left:
                ready = [chain for chain in waiting if self.has_all(chain[0])]
                if ready:
                    waiting = [chain for chain in waiting if chain not in ready]
                if len(ready) == 1 and not tasks.left:
                    await self._walk(ready[0])
                    continue
                for chain in ready:
                    tasks.begin(self._walk(chain))
                await tasks.some()
        finally:
            await tasks.end()

    async def _walk(self, chain: Chain) -> None:
        try:
            for node in chain:
                self.give(node, await self.visit(node))
        except BaseException as error:
            if is_cancel(error):
                raise
            leave(
                error
            )  # documents are copied and looked at here, which is code of the user's: no error of it ends a loop

    def give(self, giver: str, docs: Docs) -> None:
        """Hand documents to whoever takes them: to each but the last a copy, of those that it wants."""
        ways = self._ways
        takers, is_answer = ways.graph.feeds[giver], giver == ways.graph.end
        for index, taker in enumerate(takers):
            place = ways.places[taker]
            when = place.when if taker in ways.route.answering or place.runner is None else None
            part = docs if when is None else matching(docs, when)
            if (is_answer or index + 1 < len(takers)) and ways.graph.nodes[taker].copy:
                part = copied(part)
            self.wait(taker, giver, part)
        if is_answer:
            self.answer = docs
        for taker in takers:
            if taker not in ways.graph.awaited and self.has_all(taker):
                ways.launch(self, taker)

    def wait(self, taker: str, giver: str, docs: Docs) -> None:
        """Put documents where a node will find them."""
        self._waiting.setdefault(taker, {})[giver] = docs

    def has_all(self, node: str) -> bool:
        """Whether everything is there that a node needs."""
        return len(self._waiting.get(node, ())) == len(self._ways.graph.needs(node))

    async def visit(self, node: str, context: Context | None = None) -> Docs:
        """What a node makes of the documents that wait for it; with a `context` of its own its trail is nobody's."""
        runner, call, docs = self._taken(node, context)
        if runner is None:
            return docs
        start = time.time()
        try:
            result = await runner.call(call)
        except Exception as error:
            named(error, node)
            raise
        if context is None:
            self.results.update(result.results)
            self.trail += result.trail
            if not result.trail or result.trail[-1].name != node:
                self.trail.append(Step(node, start, time.time()))
        return result.docs

    def _taken(self, node: str, context: Context | None = None) -> tuple[Runner | None, Call, Docs]:
        """What to ask of a node: its Runner and the call; or no Runner, and the documents that are handed on."""
        ways, asked = self._ways, self._call
        endpoint, place = ways.route.answering.get(node), ways.places[node]
        waiting = self._waiting.pop(node)
        parts = [(need, waiting[need]) for need in ways.graph.needs(node)]
        sources: tuple[tuple[str, Docs], ...] = ()
        if endpoint is None:
            return None, asked, parts[0][1] if len(parts) == 1 else merged(parts, node, paired=self._paired)
        wanted = codec(endpoint.input)
        if len(parts) > 1 and ways.graph.nodes[node].no_reduce:
            sources = tuple((need, self._fitted(docs, wanted, need, node)) for need, docs in parts)
            docs = concatenated(sources)
        else:
            docs = parts[0][1] if len(parts) == 1 else merged(parts, node, paired=self._paired)
            docs = self._fitted(docs, wanted, parts[0][0], node)
            sources = asked.sources if parts[0][0] == GATEWAY and asked.sources else ()
        giver = asked.giver if parts[0][0] == GATEWAY else parts[0][0]
        if place.when is not None and not len(docs):
            return None, asked, codec(endpoint.output).docs(codec(endpoint.output).wrap([]))
        parameters = parameters_for(node, asked.parameters, ways.names) if self._own else asked.parameters
        return place.runner, Call(asked.endpoint, docs, parameters, context or asked.context, sources, "", giver), docs

    def _fitted(self, docs: Docs, wanted: Any, giver: str, taker: str) -> Docs:
        try:
            return fitted(docs, wanted, giver, taker)
        except ExecutorError as error:
            if giver == GATEWAY and isinstance(error.__cause__, InvalidDocs):
                raise error.__cause__ from None  # the caller's own documents
            raise

    async def stream(self, stage: Stage) -> AsyncGenerator[Docs, None]:
        """The answers of a way with generators in it, a document at a time."""
        await self.run(stage.before)
        if stage.generator is None:
            for position in range(len(self.answer)):
                yield some(self.answer, [position])
            return
        beside = _Beside(self, stage.beside)
        count = 0
        try:
            async with aclosing(self.items(stage.generator)) as items:
                while (docs := await beside.step(items)) is not _END:
                    async with aclosing(self._onwards(stage, docs, count)) as answers:
                        async for answer in answers:
                            yield answer
                    count += 1
            await beside.ended()
            self._check_lengths(stage, count)
        finally:
            await beside.close()

    async def items(self, node: str, context: Context | None = None) -> AsyncGenerator[Docs, None]:
        """What a generator makes of the documents that wait for it, one at a time; of each in turn."""
        runner, call, docs = self._taken(node, context)
        if runner is None:  # nothing that it wants
            return
        first = self._ways.graph.needs(node) == (GATEWAY,)
        pieces = [docs] if first or len(docs) == 1 else [some(docs, [index]) for index in range(len(docs))]
        try:
            for piece in pieces:
                asked = msgspec.structs.replace(call, docs=piece)
                async with aclosing(runner.stream(asked)) as steps:
                    async for step in steps:
                        yield step
        except Exception as error:
            named(error, node)
            raise

    async def _onwards(self, stage: Stage, docs: Docs, position: int) -> AsyncGenerator[Docs, None]:
        """The rest of the way, for one document of a generator."""
        assert stage.generator is not None
        inner = Crossing(self._ways, self._call, paired=True)
        for node, need in stage.across:
            others = self._waiting[node][need]
            if position >= len(others):
                raise _unequal(stage.generator, need, node, f"{position + 1} or more", len(others))
            inner.wait(node, need, some(others, [position]))
        inner.give(stage.generator, docs)
        if stage.after is None:
            yield inner.answer
            return
        async with aclosing(inner.stream(stage.after)) as answers:
            async for answer in answers:
                yield answer

    def _check_lengths(self, stage: Stage, count: int) -> None:
        for node, need in stage.across:
            if len(self._waiting[node][need]) != count:
                assert stage.generator is not None
                raise _unequal(stage.generator, need, node, str(count), len(self._waiting[node][need]))


class _Beside:
    """What runs while a generator makes its first document; its error ends that at once."""

    def __init__(self, crossing: Crossing, chains: Sequence[Chain]) -> None:
        self._limit: asyncio.Timeout | None = None
        self._task = begun(crossing.run(chains), self._interrupt) if chains else None

    async def step(self, items: AsyncGenerator[Docs, None]) -> Any:
        """The next document, once what runs beside has ended too."""
        if self._task is not None and self._task.done():
            await self.ended()
        if self._task is None:
            return await anext(items, _END)
        limit = self._limit = asyncio.timeout(None)
        try:
            async with limit:
                docs = await anext(items, _END)
        except TimeoutError:
            if not limit.expired():
                raise
            docs = _END
        finally:
            self._limit = None
        await self.ended()
        return docs

    async def ended(self) -> None:
        """Wait for it.

        Raises:
            Its error.
        """
        task, self._task = self._task, None
        if task is not None:
            try:
                await asyncio.wait([task])
            finally:
                await finished([task])
            task.result()

    async def close(self) -> None:
        """End it, where it still runs."""
        if self._task is not None:
            await finished([self._task])

    def _interrupt(self, task: asyncio.Task[None]) -> None:
        if self._limit is not None and not task.cancelled() and task.exception() is not None:
            self._limit.reschedule(asyncio.get_running_loop().time())


def _unequal(generator: str, need: str, node: str, count: str, length: int) -> ExecutorError:
    return ExecutorError(
        f"{node!r} joins documents by their positions: expected as many from {generator!r} as from {need!r}, got"
        f" {count} and {length}",
        executor=node,
    )
