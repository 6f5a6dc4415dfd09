"""The Runner over shards: each has a part of the data, and a call goes to one of them, or to all.

ANY: to the next one in turn. ALL: to every one, each with its own copy of the documents; the answers are merged as at a
join of a Flow. A stream comes from one shard.

The Runner of a Deployment with an Executor before its shards, after them, or both.

The Executor before makes the shards' input. The Executor after gets the answers of all shards called, like a node that
joins without reducing: `docs_matrix` and `docs_map` have each shard's own.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec

from jina_asgi.concurrency.lifecycle import Lifecycle
from jina_asgi.concurrency.task_groups import add_node_name, gather_or_cancel, lifespans
from jina_asgi.documents.codec import codec
from jina_asgi.errors import DefinitionError, InvalidDocs, JinaASGIError, NotReady
from jina_asgi.runners.admission import Admission, admit_all
from jina_asgi.runners.flow._route import combined, difference
from jina_asgi.runners.flow.merging import concatenated, converted, copy_docs, identified, merged, select
from jina_asgi.runners.flow.runner import PlannedRunner
from jina_asgi.runners.measures import MakeBatchObserver
from jina_asgi.runners.wrappers import Wrapper
from jina_asgi.settings import AROUND
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

    def measure_batches(self, deployment: str, measures: MakeBatchObserver) -> None:
        """Have the batches of every shard measured, together."""
        for shard in self._shards.values():
            Wrapper(shard).measure_batches(deployment, measures)

    def status(self) -> dict[str, Any]:
        """Return the metrics of every shard for `/-/status`."""
        shards = {name: Wrapper(shard).status() for name, shard in self._shards.items()}
        return {"shards": shards, "queue": self._admission.status()}


BEFORE, AFTER = AROUND
_SHARDS = "shards"


@dataclass(frozen=True, slots=True)
class _HeadPlan:
    """How one endpoint is answered: `endpoint` is the Deployment's own; `before` and `after` are None where none runs."""

    endpoint: Endpoint
    shards: Endpoint
    before: Endpoint | None
    after: Endpoint | None


class HeadRunner(PlannedRunner[_HeadPlan]):
    """Runs shards with an Executor before them, after them, or both.

    A call to an endpoint that the Executor before or after does not have skips it. The endpoints are the shards'.

    Args:
        shards: the shards' Runner.
        before, after: the Runners of `uses_before` and `uses_after`.
        grace: seconds that running calls get when serving ends.

    Raises:
        DefinitionError: the documents of one do not fit the next, or an endpoint before or after streams or is batched;
            where endpoints are known once an Executor has loaded, its lifespan does.
    """

    def __init__(self, shards: ShardRunner, before: Runner | None, after: Runner | None, *, grace: float) -> None:
        self._shards = shards
        around = {BEFORE: before, _SHARDS: shards, AFTER: after}
        runners = {part: runner for part, runner in around.items() if runner is not None}
        super().__init__(shards.name, runners, grace)

    def admit(self, endpoint: str, *, size: int = 0) -> Ticket:
        """Take a place in the queues of the shards and of the Executors around them that the call uses."""
        plan = self._plan_for(endpoint)
        passed = {BEFORE: plan is None or plan.before is None, AFTER: plan is None or plan.after is None}
        return admit_all([runner for part, runner in self._runners.items() if not passed.get(part)], endpoint, size)

    async def call(self, call: Call, /) -> Result:
        plan = self._find(call.endpoint)
        if plan.shards.kind == "stream":
            raise InvalidDocs(f"{call.endpoint} streams its answer; ask for a stream")
        self._active += 1
        try:
            asked, before = await self._prepared(plan, call)
            answers = await self._shards.answers(asked)
            results, trail = {**before.results, **answers.results}, (*before.trail, *answers.trail)
            if plan.after is None:
                return Result(self._shards.reduced(answers.parts), results, trail)
            last = await self._finished(plan, call, plan.after, answers.parts)
            return Result(last.docs, {**results, **last.results}, (*trail, *last.trail))
        finally:
            self._call_ended()

    async def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        plan = self._find(call.endpoint)
        if len(call.docs) != 1:
            raise InvalidDocs(f"{call.endpoint} takes one document, got {len(call.docs)}")
        self._active += 1
        try:
            if plan.shards.kind != "stream":
                result = await self.call(call)
                for position in range(len(result.docs)):
                    yield select(result.docs, [position])
                return
            asked, _ = await self._prepared(plan, call)
            for position in range(len(asked.docs)):  # the Executor before may return several documents
                piece = asked if len(asked.docs) == 1 else _with_docs(asked, select(asked.docs, [position]))
                shard, stream = self._shards.stream_of_one(piece)
                async with aclosing(stream) as steps:
                    async for docs in steps:
                        if plan.after is not None:
                            docs = (await self._finished(plan, call, plan.after, [(shard, docs)])).docs
                        yield docs
        finally:
            self._call_ended()

    async def _prepared(self, plan: _HeadPlan, call: Call) -> tuple[Call, Result]:
        """Run the Executor before the shards; return the shards' call and its result."""
        if plan.before is None:
            return call, Result(call.docs)
        result = await self._ask(BEFORE, call)
        docs = converted(result.docs, codec(plan.shards.input), BEFORE, self.name)
        return Call(call.endpoint, docs, call.parameters, call.context, giver=self.name), result

    async def _finished(
        self, plan: _HeadPlan, call: Call, after: Endpoint, parts: Sequence[tuple[str, Docs]]
    ) -> Result:
        """Run the Executor after the shards on their answers."""
        sources = tuple((shard, converted(docs, codec(after.input), shard, AFTER)) for shard, docs in parts)
        docs = sources[0][1] if len(sources) == 1 else concatenated(sources)
        return await self._ask(AFTER, Call(call.endpoint, docs, call.parameters, call.context, sources, "", self.name))

    async def _ask(self, part: str, call: Call) -> Result:
        try:
            result = await self._runners[part].call(call)
        except Exception as error:
            add_node_name(error, part)
            raise
        return Result(result.docs, {f"{self.name}/{part}-0": value for value in result.results.values()}, result.trail)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with lifespans(self._life, self._runners, lambda: self._life.drain(self._active)):
            self._refresh()
            self._life.state = "ready"
            yield

    def unhealthy_reason(self) -> str:
        """Return why no call can be answered now: the first part's reason; '' if there is none."""
        for part, runner in self._runners.items():
            if reason := Wrapper(runner).unhealthy_reason():
                return reason if runner is self._shards else f"{part}: {reason}"
        return ""

    def measure_batches(self, deployment: str, measures: MakeBatchObserver) -> None:
        """Have the batches of the shards measured, and those of the Executors around them."""
        for runner in self._runners.values():
            Wrapper(runner).measure_batches(deployment, measures)

    def status(self) -> dict[str, Any]:
        """Return the metrics of the shards and of the Executors around them for `/-/status`."""
        around = {part: Wrapper(self._runners[part]).status() for part in AROUND if part in self._runners}
        return {**self._shards.status(), **around}

    def _make_plans(self, known: Mapping[str, Mapping[str, Endpoint]]) -> dict[str, tuple[_HeadPlan, Endpoint]]:
        plans = {name: self._make_plan(name, shards, known) for name, shards in known[_SHARDS].items()}
        return {name: (plan, plan.endpoint) for name, plan in plans.items()}

    def _make_plan(self, name: str, shards: Endpoint, known: Mapping[str, Mapping[str, Endpoint]]) -> _HeadPlan:
        before, after = (resolve(known.get(part, {}), name) for part in AROUND)
        for part, endpoint in ((BEFORE, before), (AFTER, after)):
            if endpoint is not None and endpoint.kind == "stream":
                raise DefinitionError(
                    f"{name}: the {part} of {self.name} streams its answer; expected one that answers as a whole"
                )
        if after is not None and after.batching is not None:
            raise DefinitionError(cannot_batch(self.name, after.name))
        if before is not None and before.name == shards.name and (reason := difference(before.output, shards.input)):
            raise DefinitionError(f"{name}: {self.name} does not take what its {BEFORE} gives: {reason}")
        if after is not None and after.name == shards.name and (reason := difference(shards.output, after.input)):
            raise DefinitionError(f"{name}: the {AFTER} of {self.name} does not take what its shards give: {reason}")
        return _HeadPlan(_endpoint(name, before, shards, after), shards, before, after)


def cannot_batch(name: str, endpoint: str) -> str:
    """Return the message that the Executor after shards cannot batch."""
    return (
        f"{endpoint}: the {AFTER} of {name} is given the answers of all shards of one call, so it cannot batch those of"
        " several calls; leave dynamic batching out there"
    )


def _with_docs(call: Call, docs: Docs) -> Call:
    return call if docs is call.docs else msgspec.structs.replace(call, docs=docs)


def _endpoint(name: str, before: Endpoint | None, shards: Endpoint, after: Endpoint | None) -> Endpoint:
    """Return the Deployment's own endpoint: the input of the first part and the output of the last."""
    found = [endpoint for endpoint in (before, shards, after) if endpoint is not None]
    if len(found) == 1:
        return shards
    return combined(replace(shards, name=name, input=found[0].input, output=found[-1].output), found)
