"""What a Client's `inputs` may be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from docarray import BaseDoc, DocList
from pydantic import BaseModel

from jina_asgi.clients.inputs import async_batches, batches
from jina_asgi.concurrency.loops import loop_thread
from jina_asgi.excepts import BadClientInput


class Text(BaseDoc):
    text: str


class Plain(BaseModel):
    text: str


class Better(Text):
    more: int = 0


def texts(*batch: Any) -> list[str]:
    return [doc.text for doc in batch]


async def some() -> AsyncIterator[Text]:
    for letter in "abc":
        yield Text(text=letter)


ABC = [Text(text=letter) for letter in "abc"]
FORMS: list[Any] = [ABC, tuple(ABC), DocList[Text](ABC), lambda: ABC, lambda: iter(ABC)]


@pytest.mark.parametrize("inputs", FORMS)
def test_documents_come_in_batches_however_they_are_given(inputs: Any) -> None:
    assert [["a", "b"], ["c"]] == [texts(*batch) for batch in batches(inputs, 2)]
    assert [["a", "b", "c"]] == [texts(*batch) for batch in batches(inputs, 0)]


@pytest.mark.parametrize("inputs", [*FORMS, some, lambda: some()])
async def test_an_asynchronous_client_takes_async_generators_too(inputs: Any) -> None:
    assert [["a", "b"], ["c"]] == [texts(*batch) async for batch in async_batches(inputs, 2)]


def test_one_document_is_a_request_and_so_is_none() -> None:
    assert [["x"]] == [texts(*batch) for batch in batches(Plain(text="x"), 100)]
    assert [[]] == list(batches(None, 100))
    assert [] == list(batches([], 100))


def test_a_generator_is_read_a_batch_at_a_time() -> None:
    read = []

    def letters() -> Any:
        for doc in ABC:
            read.append(doc.text)
            yield doc

    made = batches(letters(), 2)
    next(made)
    assert ["a", "b"] == read


@pytest.mark.parametrize("inputs", ["text", b"bytes", {"text": "x"}, 3, [1], [{"text": "x"}], ["x"], [None]])
def test_what_is_no_document_is_refused_by_its_type(inputs: Any) -> None:
    with pytest.raises(BadClientInput, match="expected"):
        list(batches(inputs, 2))


def test_documents_of_one_request_are_of_one_class_or_of_its_subclasses() -> None:
    assert 1 == len(list(batches([Text(text="a"), Better(text="b")], 2)))
    with pytest.raises(BadClientInput, match="expected Text, got Plain"):
        list(batches([Text(text="a"), Plain(text="b")], 2))
    assert 2 == len(list(batches([Text(text="a"), Plain(text="b")], 1)))


def test_an_async_generator_is_read_on_a_loop_batch_by_batch_and_closed() -> None:
    thread, seen = loop_thread("client"), []

    async def letters() -> AsyncIterator[Text]:
        try:
            for doc in ABC:
                seen.append(doc.text)
                yield doc
        finally:
            seen.append("closed")

    assert [2, 1] == [len(batch) for batch in batches(letters(), 2, thread)]
    made = batches(letters, 2, thread)
    seen.clear()
    next(made)
    assert ["a", "b"] == seen
    made.close()
    assert ["a", "b", "closed"] == seen


def test_an_async_generator_cannot_be_checked_before_it_is_sent() -> None:
    with pytest.raises(BadClientInput, match="as it is sent"):
        list(batches(some, 2))
