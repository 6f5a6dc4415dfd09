"""The Runner over shards: each has a part of the data, and a call goes to one of them, or to all.

ANY: to the next one in turn. ALL: to every one, each with its own copy of the documents; the answers are merged as at a
join of a Flow. A stream comes from one shard.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from jina_asgi.concurrency.lifecycle import Lifecycle
from jina_asgi.concurrency.task_groups import gather_or_cancel, lifespans
from jina_asgi.errors import JinaASGIError, NotReady
from jina_asgi.runners.admission import Admission
from jina_asgi.runners.flow.merging import concatenated, copy_docs, identified, merged
from jina_asgi.runners.wrapper import Wrapper
from jina_asgi.types import Call, Docs, Endpoint, Result, Runner, Step, Ticket, resolve

logger = logging.getLogger("jina_asgi")


class ShardAnswers(NamedTuple):
    """The answers of shards: (shard, documents) pairs, the dicts they returned, and the trail."""

    parts: list[tuple[str, Docs]]
    results: Mapping[str, Any]
    trail: tuple[Step, ...]


class ShardRunner:
    """Sends each call to one shard or to all.

    Args:
        name: of the Deployment.
        shards: their Runners; the n-th is called `<name>-shard-<n>` in results.
        asks_all: whether a call to this endpoint goes to every shard.
        no_reduce: the answers of all shards are concatenated instead of merged.
        admission: bounds the calls to all shards together.
        partial: if some shards fail the others still answer, as in Jina; else the call fails.
    """

    def __init__(
        self,
        name: str,
        shards: Sequence[Runner],
        asks_all: Callable[[str], bool],
        *,
        no_reduce: bool,
        admission: Admission,
        partial: bool = False,
    ) -> None:
        self._partial = partial
        self.name, self._asks_all, self._no_reduce, self._admission = name, asks_all, no_reduce, admission
        self._shards = {f"{name}-shard-{number}": shard for number, shard in enumerate(shards)}
        self._next = itertools.cycle(self._shards)
        self._life = Lifecycle()

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        return next(iter(self._shards.values())).endpoints

    def admit(self, endpoint: str, *, size: int = 0) -> Ticket:
        if self._life.state != "ready":
            raise NotReady.in_state(self.name, self._life.state)
        return self._admission.admit(size)

    async def call(self, call: Call, /) -> Result:
        answers = await self.answers(call)
        return Result(self.reduced(answers.parts), answers.results, answers.trail)

    async def answers(self, call: Call) -> ShardAnswers:
        """Return the answer of each shard that the call goes to; raises as `call` does."""
        found = resolve(self.endpoints, call.endpoint)
        if found is None or found.kind == "stream" or not self._asks_all(call.endpoint):
            shard = next(self._next)
            answer = await self._ask(shard, call, call.docs)
            return ShardAnswers([(self._public_name(shard), answer.docs)], answer.results, answer.trail)
        *others, last = self._shards
        docs = identified(call.docs)
        given = {**{shard: copy_docs(docs) for shard in others}, last: docs}
        if self._partial:
            all_of_them, given = await self._ask_some(call, given)
        else:
            all_of_them = await gather_or_cancel(self._ask(shard, call, its) for shard, its in given.items())
        parts = [(self._public_name(shard), answer.docs) for shard, answer in zip(given, all_of_them, strict=True)]
        results = {key: value for answer in all_of_them for key, value in answer.results.items()}
        return ShardAnswers(parts, results, tuple(step for answer in all_of_them for step in answer.trail))

    def reduced(self, parts: Sequence[tuple[str, Docs]]) -> Docs:
        """Reduce the documents of all parts: merged, or with `no_reduce` concatenated.

        Raises:
            ExecutorError: documents without ids, and the parts differ in number.
        """
        if len(parts) == 1:
            return parts[0][1]
        return concatenated(parts) if self._no_reduce else merged(parts, self.name)

    async def _ask_some(self, call: Call, given: Mapping[str, Docs]) -> tuple[list[Result], dict[str, Docs]]:
        """Return the answers of the shards that succeed, and their inputs.

        Raises:
            The first error, if all of them fail.
        """

        async def tried(shard: str, docs: Docs) -> Result | JinaASGIError:
            try:
                return await self._ask(shard, call, docs)
            except JinaASGIError as error:
                logger.warning("%s fails, and the other shards answer: %s", shard, error)
                return error

        found = dict(
            zip(given, await gather_or_cancel(tried(shard, docs) for shard, docs in given.items()), strict=True)
        )
        answers = {shard: answer for shard, answer in found.items() if isinstance(answer, Result)}
        if not answers:
            raise next(error for error in found.values() if isinstance(error, JinaASGIError))
        return list(answers.values()), {shard: given[shard] for shard in answers}

    async def _ask(self, shard: str, call: Call, docs: Docs) -> Result:
        asked = Call(call.endpoint, docs, call.parameters, call.context, call.sources, "", call.giver)
        result = await self._shards[shard].call(asked)
        if not result.results:
            return result
        renamed = {key.replace(shard, self._public_name(shard), 1): value for key, value in result.results.items()}
        return Result(result.docs, renamed, result.trail)

    def _public_name(self, shard: str) -> str:
        """Return a shard's name in `__results__`; a Deployment's name has no slash in it."""
        return f"{self.name}/{shard.removeprefix(f'{self.name}-')}"

    def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        return self.stream_of_one(call)[1]

    def stream_of_one(self, call: Call) -> tuple[str, AsyncGenerator[Docs, None]]:
        """Return the next shard's name and its stream."""
        shard = next(self._next)
        return self._public_name(shard), self._shards[shard].stream(call)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with lifespans(self._life, self._shards, lambda: self._life.drain(0)):  # each waits for its own calls
            self._life.state = "ready"
            yield

    def unhealthy_reason(self) -> str:
        """Return why no call can be answered now: the first shard's reason; '' if there is none."""
        return next((reason for shard in self._shards.values() if (reason := Wrapper(shard).unhealthy_reason())), "")

    def status(self) -> dict[str, Any]:
        """Return the metrics of every shard for `/-/status`."""
        shards = {name: Wrapper(shard).status() for name, shard in self._shards.items()}
        return {"shards": shards, "queue": self._admission.status()}
