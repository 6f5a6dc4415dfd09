"""Random graphs with random failures, conditions and joins give what a sequential model of thirty lines gives."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from docarray import BaseDoc
from hypothesis import given, settings
from hypothesis import strategies as st

from jina_asgi.documents.codec import codec
from jina_asgi.documents.schemas import schema_of
from jina_asgi.errors import ExecutorError
from jina_asgi.runners.flow._graph import GATEWAY, Graph, Node
from jina_asgi.runners.flow._query import compiled
from jina_asgi.runners.flow.execution import FlowNode
from jina_asgi.runners.flow.runner import FlowRunner
from jina_asgi.types import Call, Docs, Endpoint, Result, Ticket


class Doc(BaseDoc):
    n: int
    text: str = ""
    seen: list[str] = []


SCHEMA = schema_of(Doc)


@dataclass(frozen=True)
class Plan:
    """A node: which others it needs, from which `n` on it wants documents, what it does, how many turns that takes."""

    name: str
    needs: tuple[str, ...]
    least: int | None
    does: str
    turns: int
    no_reduce: bool
    floating: bool


@st.composite
def plans(draw: Any) -> list[Plan]:
    made: list[Plan] = []
    for number in range(draw(st.integers(1, 12))):
        before = [GATEWAY, *(plan.name for plan in made)]
        made.append(
            Plan(
                name=f"n{number}",
                needs=tuple(draw(st.lists(st.sampled_from(before[-5:]), min_size=1, max_size=3, unique=True))),
                least=draw(st.sampled_from([None, None, None, 1, 2, 9])),
                does=draw(st.sampled_from(["mark", "mark", "mark", "grow", "drop", "nothing", "fail"])),
                turns=draw(st.integers(0, 3)),
                no_reduce=draw(st.integers(0, 4)) == 0,
                floating=draw(st.integers(0, 5)) == 0,
            )
        )
    return made


def done(plan: Plan, docs: list[Any]) -> list[Any]:
    """What a node makes of documents, changing them in place."""
    for doc in docs:
        if plan.does == "mark":
            doc.seen.append(plan.name)
            doc.text = plan.name
    return docs[1:] if plan.does == "drop" else [*docs, Doc(id=plan.name, n=1)] if plan.does == "grow" else docs


def merge(parts: list[list[Any]]) -> list[Any]:
    docs = [*parts[0]]
    known = {doc.id: doc for doc in docs}
    for doc in (doc for part in parts[1:] for doc in part):
        if (ours := known.get(doc.id)) is None:
            docs.append(known.setdefault(doc.id, doc))
        else:
            ours.n, ours.text, ours.seen = doc.n, doc.text, [*ours.seen, *doc.seen]
    return docs


class Model:
    """The same graph, one node after another, every node with documents of its own."""

    def __init__(self, nodes: list[Plan], request: list[Any]) -> None:
        needed = {need for plan in nodes if not plan.floating for need in plan.needs}
        ends = [plan.name for plan in nodes if not plan.floating and plan.name not in needed]
        self.end = ends[-1] if ends else GATEWAY
        self.awaited = {self.end}
        for plan in reversed(nodes):
            self.awaited |= set(plan.needs) if plan.name in self.awaited else set()
        self.given: dict[str, list[Any] | None] = {GATEWAY: request}  # None: it failed, or what it needs did
        self.took: dict[str, list[Any]] = {}
        self.failed: set[str] = set()
        for plan in nodes:
            self.given[plan.name] = self.visit(plan, [self.given[need] for need in plan.needs])

    def visit(self, plan: Plan, parts: list[Any]) -> list[Any] | None:
        if None in parts:
            return None
        least = -1 if plan.least is None else plan.least
        wanted = [[doc for doc in copy.deepcopy(part) if doc.n >= least] for part in parts]
        docs = [doc for part in wanted for doc in part] if plan.no_reduce else merge(wanted)
        if not docs and plan.least is not None:
            return docs
        self.took[plan.name] = copy.deepcopy(docs)
        if plan.does == "fail":
            self.failed.add(plan.name)
            return None
        return done(plan, docs)


class Node_:
    """The Runner of one plan."""

    def __init__(self, plan: Plan, took: dict[str, list[Any]]) -> None:
        self._plan, self._took = plan, took
        self.endpoints: Mapping[str, Endpoint] = {
            "/go": Endpoint(name="/go", kind="batch", input=SCHEMA, output=SCHEMA),
        }

    def admit(self, endpoint: str, *, size: int = 0) -> Ticket:
        return Ticket()

    async def call(self, call: Call, /) -> Result:
        self._took[self._plan.name] = copy.deepcopy([*call.docs.typed])
        for _ in range(self._plan.turns):
            await asyncio.sleep(0)
        if self._plan.does == "fail":
            raise ExecutorError("asked to fail")
        reader = codec(SCHEMA)
        return Result(reader.docs(reader.wrap(done(self._plan, [*call.docs.typed]))))

    def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        raise NotImplementedError

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        with nullcontext():
            yield


async def answered(nodes: list[Plan], request: list[Any], took: dict[str, list[Any]]) -> list[Any] | ExecutorError:
    graph = Graph.of(
        [Node(name=p.name, needs=p.needs, no_reduce=p.no_reduce, floating=p.floating) for p in nodes],
    )
    places = {
        plan.name: FlowNode(
            plan.name,
            Node_(plan, took),
            None if plan.least is None else compiled({"n": {"$gte": plan.least}}),
        )
        for plan in nodes
    }
    flow = FlowRunner("flow", graph, places)
    async with flow.lifespan():
        reader = codec(SCHEMA)
        try:
            return [*(await flow.call(Call("/go", reader.docs(reader.wrap(request))))).docs.typed]
        except ExecutorError as error:
            return error


@contextmanager
def quiet() -> Iterator[None]:
    """Floating nodes that fail are logged."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def in_order(model: Model, nodes: list[Plan], request: list[Any]) -> list[Any]:
    """The model's answer as a Flow sorts it where any node has a condition."""
    docs = model.given[model.end] or []
    if all(plan.least is None for plan in nodes):
        return docs
    places = {doc.id: position for position, doc in enumerate(request)}
    return sorted(docs, key=lambda doc: places.get(doc.id, len(places)))


def plain(docs: list[Any]) -> list[Any]:
    return [(doc.id, doc.n, doc.text, doc.seen) for doc in docs]


@settings(max_examples=2 * settings().max_examples)
@given(plans(), st.integers(0, 3))
def test_a_flow_gives_what_its_nodes_one_after_another_give(nodes: list[Plan], count: int) -> None:
    request = [Doc(id=f"d{number}", n=number) for number in range(count)]
    model = Model(nodes, copy.deepcopy(request))
    took: dict[str, list[Any]] = {}
    with quiet():
        answer = asyncio.run(answered(nodes, copy.deepcopy(request), took))
    failed = model.failed & model.awaited
    if failed:
        assert isinstance(answer, ExecutorError)
        assert answer.node in failed
        return
    assert not isinstance(answer, ExecutorError)
    assert plain(answer) == plain(in_order(model, nodes, request))
    assert {name: plain(docs) for name, docs in took.items()} == {n: plain(docs) for n, docs in model.took.items()}
