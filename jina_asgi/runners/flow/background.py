"""Runs a Flow's floating nodes in the background, during and after the answer.

Each run takes a place in its node's queue; if the queue is full it is dropped, counted and logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

from jina_asgi.concurrency.tasks import cancel_and_wait, is_cancel, start_task
from jina_asgi.errors import Unavailable
from jina_asgi.errors._raised import loggable
from jina_asgi.runners.flow.execution import FlowExecution
from jina_asgi.runners.flow.merging import concatenated
from jina_asgi.types import Context, Docs, Runner, Ticket

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
