"""A Deployment or Flow called with no server at all: the same documents in and out, wherever the Executor is."""

from __future__ import annotations

import datetime
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
from docarray import BaseDoc, DocList
from pydantic import BaseModel, ConfigDict, Field, SecretStr, computed_field

from jina_asgi import DefinitionError, Deployment, Executor, ExecutorError, dynamic_batching, requests
from jina_asgi.documents.codec import codec
from jina_asgi.protocols.frames._heads import describe, endpoint_of
from jina_asgi.protocols.frames.pipe import pipe_pair
from jina_asgi.runners.batching.hints import BatchPlan, HintReader
from jina_asgi.types import Call
from tests.doubles.value_places import Across


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    times: int = Field(2, alias="how-often")
    key: SecretStr = SecretStr("")
    hidden: str = Field("", exclude=True)
    after: datetime.timedelta = datetime.timedelta(0)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return 2 * self.times


class Word(BaseDoc):
    text: str = ""
    n: int = 0


class Answer(BaseDoc):
    text: str = ""


class Alike(BaseModel):
    text: str
    n: int = 7


class Speaker(Executor):
    @requests(on="/say")
    def say(self, docs: DocList[Word], parameters: Options) -> DocList[Word]:
        said = f"{parameters.key.get_secret_value()}{parameters.hidden}{parameters.after.days}"
        return DocList[Word]([Word(text=doc.text * parameters.times + said, n=doc.n) for doc in docs])

    @requests(on="/each")
    async def each(self, doc: Word, parameters: Options) -> AsyncGenerator[Word, None]:
        for letter in doc.text * parameters.times:
            yield Word(text=letter, n=doc.n)


@pytest.fixture(params=["worker", "frames"])
async def speaker(request: pytest.FixtureRequest) -> AsyncIterator[Deployment]:
    made = Deployment(Speaker) if request.param == "worker" else Across(Speaker, pipe_pair)
    async with made as deployment:
        yield deployment


OPTIONS = Options(
    **{"how-often": 3},
    key=SecretStr("k"),
    hidden="h",
    after=datetime.timedelta(days=4),  # type: ignore[arg-type]
)


async def test_parameters_may_be_a_model_which_arrives_as_it_is(speaker: Deployment) -> None:
    [doc] = await speaker.call("/say", Word(text="a"), parameters=OPTIONS)
    assert "aaakh4" == doc.text


async def test_documents_come_in_the_class_that_is_asked_for(speaker: Deployment) -> None:
    docs = await speaker.call("/say", [Word(text="a")] * 2, return_type=DocList[Answer])
    assert [(Answer, "aa0")] * 2 == [(type(doc), doc.text) for doc in docs]
    plain = await speaker.call("/say", [Word(text="a")], return_type=list[Alike])
    assert [Alike(text="aa0", n=0)] == plain
    one = await speaker.call("/say", Word(text="a", n=3), return_type=Word)
    assert (Word, "aa0", 3) == (type(one), one.text, one.n)


async def test_a_stream_comes_in_the_class_that_is_asked_for(speaker: Deployment) -> None:
    steps = speaker.stream("/each", Alike(text="ab"), parameters=Options(), return_type=Alike)
    assert [Alike(text=letter) for letter in "abab"] == [doc async for doc in steps]


async def test_without_a_class_documents_have_attributes_all_the_same(speaker: Deployment) -> None:
    [doc] = await speaker.call("/say", Word(text="a", id="1"))
    assert ("1" != doc.id, "aa0", 0) == (True, doc.text, doc.n)
    [again] = await speaker.call("/say", doc)
    assert "aa0aa00" == again.text


@pytest.mark.parametrize("given", [Alike(text="a"), {"text": "a", "n": 7}, Word(text="a", n=7)])
async def test_a_document_of_another_class_is_taken_by_its_fields(speaker: Deployment, given: Any) -> None:
    [doc] = await speaker.call("/say", [given])
    assert ("aa0", 7) == (doc.text, doc.n)


class Costly(Executor):
    @dynamic_batching(preferred_batch_size=4, cost="len:text", max_cost=100, tenant="n", priority="n")
    @requests(on="/say")
    def say(self, docs: DocList[Word]) -> DocList[Word]:
        return docs


async def test_what_a_document_costs_is_not_asked_of_one_that_will_be_refused() -> None:
    """Where the class is not at hand."""
    local = Deployment(Costly, replicas=1).runner.endpoints["/say"]
    plan = endpoint_of(describe(local))
    reader = HintReader.of("/say", BatchPlan.read(plan.batching or {}).hints, single_flight=False)
    docs = codec(plan.input).read([{"text": 5, "n": "x"}, {}, 7, {"text": "abc", "n": 1}])
    hints = reader.read(Call("/say", codec(plan.input).docs(docs)))
    assert ([0.0, 0.0, 0.0, 3.0], 0) == (hints.costs, hints.priority)


async def test_a_return_type_that_the_answer_does_not_fit_is_said_so(speaker: Deployment) -> None:
    class Other(BaseModel):
        missing: int

    with pytest.raises(ExecutorError, match="does not fit return_type"):
        await speaker.call("/say", Word(text="a"), return_type=Other)
    wrong: Any = int
    with pytest.raises(DefinitionError, match="return_type"):
        await speaker.call("/say", Word(text="a"), return_type=wrong)
