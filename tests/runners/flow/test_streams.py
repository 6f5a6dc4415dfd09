"""A generator may stand anywhere in a Flow: what comes after it runs for each of its documents."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from docarray import DocList

from jina_asgi import Context, DefinitionError, Executor, ExecutorError, Flow, InvalidDocs, requests
from tests.doubles.flows import Doc, Fail, Mark, Tokens, Wait, executor


async def streamed(flow: Flow, text: str) -> list[str]:
    return [doc.text async for doc in flow.stream("/go", Doc(text=text))]


async def test_nodes_after_a_generator_map_over_its_stream() -> None:
    async with Flow().add(uses=Mark, name="a").add(uses=Tokens, name="g").add(uses=Mark, name="b") as flow:
        assert await streamed(flow, "xy") == ["xb", "yb", "ab"]
        assert executor(flow, "b").calls == [["x"], ["y"], ["a"]]
        assert flow.endpoints["/go"].kind == "stream"


async def test_a_generator_after_a_generator_streams_for_each_of_its_documents() -> None:
    async with Flow().add(uses=Tokens).add(uses=Mark, name="m").add(uses=Tokens) as flow:
        assert await streamed(flow, "xy") == ["x", "m", "y", "m"]


async def test_a_generator_makes_no_more_than_is_asked_for() -> None:
    async with Flow().add(uses=Tokens, name="g").add(uses=Mark, name="b") as flow:
        async with aclosing(flow.stream("/go", Doc(text="xyz"))) as stream:
            assert (await anext(stream)).text == "xb"
            assert executor(flow, "g").made == 1
        assert executor(flow, "g").closed == 1


async def test_branches_below_one_generator_are_joined_document_by_document() -> None:
    flow = Flow().add(uses=Tokens, name="g").add(uses=Mark, name="b", needs="g").add(uses=Mark, name="c", needs="g")
    async with flow.needs(["b", "c"]) as flow:
        answers = [doc async for doc in flow.stream("/go", Doc(text="xy"))]
    assert [(doc.text, doc.seen) for doc in answers] == [("xc", ["b", "c"]), ("yc", ["b", "c"])]


class Letters(Executor):
    """Answers as a whole what `Tokens` streams."""

    @requests(on="/go")
    async def go(self, docs: DocList[Doc]) -> DocList[Doc]:
        return DocList[Doc](Doc(text=letter.upper(), seen=["letters"]) for letter in docs[0].text)


async def test_a_stream_is_joined_with_a_list_by_position() -> None:
    flow = Flow().add(uses=Tokens, name="g", needs="gateway").add(uses=Letters, name="l", needs="gateway")
    async with flow.needs(["g", "l"]) as flow:
        answers = [doc async for doc in flow.stream("/go", Doc(text="xy"))]
    assert [(doc.text, doc.seen) for doc in answers] == [("X", ["letters"]), ("Y", ["letters"])]


@pytest.mark.parametrize("needs", [["g", "m"], ["m", "g"]])
async def test_a_stream_longer_or_shorter_than_the_list_is_an_error_that_names_both(needs) -> None:
    flow = Flow().add(uses=Tokens, name="g", needs="gateway").add(uses=Mark, name="m", needs="gateway")
    async with flow.needs(needs, name="d") as flow:
        for text, got in (("xy", "2 or more and 1"), ("", "0 and 1")):
            with pytest.raises(ExecutorError, match=f"'d' joins .* from 'g' as from 'm', got {got}"):
                await streamed(flow, text)


def test_two_generators_in_branches_of_one_join_are_refused_when_they_are_added() -> None:
    flow = Flow().add(uses=Tokens, name="g", needs="gateway").add(uses=Tokens, name="h", needs="gateway")
    with pytest.raises(DefinitionError, match="'g' and 'h' both stream, and 'joiner' joins them"):
        flow.needs(["g", "h"])


async def test_an_error_after_a_generator_closes_it_and_names_its_node() -> None:
    async with Flow().add(uses=Tokens, name="g").add(uses=Fail, name="bad") as flow:
        with pytest.raises(ExecutorError) as raised:
            await streamed(flow, "xy")
        assert raised.value.node == "bad"
        assert executor(flow, "g").closed == 1


async def test_an_error_beside_a_generator_ends_it_at_once() -> None:
    class Endless(Tokens):
        @requests(on="/go")
        async def go(self, doc: Doc):  # type: ignore[no-untyped-def]  # as its base
            try:
                await asyncio.Event().wait()
                yield doc
            finally:
                self.closed += 1

    flow = Flow().add(uses=Endless, name="g", needs="gateway").add(uses=Fail, name="bad", needs="gateway")
    async with flow.needs(["g", "bad"]) as flow:
        with pytest.raises(ExecutorError) as raised:
            await asyncio.wait_for(streamed(flow, "xy"), 10)
        assert raised.value.node == "bad"
        assert executor(flow, "g").closed == 1


async def test_cancelling_a_stream_reaches_what_runs_after_the_generator() -> None:
    async with Flow().add(uses=Tokens, name="g").add(uses=Wait, name="w") as flow:
        task = asyncio.ensure_future(streamed(flow, "xy"))
        await executor(flow, "w").begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert executor(flow, "w").ended == ["cancelled"]
        assert executor(flow, "g").closed == 1


async def test_a_call_to_an_endpoint_that_streams_is_refused() -> None:
    async with Flow().add(uses=Tokens).add(uses=Mark) as flow:
        with pytest.raises(InvalidDocs, match="/go streams its answer"):
            await flow.call("/go", [Doc(text="x")])


async def test_a_flow_that_streams_nowhere_streams_the_answer_of_a_call() -> None:
    async with Flow().add(uses=Letters) as flow:
        assert await streamed(flow, "xy") == ["X", "Y"]


async def test_a_generator_may_float() -> None:
    async with Flow().add(uses=Mark, name="a").add(uses=Tokens, name="g", floating=True) as flow:
        context = Context()
        assert [doc.text for doc in await flow.call("/go", [Doc(text="x")], context=context)] == ["xa"]
        living: Any = executor(flow, "g")
    assert (living.made, living.closed) == (2, 1)
