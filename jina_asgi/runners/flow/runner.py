"""The Runner over a graph of named Runners in this process: a Flow.

Documents pass from node to node as objects. A Flow is a Runner, so it may be a node of another.

Runs a Flow's floating nodes in the background, during and after the answer.

Each run takes a place in its node's queue; if the queue is full it is dropped, counted and logged.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Any, Generic, TypeVar

from jina_asgi.concurrency.lifecycle import RUNNING, Lifecycle
from jina_asgi.concurrency.task_groups import lifespans
from jina_asgi.concurrency.tasks import cancel_and_wait, is_cancel, start_task
from jina_asgi.errors import InvalidDocs, NotReady, Unavailable, UnknownEndpoint
from jina_asgi.errors._raised import loggable
from jina_asgi.runners.admission import admit_all
from jina_asgi.runners.flow._graph import GATEWAY, Graph
from jina_asgi.runners.flow._route import FlowRoute, check_neighbours
from jina_asgi.runners.flow.execution import ExecutionPlan, FlowExecution, FlowNode
from jina_asgi.runners.flow.merging import concatenated, id_of, identified, rows, select
from jina_asgi.runners.measures import MakeBatchObserver
from jina_asgi.runners.wrappers import NodeWrapper, Wrapper
from jina_asgi.types import Call, Context, Docs, Endpoint, Result, Runner, Step, Ticket


class RenamedRunner(NodeWrapper):
    """Replaces a Runner's own name `own` by `name` in its results."""

    def __init__(self, inner: Runner, own: str, name: str) -> None:
        super().__init__(inner)
        self._own, self._name = own, name

    async def call(self, call: Call, /) -> Result:
        result = await self.inner.call(call)
        results = {self._renamed(key): value for key, value in result.results.items()} if result.results else {}
        trail = [Step(self._renamed(step.name), step.start, step.end, step.error) for step in result.trail]
        return Result(result.docs, results, tuple(trail))

    def _renamed(self, key: str) -> str:
        first, slash, rest = key.partition("/")
        return f"{self._name}{slash}{rest}" if first == self._own else key


def unwrap_node(runner: Runner) -> Runner:
    """Return the Runner inside the wrappers of a node: several nodes may share one."""
    while isinstance(runner, NodeWrapper):
        runner = runner.inner
    return runner


logger = logging.getLogger("jina_asgi")


class BackgroundNodes:
    """Runs floating nodes, one task for each list of documents that reaches one."""

    def __init__(self, runners: Mapping[str, Runner]) -> None:
        self._runners, self._tasks = runners, set[asyncio.Task[None]]()
        self._dropped: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()

    def launch(self, execution: FlowExecution, node: str) -> None:
        """Start a floating node on its inputs."""
        ticket: Ticket | None = None
        endpoint = execution.endpoint_of(node)
        if endpoint is not None:
            try:
                ticket = self._runners[node].admit(execution.endpoint)
            except Unavailable as error:
                self._dropped[node] += 1
                logger.warning("%s floats, and was not run: %s", node, error)
                return
        streams = endpoint is not None and endpoint.kind == "stream"
        work = self._run(execution, node, streams)
        start_task(work, partial(_give_back, ticket), kept=self._tasks, name=f"jina-asgi-{node}")

    async def idle(self) -> None:
        """Wait until no background node runs."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Cancel the nodes that still run."""
        await cancel_and_wait(list(self._tasks))

    def status(self) -> dict[str, Any]:
        """Return the metrics for `/-/status`."""
        return {"running": len(self._tasks), "dropped": dict(self._dropped), "failed": dict(self._failed)}

    async def _run(self, execution: FlowExecution, node: str, streams: bool) -> None:
        context = execution.detached_context()
        try:
            docs = await (_gathered(execution, node, context) if streams else execution.run_node(node, context))
            if docs is not None:
                execution.deliver(node, docs)
        except BaseException as error:
            if is_cancel(error):
                raise
            self._failed[node] += 1
            logger.error("%s floats, and failed; the caller has its answer", node, exc_info=loggable(error))


def _give_back(ticket: Ticket | None, task: asyncio.Task[None]) -> None:
    if ticket is not None:
        ticket.close()


async def _gathered(execution: FlowExecution, node: str, context: Context) -> Docs | None:
    """Collect all documents of a generator."""
    made: list[tuple[str, Docs]] = []
    async with aclosing(execution.stream_node(node, context)) as items:
        async for docs in items:
            made.append((node, docs))  # all of them, or none if it fails
    return concatenated(made) if made else None


P = TypeVar("P")


class PlannedRunner(ABC, Generic[P]):
    """A Runner over several named Runners, which answers each endpoint by a plan made of their endpoints."""

    def __init__(self, name: str, runners: Mapping[str, Runner], grace: float) -> None:
        self.name, self._runners = name, runners
        self._known: dict[str, Mapping[str, Endpoint]] = {}
        self._endpoints: Mapping[str, Endpoint] = {}
        self._plans: dict[str, P] = {}
        self._active, self._life = 0, Lifecycle(grace)
        with suppress(NotReady):  # the endpoints are known once the Runners have loaded
            self._refresh()

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """The endpoints by name.

        Raises:
            NotReady: they are known once the Runners have loaded.
        """
        self._refresh()
        return self._endpoints

    @abstractmethod
    def _make_plans(self, known: Mapping[str, Mapping[str, Endpoint]]) -> dict[str, tuple[P, Endpoint]]:
        """Return the plan and the description of each endpoint, by the endpoints of each Runner."""

    def _refresh(self) -> None:
        """Read the endpoints of all Runners; if they have changed, rebuild the plans."""
        known = {name: runner.endpoints for name, runner in self._runners.items()}
        if self._plans and all(self._known.get(name) is found for name, found in known.items()):
            return
        made = self._make_plans(known)
        self._known, self._plans = known, {name: plan for name, (plan, _) in made.items()}
        self._endpoints = {name: endpoint for name, (_, endpoint) in made.items()}

    def _plan_for(self, endpoint: str) -> P | None:
        """Return the plan that a new call is admitted by.

        Raises:
            NotReady: this is not ready.
        """
        if self._life.state != "ready":
            raise NotReady.in_state(self.name, self._life.state)
        return self._plans.get(endpoint) or self._plans.get("/default")

    def _find(self, endpoint: str) -> P:
        """Return the plan of an admitted call.

        Raises:
            NotReady: this does not run. UnknownEndpoint: there is no such endpoint.
        """
        if self._life.state not in RUNNING:
            raise NotReady.in_state(self.name, self._life.state)
        plan = self._plans.get(endpoint) or self._plans.get("/default")
        if plan is None:
            raise UnknownEndpoint.of(self.name, endpoint, self._endpoints)
        return plan

    def _call_ended(self) -> None:
        self._active -= 1
        if not self._active:
            self._life.idle.set()


class FlowRunner(PlannedRunner[ExecutionPlan]):
    """Runs calls on a graph of nodes.

    Args:
        name: for messages.
        graph: the nodes.
        nodes: the Runner of each node, by name.
        grace: seconds that running calls and floating nodes get when serving ends.

    Raises:
        DefinitionError: neighbours that do not fit; where endpoints are known once a node has loaded, its lifespan does.
    """

    def __init__(self, name: str, graph: Graph, nodes: Mapping[str, FlowNode], *, grace: float = 30.0) -> None:
        self._graph, self._nodes, self._names = graph, nodes, frozenset(graph.nodes)
        runners = {node.name: node.runner for node in nodes.values() if node.runner is not None}
        self._filters_answer = any(node.when is not None for node in nodes.values() if node.runner is None)
        self._background = BackgroundNodes(runners)
        super().__init__(name, runners, grace)

    def admit(self, endpoint: str, *, size: int = 0) -> Ticket:
        """Take a place in the queue of every awaited node, so that a full one refuses before any node runs.

        A Deployment used by several nodes is asked once: one place suffices for a call.
        """
        plan = self._plan_for(endpoint)
        return admit_all(() if plan is None else plan.admits, endpoint, size)

    async def call(self, call: Call, /) -> Result:
        plan = self._find_for(call) if call.target_executor else self._find(call.endpoint)
        if plan.route.stage.generator is not None:
            raise InvalidDocs(f"{call.endpoint} streams its answer; ask for a stream")
        self._active += 1
        try:
            execution, docs = FlowExecution(plan, call), call.docs
            if docs.codec.model is None:
                docs = identified(docs)
            order = _order(docs) if self._is_sorted(plan) else {}
            execution.deliver(GATEWAY, docs)
            await execution.run(plan.route.stage.before)
            answer = execution.answer
            return Result(_sorted(answer, order) if order else answer, execution.results, tuple(execution.trail))
        finally:
            self._call_ended()

    async def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        plan = self._find_for(call) if call.target_executor else self._find(call.endpoint)
        if plan.route.stage.generator is None and len(call.docs) != 1:
            raise InvalidDocs(f"{call.endpoint} takes one document, got {len(call.docs)}")
        self._active += 1
        try:
            execution = FlowExecution(plan, call)
            execution.deliver(GATEWAY, identified(call.docs))
            async with aclosing(execution.stream(plan.route.stage)) as answers:
                async for docs in answers:
                    yield docs
        except GeneratorExit:
            call.context.cancelled = True
            raise
        finally:
            self._call_ended()

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        for node in self._graph.hanging:
            logger.warning(
                "%s: %r is a leaf that nothing joins: the answer does not wait for it; needs_all() joins leaves",
                self.name,
                node,
            )
        ordered = {node: self._runners[node] for node in self._graph.nodes if node in self._runners}
        try:
            async with lifespans(self._life, ordered, lambda: self._life.drain(self._active, self._background.idle)):
                self._refresh()
                self._life.state = "ready"
                yield
        finally:
            await self._background.close()

    def unhealthy_reason(self) -> str:
        """Return why no call can be answered now: the first node's reason; '' if there is none."""
        for node, runner in self._runners.items():
            if node in self._graph.awaited and (reason := Wrapper(runner).unhealthy_reason()):
                return f"{node}: {reason}"
        return ""

    def measure_batches(self, deployment: str, measures: MakeBatchObserver) -> None:
        """Have the batches of every node measured, under the node's name."""
        for node, runner in self._runners.items():
            Wrapper(runner).measure_batches(node, measures)

    def status(self) -> dict[str, Any]:
        """Return the metrics of every node for `/-/status`."""
        nodes = {node: Wrapper(runner).status() for node, runner in self._runners.items()}
        return {"nodes": nodes, "floating": self._background.status()}

    def _make_plans(self, known: Mapping[str, Mapping[str, Endpoint]]) -> dict[str, tuple[ExecutionPlan, Endpoint]]:
        names = dict.fromkeys(name for node in self._graph.nodes for name in known.get(node, ()))
        for name in names:
            check_neighbours(self._graph, name, known)
        plans = {name: self._make_plan(name, known) for name in names}
        return {name: (plan, plan.route.endpoint) for name, plan in plans.items() if plan is not None}

    def _make_plan(
        self, name: str, known: Mapping[str, Mapping[str, Endpoint]], only: str = ""
    ) -> ExecutionPlan | None:
        route = FlowRoute.of(self._graph, name, known, only)
        if route is None:
            return None
        awaited = [node for node in route.answering if node in self._graph.awaited]
        runners = {id(runner): runner for runner in (unwrap_node(self._runners[node]) for node in awaited)}
        needs = {node: self._graph.needs(node) for node in self._graph.nodes}
        admits, launch = tuple(runners.values()), self._background.launch
        return ExecutionPlan(self._graph, self._nodes, needs, self._names, route, admits, launch)

    def _find_for(self, call: Call) -> ExecutionPlan:
        """Return the plan of a call, for the nodes that it asks.

        Raises:
            NotReady, UnknownEndpoint: as `_find`.
        """
        plan = self._find(call.endpoint)
        chosen = self._make_plan(plan.route.endpoint.name, self._known, call.target_executor)
        assert chosen is not None, "an endpoint has a plan whichever nodes are asked"
        return chosen

    def _is_sorted(self, plan: ExecutionPlan) -> bool:
        return self._filters_answer or any(self._nodes[node].when is not None for node in plan.route.answering)


def _order(docs: Docs) -> dict[Any, int]:
    """Return the positions of documents by id, for those with an id."""
    return {id_: position for position, doc in enumerate(rows(docs)) if (id_ := id_of(doc)) is not None}


def _sorted(docs: Docs, order: Mapping[Any, int]) -> Docs:
    """Sort documents in the order of the request; new ones come last."""
    places = [order.get(id_of(doc), len(order)) for doc in rows(docs)]
    return select(docs, sorted(range(len(places)), key=places.__getitem__))
