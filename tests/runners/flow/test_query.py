"""The language of `when`: what it chooses, what it refuses, and that docarray chooses the same where it can."""

from __future__ import annotations

from typing import Any

import pytest
from docarray import BaseDoc, DocList
from docarray.utils.filter import filter_docs
from hypothesis import example, given
from hypothesis import strategies as st

from jina_asgi import DefinitionError
from jina_asgi.runners.flow._query import compiled


class Inner(BaseDoc):
    size: int = 0
    name: str | None = None


class Item(BaseDoc):
    text: str | None = None
    price: int = 0
    tags: dict[str, Any] = {}
    words: list[str] = []
    inner: Inner | None = None


ITEM = Item(text="a tiger", price=5, tags={"lang": "en", "n": 3}, words=["x", "y"], inner=Inner(size=2))


@pytest.mark.parametrize(
    "query",
    [
        {"price": {"$eq": 5}},
        {"price": {"$ne": 4}},
        {"price": {"$neq": 4}},
        {"price": {"$gt": 4, "$lt": 6}},
        {"price": {"$gte": 5, "$lte": 5}},
        {"tags__lang": {"$in": ["en", "de"]}},
        {"tags__lang": {"$nin": ["fr"]}},
        {"text": {"$regex": "^a t"}},
        {"tags__lang": {"$exists": True}},
        {"tags__zzz": {"$exists": False}},
        {"words": {"$size": 2}},
        {"words__1": {"$eq": "y"}},
        {"inner__size": {"$eq": 2}},
        {"$and": [{"price": {"$gt": 1}}, {"text": {"$regex": "tiger"}}]},
        {"$and": {"price": {"$gt": 1}, "text": {"$regex": "tiger"}}},
        {"$or": [{"price": {"$gt": 9}}, {"inner__size": {"$lt": 3}}]},
        {"$or": {"price": {"$gt": 9}, "inner__size": {"$lt": 3}}},
        {"$not": {"price": {"$gt": 9}}},
        {"price": {"$not": {"$gt": 9}}},
        {"price": {"$or": [{"$lt": 1}, {"$eq": 5}]}},
        {"$or": [{"price": {"$gt": 9}}, {"price": {"$lt": 9}}], "price": {"$eq": 5}},
        {"inner__size": {"$lt": "{price}"}},
        '{"price": {"$eq": 5}}',
    ],
)
def test_a_query_chooses_by_fields_operators_and_joins(query) -> None:
    assert compiled(query)(ITEM)


@pytest.mark.parametrize("operator", ["$eq", "$ne", "$lt", "$lte", "$gt", "$gte", "$in", "$nin", "$regex", "$size"])
def test_a_field_that_is_missing_matches_no_operator(operator) -> None:
    value: Any = ["x"] if operator in ("$in", "$nin") else "x" if operator == "$regex" else 1
    for field in ("tags__zzz", "zzz", "inner__zzz", "words__9", "price__0", "text__a"):
        assert not compiled({field: {operator: value}})(ITEM)


@pytest.mark.parametrize("query", [{"text": {"$lt": 3}}, {"price": {"$regex": "5"}}, {"price": {"$size": 1}}])
def test_what_cannot_be_compared_does_not_match(query) -> None:
    assert not compiled(query)(ITEM)


def test_a_dict_is_looked_at_as_a_document_is() -> None:
    assert compiled({"tags__lang": {"$eq": "en"}})({"tags": {"lang": "en"}})


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"price": {"$lessthan": 3}}, "'price' has no operator '$lessthan'; known: $eq, "),
        ({"price": {"$gtr": 3}}, "did you mean '$gt'?"),
        ({"$nor": [{"price": {"$eq": 1}}]}, "'$nor' stands where a field is expected; did you mean '$or'?"),
        ({"price": 3}, "'price': expected an operator and a value"),
        ({"price": {}}, "'price': expected an operator"),
        ({"text": {"$regex": "("}}, "'text': '(' is not a regular expression"),
        ({"text": {"$regex": 3}}, "$regex takes a regular expression, got 3"),
        ({"text": {"$in": "abc"}}, "$in takes a list, got 'abc'"),
        ({"text": {"$exists": 1}}, "$exists takes True or False"),
        ({"words": {"$size": "2"}}, "$size takes a number"),
        ({"$and": []}, "expected queries to join"),
        ({"$or": [3]}, "expected a mapping"),
        ({}, "expected a query such as"),
        ("{", "expected a query, or its JSON"),
    ],
)
def test_a_query_that_is_wrong_is_refused_when_it_is_compiled(query, message) -> None:
    with pytest.raises(DefinitionError) as raised:
        compiled(query)
    assert message in str(raised.value)


numbers = st.integers(-2, 3)
words = st.sampled_from(["", "a", "b", "ab"])
leaves = st.one_of(
    st.tuples(
        st.sampled_from(["price", "inner__size", "tags__n"]), st.sampled_from(["$lt", "$lte", "$gt", "$gte"]), numbers
    ),
    st.tuples(
        st.sampled_from(["price", "text", "tags__n", "inner__name"]), st.sampled_from(["$eq", "$neq"]), numbers | words
    ),
    st.tuples(st.sampled_from(["text", "tags__w"]), st.sampled_from(["$in", "$nin"]), st.lists(words)),
    st.tuples(st.sampled_from(["text", "tags__w"]), st.just("$regex"), words),
    st.tuples(st.sampled_from(["text", "tags__w", "inner__size"]), st.just("$exists"), st.booleans()),
    st.tuples(st.just("words"), st.just("$size"), st.integers(0, 2)),
).map(lambda leaf: {leaf[0]: {leaf[1]: leaf[2]}})
queries = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(
            lambda key, parts: {key: parts}, st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=2, max_size=3)
        ),
        inner.map(lambda query: {"$not": query}),
    ),
    max_leaves=6,
)
items = st.builds(
    Item,
    text=st.none() | words,
    price=numbers,
    tags=st.fixed_dictionaries({}, optional={"n": numbers, "w": words}),
    words=st.lists(words, max_size=2),
    inner=st.builds(Inner, size=numbers),
)


@given(queries, st.lists(items, min_size=1, max_size=4))
@example({"$not": {"$not": {"price": {"$eq": 0}}}}, [Item()])
def test_docarray_chooses_the_same(query, docs) -> None:
    chosen = filter_docs(DocList[Item](docs), query)
    predicate = compiled(query)
    assert [doc.id for doc in docs if predicate(doc)] == [doc.id for doc in chosen]


# What is otherwise here, and meant to be: docarray raises, or drops a part of the query.


def by_docarray(query: Any, doc: Item) -> bool:
    return len(filter_docs(DocList[Item]([doc]), query)) == 1


def test_a_type_that_cannot_be_compared_raises_in_docarray() -> None:
    assert not compiled({"text": {"$lt": 3}})(ITEM)
    with pytest.raises(TypeError):
        by_docarray({"text": {"$lt": 3}}, ITEM)


def test_an_index_that_is_out_of_range_raises_in_docarray() -> None:
    assert not compiled({"words__9": {"$eq": "y"}})(ITEM)
    with pytest.raises(IndexError):
        by_docarray({"words__9": {"$eq": "y"}}, ITEM)


def test_a_field_beside_an_or_is_one_of_its_alternatives_in_docarray() -> None:
    query = {"$or": [{"price": {"$eq": 5}}, {"price": {"$eq": 6}}], "text": {"$eq": "other"}}
    assert not compiled(query)(ITEM)
    assert by_docarray(query, ITEM)


def test_mongos_ne_and_a_not_within_a_field_are_unknown_to_docarray() -> None:
    for query in ({"price": {"$ne": 4}}, {"price": {"$not": {"$gt": 9}}}):
        assert compiled(query)(ITEM)
        with pytest.raises(ValueError):
            by_docarray(query, ITEM)
