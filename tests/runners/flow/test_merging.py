"""Documents between nodes: a copy is whole, and a merge is docarray's `reduce_all` where that is sane."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from docarray.utils.reduce import reduce_all
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from jina_asgi.documents.codec import codec
from jina_asgi.documents.schemas import schema_of
from jina_asgi.runners.flow.merging import converted, copy_docs, identified, merged, select
from jina_asgi.types import Docs, Schema


class Part(BaseDoc):
    name: str | None = None
    words: list[str] = []


class Whole(BaseDoc):
    text: str | None = None
    n: int = 0
    words: list[str] = []
    maybe: list[str] | None = None
    kinds: set[str] = set()
    tags: dict[str, int] = {}
    part: Part | None = None
    parts: DocList[Part] = DocList[Part]()
    vector: NdArray | None = None


def docs_of(*docs: Any) -> Docs:
    reader = codec(schema_of(type(docs[0])))
    return reader.docs(reader.wrap(list(docs)))


def plain(value: Any) -> Any:
    """A value as data; docarray's `model_dump` warns of itself."""
    if isinstance(value, BaseModel):
        return {name: plain(item) for name, item in vars(value).items()}
    if isinstance(value, list):
        return [plain(item) for item in list.__iter__(value)]
    return value.tolist() if isinstance(value, np.ndarray) else value


def test_a_copy_shares_nothing_that_can_change() -> None:
    inner = DocList[Part]([Part(id="3")])
    doc = Whole(id="1", words=["a"], tags={"k": 1}, part=Part(id="2"), parts=inner, vector=np.zeros(3))
    [twin] = copy_docs(docs_of(doc)).typed
    assert plain([twin])[0]["words"] == ["a"]
    twin.words.append("b")
    twin.tags["k"] = 2
    twin.part.name = twin.parts[0].name = "changed"
    twin.vector[0] = 1.0
    assert doc.vector is not None
    assert doc.part is not None
    assert (doc.words, doc.tags, doc.vector.tolist()) == (["a"], {"k": 1}, [0.0, 0.0, 0.0])
    assert doc.part.name is None
    assert inner[0].name is None
    assert (type(twin.parts), type(twin.vector)) == (type(doc.parts), type(doc.vector))


def test_a_document_that_stands_twice_in_another_does_so_in_the_copy() -> None:
    class Tree(BaseModel):
        below: list[Tree] = []

    leaf = Tree()
    [twin] = copy_docs(docs_of(Tree(below=[leaf, leaf]))).typed
    assert twin.below[0] is twin.below[1]
    assert twin.below[0] is not leaf


def test_a_copy_of_plain_values_is_another_document_and_of_buffers_the_same_buffers() -> None:
    class Flat(BaseDoc):
        name: str

    doc = Flat(id="1", name="x")
    [twin] = copy_docs(docs_of(doc)).typed
    assert twin is not doc
    assert (twin.id, twin.name) == ("1", "x")
    encoded = codec(schema_of(Part)).encoded([b"buffer"])
    assert copy_docs(encoded).encoded == [b"buffer"]
    assert select(codec(schema_of(Part)).encoded([b"a", b"b"]), [1]).encoded == [b"b"]


def test_extra_values_are_copied_too() -> None:
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        text: str

    doc = Open(text="x", more=["a"])  # type: ignore[call-arg]  # an extra
    [twin] = copy_docs(docs_of(doc)).typed
    twin.more.append("b")
    assert doc.more == ["a"]  # type: ignore[attr-defined]  # as above


words = st.lists(st.sampled_from("xyz"), max_size=2)
parts = st.builds(Part, id=st.sampled_from("pq"), name=st.none() | st.sampled_from("ab"), words=words)
wholes = st.builds(
    Whole,
    id=st.sampled_from("123"),
    text=st.none() | st.sampled_from("ab"),
    n=st.integers(0, 3),
    words=words,
    maybe=st.none() | words,
    kinds=st.sets(st.sampled_from("xyz")),
    tags=st.dictionaries(st.sampled_from("kl"), st.integers(0, 3)),
    part=parts,
    parts=st.lists(parts, max_size=2, unique_by=lambda part: part.id).map(DocList[Part]),
)
lists = st.lists(wholes, min_size=1, max_size=3, unique_by=lambda doc: doc.id)


@settings(deadline=None, max_examples=50)
@given(lists, lists)
def test_a_merge_is_docarrays_reduce_all(left, right) -> None:
    expected = reduce_all([DocList[Whole](copy_docs(docs_of(*docs)).typed) for docs in (left, right)])
    actual = merged([("a", docs_of(*left)), ("b", docs_of(*right))], "join").typed
    assert plain(actual) == plain(expected)


# What is otherwise here: docarray fails, or appends one document twice.


def test_a_part_that_only_one_has_is_kept() -> None:
    part = Part(id="p", name="x")
    for left, right in ((part, None), (None, part)):
        [doc] = merged([("a", docs_of(Whole(id="1", part=left))), ("b", docs_of(Whole(id="1", part=right)))], "d").typed
        assert doc.part is part


def test_a_document_that_two_later_branches_have_is_there_once() -> None:
    three = [("a", docs_of(Whole(id="1"))), ("b", docs_of(Whole(id="2", n=1))), ("c", docs_of(Whole(id="2", n=2)))]
    assert [(doc.id, doc.n) for doc in merged(three, "d").typed] == [("1", 0), ("2", 2)]
    lists = [DocList[Whole]([Whole(id="1")]), *(DocList[Whole]([Whole(id="2", n=n)]) for n in (1, 2))]
    assert len(reduce_all(lists)) == 3


def test_one_document_that_branches_share_is_not_merged_with_itself() -> None:
    shared = Whole(id="1", words=["a"])
    [doc] = merged([("a", docs_of(shared)), ("b", docs_of(shared))], "d").typed
    assert doc is shared
    assert doc.words == ["a"]


# Where classes are not at hand documents are dicts.


def as_data(model: type[BaseModel]) -> Schema:
    schema = schema_of(model)
    return Schema(schema.name, schema.documents, schema.json_schema)


def test_dicts_are_merged_by_their_plan() -> None:
    reader = codec(as_data(Whole))
    left = reader.docs([{"id": "1", "n": 1, "words": ["a"], "part": {"id": "p", "words": ["x"]}}])
    right = reader.docs([{"id": "1", "n": 2, "words": ["b"], "part": {"id": "p", "words": ["y"]}, "tags": {"k": 1}}])
    assert merged([("a", left), ("b", right)], "d").typed == [
        {"id": "1", "n": 2, "words": ["a", "b"], "part": {"id": "p", "words": ["x", "y"]}, "tags": {"k": 1}}
    ]


def test_dicts_without_an_id_get_one_where_their_class_would_give_it() -> None:
    reader = codec(as_data(Part))
    [first, second] = identified(reader.docs([{"name": "x"}, {"id": "1"}])).typed
    assert len(first["id"]) == 32
    assert (first["name"], second) == ("x", {"id": "1"})

    class Plain(BaseModel):
        text: str

    docs = codec(as_data(Plain)).docs([{"text": "x"}])
    assert identified(docs) is docs


@pytest.mark.parametrize("wanted", [codec(schema_of(Part)), codec(as_data(Part))])
def test_documents_are_the_same_objects_where_the_class_is_or_is_not_known(wanted) -> None:
    docs = docs_of(Part(id="1"))
    assert converted(docs, wanted, "a", "b") is docs
