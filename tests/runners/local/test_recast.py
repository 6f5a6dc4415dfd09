"""Answers of another class than the one that is annotated: their fields are read, where they are those of that class."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.documents.legacy import LegacyDocument as Legacy
from docarray.typing import NdArray
from pydantic import BaseModel, create_model

from jina_asgi import Deployment, Executor, ExecutorError, requests
from jina_asgi.documents.codec import codec_of
from jina_asgi.documents.return_type import refitted
from jina_asgi.errors import InvalidDocs


class Given(BaseDoc):
    text: str
    more: int = 1
    vector: NdArray | None = None  # type: ignore[type-arg]  # of any shape


class Wanted(BaseDoc):
    text: str
    vector: NdArray | None = None  # type: ignore[type-arg]  # of any shape
    only: str = "its own"


class Stricter(Wanted):
    needed: int


class Other(BaseDoc):
    different: str = ""


class Answering(Executor):
    @requests(on="/legacy")
    def legacy(self, docs, **kwargs):  # type: ignore[no-untyped-def]  # none are annotated
        inner = DocList[Legacy]([Legacy(text="inner")])
        return DocList[Legacy]([Legacy(text="a", tags={"b": 1}, embedding=np.ones(2), chunks=inner)])

    @requests(on="/in_place")
    def in_place(self, docs: DocList[Given], **kwargs: Any) -> DocList[Wanted]:
        for doc in docs:
            doc.text, doc.vector = "changed", NdArray._docarray_from_native(np.arange(2.0))
        return None  # type: ignore[return-value]  # what it was given

    @requests(on="/mixed")
    async def mixed(self, docs: DocList[Given], **kwargs: Any) -> DocList[Wanted]:
        return [Wanted(text="right"), *docs]  # type: ignore[return-value]  # of two classes

    @requests(on="/single")
    def single(self, doc: Given, **kwargs: Any) -> Wanted:
        return doc  # type: ignore[return-value]  # of another class

    @requests(on="/stream")
    async def stream(self, doc: Given, **kwargs: Any) -> AsyncIterator[Wanted]:
        yield doc  # type: ignore[misc]  # of another class

    @requests(on="/lacking")
    def lacking(self, docs: DocList[Given], **kwargs: Any) -> DocList[Stricter]:
        return docs  # type: ignore[return-value]  # of another class

    @requests(on="/unlike")
    def unlike(self, docs: DocList[Given], **kwargs: Any) -> DocList[Wanted]:
        return DocList[Other]([Other()])  # type: ignore[return-value]  # of another class


@pytest.fixture(scope="module", params=["grpc", "http"])
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    with Deployment(Answering, protocol=request.param, quiet=True) as deployment:
        yield deployment.client


def test_an_unannotated_endpoint_answers_docarrays_own_legacy_documents(client: Any) -> None:
    [doc] = client.post("/legacy", Given(text=""), return_type=DocList[Legacy])
    assert ("a", {"b": 1}, [1.0, 1.0], "inner") == (doc.text, doc.tags, doc.embedding.tolist(), doc.chunks[0].text)


def test_what_is_changed_in_place_is_answered_as_the_class_that_is_annotated(client: Any) -> None:
    given = DocList[Given]([Given(text="a"), Given(text="b")])
    docs = client.post("/in_place", given, return_type=DocList[Wanted])
    assert [doc.id for doc in given] == [doc.id for doc in docs]
    assert [("changed", [0.0, 1.0], "its own")] * 2 == [(doc.text, doc.vector.tolist(), doc.only) for doc in docs]


@pytest.mark.parametrize(("on", "texts"), [("/mixed", ["right", "a"]), ("/single", ["a"])])
def test_each_document_is_read_by_itself(client: Any, on: str, texts: list[str]) -> None:
    assert texts == client.post(on, Given(text="a"), return_type=DocList[Wanted]).text


def test_a_streams_documents_are_read_too(client: Any) -> None:
    assert ["a"] == [doc.text for doc in client.stream_doc("/stream", Given(text="a"), return_type=Wanted)]


@pytest.mark.parametrize(
    ("on", "said"),
    [
        ("/lacking", "with a Given in it; expected documents of Stricter: needed: not in Given as Stricter has it"),
        ("/unlike", "with an Other in it; expected documents of Wanted: no field of Other is one of Wanted"),
    ],
)
async def test_fields_that_do_not_fit_are_an_error_that_names_them(on: str, said: str) -> None:
    async with Deployment(Answering) as deployment:
        with pytest.raises(ExecutorError, match=f"returned a list {said}"):
            await deployment.call(on, [Given(text="a")])


@pytest.mark.parametrize("seed", range(20))
def test_a_document_fits_where_every_needed_field_is_there_and_one_is_shared(seed: int) -> None:
    rng = random.Random(seed)
    names = ["id", "a", "b", "c", "d"]
    given = rng.sample(names, rng.randint(1, 5))
    wanted = rng.sample(names, rng.randint(1, 5))
    needed = set(rng.sample(wanted, rng.randint(0, len(wanted))))
    fields: dict[str, Any] = {name: (str, ... if name in needed else "left out") for name in wanted}
    giving: dict[str, Any] = dict.fromkeys(given, (str, ...))
    model: type[BaseModel] = create_model("Taken", **fields)
    doc = create_model("Made", **giving)(**{name: f"{name} of it" for name in given})
    shared = set(given) & set(wanted)
    if needed <= shared and (shared - {"id"} or not set(wanted) - {"id"}):
        made = {name: f"{name} of it" if name in shared else "left out" for name in wanted}
        assert model(**made) == refitted(doc, codec_of(model))
    else:
        with pytest.raises(InvalidDocs, match="Made"):
            refitted(doc, codec_of(model))
