"""The Runner over a graph of named Runners in this process: a Flow.

Documents pass from node to node as objects. A Flow is a Runner, so it may be a node of another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

from jina_asgi.concurrency.grace import grace_left
from jina_asgi.concurrency.task_groups import lives
from jina_asgi.errors import InvalidDocs, NotReady, UnknownEndpoint
from jina_asgi.runners.admission import Tickets
from jina_asgi.runners.flow._graph import GATEWAY, Graph
from jina_asgi.runners.flow._route import Route, check_neighbours
from jina_asgi.runners.flow.background import Floating
from jina_asgi.runners.flow.execution import Crossing, Place, Ways
from jina_asgi.runners.flow.merging import id_of, identified, rows, some
from jina_asgi.runners.flow.renamed import itself
from jina_asgi.runners.wrapper import Wrapper
from jina_asgi.types import Call, Docs, Endpoint, Result, Ticket

logger = logging.getLogger("jina_asgi")


class FlowRunner:
    """Nodes and the Runner of each.

    Args:
        name: for messages.
        graph: the nodes.
        places: what runs at each node, by name.
        grace: seconds that running calls, and nodes that nobody waits for, get when serving ends.

    Raises:
        DefinitionError: neighbours that do not fit; where endpoints are known once a node has loaded, its lifespan does.
    """

    def __init__(self, name: str, graph: Graph, places: Mapping[str, Place], *, grace: float = 30.0) -> None:
        self.name, self._graph, self._places, self._grace = name, graph, places, grace
        self._names = frozenset(graph.nodes)
        self._runners = {place.name: place.runner for place in places.values() if place.runner is not None}
        self._chooses = any(place.when is not None for place in places.values() if place.runner is None)
        self._floating = Floating(self._runners)
        self._known: dict[str, Mapping[str, Endpoint]] = {}
        self._endpoints: Mapping[str, Endpoint] = {}
        self._ways: dict[str, Ways] = {}
        self._active, self._idle = 0, asyncio.Event()
        self._state = NotReady.NOT_STARTED
        try:
            self._look()
        except NotReady:  # a node says what it serves once it has loaded
            pass

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """The endpoints of all nodes, by name.

        Raises:
            NotReady: a node's are known once it has loaded.
        """
        self._look()
        return self._endpoints

    def admit(self, endpoint: str, *, size: int = 0, tenant: str = "", priority: int = 0) -> Ticket:
        """A place at every node that the call waits for, so that one that is full refuses before anything runs.

        Where several nodes are one Deployment it is asked once: a call needs no more of its queue to come through.
        """
        if self._state != "ready":
            raise NotReady.in_state(self.name, self._state)
        ways = self._way(endpoint)
        nodes = [node for node in ways.route.answering if node in self._graph.awaited] if ways is not None else []
        runners = {id(runner): runner for runner in (itself(self._runners[node]) for node in nodes)}
        tickets = Tickets()
        try:
            for runner in runners.values():
                tickets.add(runner.admit(endpoint, size=size, tenant=tenant, priority=priority))
        except BaseException:
            tickets.close()
            raise
        return tickets

    async def call(self, call: Call, /) -> Result:
        ways = self._find(call)
        if ways.route.stage.generator is not None:
            raise InvalidDocs(f"{call.endpoint} streams its answer; ask for a stream")
        self._active += 1
        try:
            crossing, docs = Crossing(ways, call), identified(call.docs)
            order = _order(docs) if self._is_sorted(ways) else {}
            crossing.give(GATEWAY, docs)
            await crossing.run(ways.route.stage.before)
            answer = crossing.answer
            return Result(_sorted(answer, order) if order else answer, crossing.results, tuple(crossing.trail))
        finally:
            self._ended()

    async def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        ways = self._find(call)
        if ways.route.stage.generator is None and len(call.docs) != 1:
            raise InvalidDocs(f"{call.endpoint} takes one document, got {len(call.docs)}")
        self._active += 1
        try:
            crossing = Crossing(ways, call)
            crossing.give(GATEWAY, identified(call.docs))
            async with aclosing(crossing.stream(ways.route.stage)) as answers:
                async for docs in answers:
                    yield docs
        except GeneratorExit:
            call.context.cancelled = True
            raise
        finally:
            self._ended()

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self._state, self._idle = "loading", asyncio.Event()
        for node in self._graph.hanging:
            logger.warning(
                "%s: %r is a leaf that nothing joins: nobody waits for it; needs_all() joins leaves", self.name, node
            )
        try:
            async with self._lives():
                self._look()
                self._state = "ready"
                yield
        finally:
            self._state = "stopped"
            await self._floating.close()

    def _lives(self) -> AbstractAsyncContextManager[None]:
        ordered = {node: self._runners[node] for node in self._graph.nodes if node in self._runners}
        return lives(ordered, self._drained)

    async def _drained(self, hurried: bool) -> bool:
        """Let calls end, then what nobody waits for; whether they did within the grace period."""
        self._state = "draining"
        self._ended(0)
        try:
            async with asyncio.timeout(0 if hurried else grace_left(self._grace)):
                await self._idle.wait()
                await self._floating.idle()
        except TimeoutError:
            return False
        return True

    def trouble(self) -> str:
        """Why no call can be answered just now: what the first node says that has any."""
        for node, runner in self._runners.items():
            if node in self._graph.awaited and (said := Wrapper(runner).trouble()):
                return f"{node}: {said}"
        return ""

    def status(self) -> dict[str, Any]:
        """The figures of every node, for `/-/status`."""
        nodes = {node: Wrapper(runner).status() for node, runner in self._runners.items()}
        return {"nodes": nodes, "floating": self._floating.status()}

    def _look(self) -> None:
        """See what the nodes serve; where that has changed, everything about it is worked out anew."""
        known = {node: runner.endpoints for node, runner in self._runners.items()}
        if self._ways and all(self._known.get(node) is found for node, found in known.items()):
            return
        names = dict.fromkeys(name for node in self._graph.nodes for name in known.get(node, ()))
        for name in names:
            check_neighbours(self._graph, name, known)
        ways = {name: self._made(name, known) for name in names}
        self._endpoints = {name: way.route.endpoint for name, way in ways.items() if way is not None}
        self._known, self._ways = known, {name: way for name, way in ways.items() if way is not None}

    def _made(self, name: str, known: Mapping[str, Mapping[str, Endpoint]], only: str = "") -> Ways | None:
        route = Route.of(self._graph, name, known, only)
        return None if route is None else Ways(self._graph, self._places, self._names, route, self._floating.launch)

    def _way(self, endpoint: str) -> Ways | None:
        return self._ways.get(endpoint) or self._ways.get("/default")

    def _find(self, call: Call) -> Ways:
        if self._state not in ("ready", "draining"):
            raise NotReady.in_state(self.name, self._state)
        ways = self._way(call.endpoint)
        if ways is not None and call.target_executor:
            name = ways.route.endpoint.name
            ways = self._made(name, self._known, call.target_executor)
        if ways is None:
            known = ", ".join(self._endpoints) or "none"
            raise UnknownEndpoint(f"{self.name} has no endpoint {call.endpoint!r} and no '/default'; it has {known}")
        return ways

    def _is_sorted(self, ways: Ways) -> bool:
        return self._chooses or any(self._places[node].when is not None for node in ways.route.answering)

    def _ended(self, count: int = 1) -> None:
        self._active -= count
        if not self._active and self._state == "draining":
            self._idle.set()


def _order(docs: Docs) -> dict[Any, int]:
    """The positions of documents by their ids, of those that have one."""
    return {id_: position for position, doc in enumerate(rows(docs)) if (id_ := id_of(doc)) is not None}


def _sorted(docs: Docs, order: Mapping[Any, int]) -> Docs:
    """Documents in the order of the request; those it did not have come last."""
    places = [order.get(id_of(doc), len(order)) for doc in rows(docs)]
    return some(docs, sorted(range(len(places)), key=places.__getitem__))
