"""The Runner over a graph of named Runners in this process: a Flow.

Documents pass from node to node as objects. A Flow is a Runner, so it may be a node of another.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

from jina_asgi.concurrency.lifecycle import RUNNING, Lifecycle
from jina_asgi.concurrency.task_groups import lifespans
from jina_asgi.errors import InvalidDocs, NotReady, UnknownEndpoint
from jina_asgi.runners.admission import Tickets
from jina_asgi.runners.flow._graph import GATEWAY, Graph
from jina_asgi.runners.flow._route import FlowRoute, check_neighbours
from jina_asgi.runners.flow.background import BackgroundNodes
from jina_asgi.runners.flow.execution import ExecutionPlan, FlowExecution, FlowNode
from jina_asgi.runners.flow.merging import id_of, identified, rows, select
from jina_asgi.runners.flow.renamed import unwrap_renamed
from jina_asgi.runners.wrapper import Wrapper
from jina_asgi.types import Call, Docs, Endpoint, Result, Ticket

logger = logging.getLogger("jina_asgi")


class FlowRunner:
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
        self.name, self._graph, self._nodes = name, graph, nodes
        self._names = frozenset(graph.nodes)
        self._runners = {node.name: node.runner for node in nodes.values() if node.runner is not None}
        self._filters_answer = any(node.when is not None for node in nodes.values() if node.runner is None)
        self._background = BackgroundNodes(self._runners)
        self._known: dict[str, Mapping[str, Endpoint]] = {}
        self._endpoints: Mapping[str, Endpoint] = {}
        self._plans: dict[str, ExecutionPlan] = {}
        self._active, self._life = 0, Lifecycle(grace)
        try:
            self._refresh()
        except NotReady:  # the endpoints are known once a node has loaded
            pass

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """The endpoints of all nodes, by name.

        Raises:
            NotReady: a node's are known once it has loaded.
        """
        self._refresh()
        return self._endpoints

    def admit(self, endpoint: str, *, size: int = 0) -> Ticket:
        """Take a place in the queue of every awaited node, so that a full one refuses before any node runs.

        A Deployment used by several nodes is asked once: one place suffices for a call.
        """
        if self._life.state != "ready":
            raise NotReady.in_state(self.name, self._life.state)
        plan = self._plan_for(endpoint)
        nodes = [node for node in plan.route.answering if node in self._graph.awaited] if plan is not None else []
        runners = {id(runner): runner for runner in (unwrap_renamed(self._runners[node]) for node in nodes)}
        tickets = Tickets()
        try:
            for runner in runners.values():
                tickets.add(runner.admit(endpoint, size=size))
        except BaseException:
            tickets.close()
            raise
        return tickets

    async def call(self, call: Call, /) -> Result:
        plan = self._find(call)
        if plan.route.stage.generator is not None:
            raise InvalidDocs(f"{call.endpoint} streams its answer; ask for a stream")
        self._active += 1
        try:
            execution, docs = FlowExecution(plan, call), identified(call.docs)
            order = _order(docs) if self._is_sorted(plan) else {}
            execution.deliver(GATEWAY, docs)
            await execution.run(plan.route.stage.before)
            answer = execution.answer
            return Result(_sorted(answer, order) if order else answer, execution.results, tuple(execution.trail))
        finally:
            self._call_ended()

    async def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        plan = self._find(call)
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

    def status(self) -> dict[str, Any]:
        """Return the metrics of every node for `/-/status`."""
        nodes = {node: Wrapper(runner).status() for node, runner in self._runners.items()}
        return {"nodes": nodes, "floating": self._background.status()}

    def _refresh(self) -> None:
        """Read the endpoints of all nodes; if they have changed, rebuild the plans."""
        known = {node: runner.endpoints for node, runner in self._runners.items()}
        if self._plans and all(self._known.get(node) is found for node, found in known.items()):
            return
        names = dict.fromkeys(name for node in self._graph.nodes for name in known.get(node, ()))
        for name in names:
            check_neighbours(self._graph, name, known)
        plan = {name: self._make_plan(name, known) for name in names}
        self._endpoints = {name: plan.route.endpoint for name, plan in plan.items() if plan is not None}
        self._known, self._plans = known, {name: plan for name, plan in plan.items() if plan is not None}

    def _make_plan(
        self, name: str, known: Mapping[str, Mapping[str, Endpoint]], only: str = ""
    ) -> ExecutionPlan | None:
        route = FlowRoute.of(self._graph, name, known, only)
        return (
            None
            if route is None
            else ExecutionPlan(self._graph, self._nodes, self._names, route, self._background.launch)
        )

    def _plan_for(self, endpoint: str) -> ExecutionPlan | None:
        return self._plans.get(endpoint) or self._plans.get("/default")

    def _find(self, call: Call) -> ExecutionPlan:
        if self._life.state not in RUNNING:
            raise NotReady.in_state(self.name, self._life.state)
        plan = self._plan_for(call.endpoint)
        if plan is not None and call.target_executor:
            name = plan.route.endpoint.name
            plan = self._make_plan(name, self._known, call.target_executor)
        if plan is None:
            known = ", ".join(self._endpoints) or "none"
            raise UnknownEndpoint(f"{self.name} has no endpoint {call.endpoint!r} and no '/default'; it has {known}")
        return plan

    def _is_sorted(self, plan: ExecutionPlan) -> bool:
        return self._filters_answer or any(self._nodes[node].when is not None for node in plan.route.answering)

    def _call_ended(self) -> None:
        self._active -= 1
        if not self._active:
            self._life.idle.set()


def _order(docs: Docs) -> dict[Any, int]:
    """Return the positions of documents by id, for those with an id."""
    return {id_: position for position, doc in enumerate(rows(docs)) if (id_ := id_of(doc)) is not None}


def _sorted(docs: Docs, order: Mapping[Any, int]) -> Docs:
    """Sort documents in the order of the request; new ones come last."""
    places = [order.get(id_of(doc), len(order)) for doc in rows(docs)]
    return select(docs, sorted(range(len(places)), key=places.__getitem__))
