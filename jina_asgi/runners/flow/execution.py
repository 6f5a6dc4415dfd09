"""Executes one call on a Flow's graph; independent branches run concurrently.

A single branch runs in the caller's own task. The first error cancels the other branches and is raised bare.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec

from jina_asgi.concurrency.task_groups import TaskSet, add_node_name
from jina_asgi.concurrency.tasks import cancel_and_wait, is_cancel, start_task
from jina_asgi.documents.codec import codec
from jina_asgi.errors import ExecutorError, InvalidDocs
from jina_asgi.errors._raised import raise_sanitized
from jina_asgi.runners.flow._graph import GATEWAY, Graph
from jina_asgi.runners.flow._route import Chain, FlowRoute, Stage, own_parameters, parameters_for
from jina_asgi.runners.flow.merging import concatenated, converted, copy_docs, matching, merged, select
from jina_asgi.types import Call, Context, Docs, Endpoint, Runner, Step

_END: Any = object()


@dataclass(frozen=True, slots=True)
class FlowNode:
    """A node and its Runner; None passes documents on. `when` selects the documents that the node gets."""

    name: str
    runner: Runner | None = None
    when: Callable[[Any], bool] | None = None


@dataclass(frozen=True, slots=True)
class ExecutionPlan:
    """The plan that all calls of one endpoint share.

    Attributes:
        needs: the nodes whose documents each node takes.
        admits: the Runners whose queues a call needs a place in.
        launch: runs a floating node in the background.
    """

    graph: Graph
    nodes: Mapping[str, FlowNode]
    needs: Mapping[str, tuple[str, ...]]
    names: frozenset[str]
    route: FlowRoute
    admits: tuple[Runner, ...]
    launch: Callable[[FlowExecution, str], None]


class FlowExecution:
    """The execution of one call: documents waiting at their nodes, and the answer."""

    __slots__ = ("_call", "_has_own_parameters", "_paired", "_plan", "_waiting", "answer", "results", "trail")

    def __init__(self, plan: ExecutionPlan, call: Call, *, paired: bool = False) -> None:
        self._plan, self._call, self._paired = plan, call, paired
        self._has_own_parameters = bool(call.parameters) and own_parameters(call.parameters, plan.names)
        self._waiting: dict[str, dict[str, Docs]] = {}
        self.answer: Docs = call.docs
        self.results: dict[str, Any] = {}
        self.trail: list[Step] = []

    @property
    def endpoint(self) -> str:
        """The endpoint as the caller named it."""
        return self._call.endpoint

    def endpoint_of(self, node: str) -> Endpoint | None:
        """Return the endpoint that a node runs; None if it passes documents on."""
        return self._plan.route.answering.get(node)

    def detached_context(self) -> Context:
        """Return a context for work that goes on after the answer: without the deadline and cancellation of the call."""
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
        """Run chains of nodes, each as soon as its inputs are there."""
        if len(chains) == 1:
            await self._run_chain(chains[0])
            return
        waiting, tasks = list(chains), TaskSet()
        try:
            while waiting or tasks.left:
                ready = [chain for chain in waiting if self.is_ready(chain[0])]
                if ready:
                    waiting = [chain for chain in waiting if chain not in ready]
                if len(ready) == 1 and not tasks.left:
                    await self._run_chain(ready[0])
                    continue
                for chain in ready:
                    tasks.begin(self._run_chain(chain))
                await tasks.some()
        finally:
            await tasks.end()

    async def _run_chain(self, chain: Chain) -> None:
        try:
            for node in chain:
                self.deliver(node, await self.run_node(node))
        except BaseException as error:
            if is_cancel(error):
                raise
            raise_sanitized(
                error
            )  # documents are copied and looked at here, which is code of the user's: no error of it ends a loop

    def deliver(self, giver: str, docs: Docs) -> None:
        """Deliver a node's documents to its takers, filtered by `when`; each but the last gets a copy."""
        plan = self._plan
        takers, is_answer = plan.graph.feeds[giver], giver == plan.graph.end
        for index, taker in enumerate(takers):
            target = plan.nodes[taker]
            when = target.when if taker in plan.route.answering or target.runner is None else None
            part = docs if when is None else matching(docs, when)
            if (is_answer or index + 1 < len(takers)) and plan.graph.nodes[taker].copy:
                part = copy_docs(part)
            self.put(taker, giver, part)
        if is_answer:
            self.answer = docs
        for taker in takers:
            if taker not in plan.graph.awaited and self.is_ready(taker):
                plan.launch(self, taker)

    def put(self, taker: str, giver: str, docs: Docs) -> None:
        """Store documents as an input of a node."""
        self._waiting.setdefault(taker, {})[giver] = docs

    def is_ready(self, node: str) -> bool:
        """Whether all inputs of a node are there."""
        return len(self._waiting.get(node, ())) == len(self._plan.needs[node])

    async def run_node(self, node: str, context: Context | None = None) -> Docs:
        """Run a node on its inputs; with a `context` of its own its results and trail are not part of the answer."""
        runner, call, docs = self._inputs_for(node, context)
        if runner is None:
            return docs
        start = time.time()
        try:
            result = await runner.call(call)
        except Exception as error:
            add_node_name(error, node)
            raise
        if context is None:
            self.results.update(result.results)
            self.trail += result.trail
            if not result.trail or result.trail[-1].name != node:
                self.trail.append(Step(node, start, time.time()))
        return result.docs

    def _inputs_for(self, node: str, context: Context | None = None) -> tuple[Runner | None, Call, Docs]:
        """Return a node's Runner, call and documents; None as Runner if the documents are passed on."""
        plan, asked = self._plan, self._call
        endpoint, target = plan.route.answering.get(node), plan.nodes[node]
        waiting = self._waiting.pop(node)
        parts = [(need, waiting[need]) for need in plan.needs[node]]
        sources: tuple[tuple[str, Docs], ...] = ()
        if endpoint is None:
            return None, asked, parts[0][1] if len(parts) == 1 else merged(parts, node, paired=self._paired)
        wanted = codec(endpoint.input)
        if len(parts) > 1 and plan.graph.nodes[node].no_reduce:
            sources = tuple((need, self._converted(docs, wanted, need, node)) for need, docs in parts)
            docs = concatenated(sources)
        else:
            docs = parts[0][1] if len(parts) == 1 else merged(parts, node, paired=self._paired)
            docs = self._converted(docs, wanted, parts[0][0], node)
            sources = asked.sources if parts[0][0] == GATEWAY and asked.sources else ()
        giver = asked.giver if parts[0][0] == GATEWAY else parts[0][0]
        if target.when is not None and not len(docs):
            return None, asked, codec(endpoint.output).docs(codec(endpoint.output).wrap([]))
        parameters = (
            parameters_for(node, asked.parameters, plan.names) if self._has_own_parameters else asked.parameters
        )
        return target.runner, Call(asked.endpoint, docs, parameters, context or asked.context, sources, "", giver), docs

    def _converted(self, docs: Docs, wanted: Any, giver: str, taker: str) -> Docs:
        if wanted.model is None or docs.codec is wanted:  # the common case
            return docs
        try:
            return converted(docs, wanted, giver, taker)
        except ExecutorError as error:
            if giver == GATEWAY and isinstance(error.__cause__, InvalidDocs):
                raise error.__cause__ from None  # the caller's own documents
            raise

    async def stream(self, stage: Stage) -> AsyncGenerator[Docs, None]:
        """Stream the answers of a stage with generators, a document at a time."""
        await self.run(stage.before)
        if stage.generator is None:
            for position in range(len(self.answer)):
                yield select(self.answer, [position])
            return
        branches = _BackgroundBranches(self, stage.concurrent)
        count = 0
        try:
            async with aclosing(self.stream_node(stage.generator)) as items:
                while (docs := await branches.next_item(items)) is not _END:
                    async with aclosing(self._stream_rest(stage, docs, count)) as answers:
                        async for answer in answers:
                            yield answer
                    count += 1
            await branches.wait()
            self._check_lengths(stage, count)
        finally:
            await branches.close()

    async def stream_node(self, node: str, context: Context | None = None) -> AsyncGenerator[Docs, None]:
        """Stream a generator's documents for each of its input documents in turn."""
        runner, call, docs = self._inputs_for(node, context)
        if runner is None:  # `when` selected no documents
            return
        first = self._plan.needs[node] == (GATEWAY,)
        pieces = [docs] if first or len(docs) == 1 else [select(docs, [index]) for index in range(len(docs))]
        try:
            for piece in pieces:
                asked = msgspec.structs.replace(call, docs=piece)
                async with aclosing(runner.stream(asked)) as steps:
                    async for step in steps:
                        yield step
        except Exception as error:
            add_node_name(error, node)
            raise

    async def _stream_rest(self, stage: Stage, docs: Docs, position: int) -> AsyncGenerator[Docs, None]:
        """Run the rest of the graph for one document of a generator."""
        assert stage.generator is not None
        inner = FlowExecution(self._plan, self._call, paired=True)
        for node, need in stage.across:
            others = self._waiting[node][need]
            if position >= len(others):
                raise _unequal(stage.generator, need, node, f"{position + 1} or more", len(others))
            inner.put(node, need, select(others, [position]))
        inner.deliver(stage.generator, docs)
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


class _BackgroundBranches:
    """Runs branches while a generator makes its first document; their error interrupts it at once."""

    def __init__(self, execution: FlowExecution, chains: Sequence[Chain]) -> None:
        self._limit: asyncio.Timeout | None = None
        self._task = start_task(execution.run(chains), self._interrupt) if chains else None

    async def next_item(self, items: AsyncGenerator[Docs, None]) -> Any:
        """Return the next document, once the branches have ended."""
        if self._task is not None and self._task.done():
            await self.wait()
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
        await self.wait()
        return docs

    async def wait(self) -> None:
        """Wait for the branches.

        Raises:
            Their error.
        """
        task, self._task = self._task, None
        if task is not None:
            try:
                await asyncio.wait([task])
            finally:
                await cancel_and_wait([task])
            task.result()

    async def close(self) -> None:
        """Cancel the branches if they still run."""
        if self._task is not None:
            await cancel_and_wait([self._task])

    def _interrupt(self, task: asyncio.Task[None]) -> None:
        if self._limit is not None and not task.cancelled() and task.exception() is not None:
            self._limit.reschedule(asyncio.get_running_loop().time())


def _unequal(generator: str, need: str, node: str, count: str, length: int) -> ExecutorError:
    return ExecutorError(
        f"{node!r} joins documents by their positions: expected as many from {generator!r} as from {need!r}, got"
        f" {count} and {length}",
        executor=node,
    )
