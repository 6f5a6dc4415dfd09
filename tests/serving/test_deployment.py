"""A Deployment: its options, and calls to it with no server at all."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from docarray import BaseDoc, DocList
from pydantic import BaseModel

from jina_asgi import (
    Context,
    DefinitionError,
    Deployment,
    Executor,
    ExecutorError,
    ExecutorInputError,
    Flow,
    InvalidDocs,
    NotReady,
    Overloaded,
    ReplicaPool,
    UnknownEndpoint,
    requests,
)


class Text(BaseDoc):
    text: str


class Longer(Text):
    more: str = ""


class Options(BaseModel):
    times: int = 1


class Worker(Executor):
    living = 0

    def __init__(self, greeting: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.greeting = greeting
        Worker.living += 1

    def close(self) -> None:
        Worker.living -= 1

    @requests
    async def default(self, docs: DocList[Text]) -> DocList[Text]:
        return DocList[Text](Text(id=doc.id, text=f"default {doc.text}") for doc in docs)

    @requests(on="/times")
    def times(self, docs: DocList[Text], parameters: Options) -> DocList[Text]:
        return DocList[Text](Text(text=doc.text * parameters.times) for doc in docs)

    @requests(on="/raw")
    async def raw(self, docs: DocList[Text], parameters: dict[str, Any]) -> DocList[Text]:
        return DocList[Text]([Text(text=repr(parameters))])

    @requests(on="/dict")
    async def dict_(self, docs: DocList[Text]) -> DocList[Text]:
        return {"n": len(docs)}  # type: ignore[return-value]  # `__results__`, as in Jina

    @requests(on="/who")
    async def who(self, docs: DocList[Text], context: Context) -> DocList[Text]:
        return DocList[Text]([Text(text=f"{context.request_id} {context.identity} {dict(context.headers)}")])

    @requests(on="/facts")
    async def facts(self, docs: DocList[Text]) -> DocList[Text]:
        return DocList[Text](
            [Text(text=f"{self.greeting} {self.metas.name} {self.runtime_args.name} {self.workspace}")]
        )

    @requests(on="/fail")
    async def fail(self, docs: DocList[Text]) -> DocList[Text]:
        raise {"ours": ExecutorInputError("less"), "theirs": KeyError("x")}[docs[0].text]

    @requests(on="/forever")
    async def forever(self, docs: DocList[Text]) -> DocList[Text]:
        return await asyncio.get_running_loop().create_future()

    @requests(on="/count")
    async def count(self, doc: Text, parameters: dict[str, Any]) -> AsyncIterator[Text]:
        try:
            for index in range(parameters.get("n", 3)):
                yield Text(text=f"{doc.text}{index}")
        finally:
            Worker.closed = True

    closed = False


# Calls.


async def test_docs_go_in_and_come_out_as_objects_in_order() -> None:
    async with Deployment(Worker) as worker:
        sent = DocList[Text](Text(text=str(index)) for index in range(5))
        docs = await worker.call("/default", sent)
    assert isinstance(docs, DocList)
    assert [(doc.id, doc.text) for doc in docs] == [(doc.id, f"default {doc.text}") for doc in sent]


@pytest.mark.parametrize(
    "docs",
    [
        [Text(text="a")],
        (Text(text="a"),),
        Text(text="a"),
        DocList[Text]([Text(text="a")]),
        [{"text": "a"}],
        {"text": "a"},
        [Longer(text="a", more="b")],
        [{"text": "a", "unknown": 1}],
    ],
    ids=["list", "tuple", "one", "DocList", "list of dicts", "dict", "subclass", "dict with more"],
)
async def test_docs_may_be_given_in_any_of_these_ways(docs) -> None:
    async with Deployment(Worker) as worker:
        assert [doc.text for doc in await worker.call("/default", docs)] == ["default a"]


@pytest.mark.parametrize("docs", [[{"txt": "a"}], ["a"], [5], None, 5, [Text(text="a"), {"txt": "b"}]])
async def test_docs_of_another_kind_are_refused_with_their_place(docs) -> None:
    async with Deployment(Worker) as worker:
        with pytest.raises(InvalidDocs) as raised:
            await worker.call("/default", docs)
    assert raised.value.errors[0]["loc"][0] == (1 if isinstance(docs, list) and len(docs) == 2 else 0)


@pytest.mark.parametrize("name", ["/times", "times", "times/"])
async def test_an_endpoint_may_be_named_without_its_slash(name) -> None:
    async with Deployment(Worker) as worker:
        assert [doc.text for doc in await worker.call(name, [Text(text="a")], {"times": 2})] == ["aa"]


@pytest.mark.parametrize("name", ["/", "", "/unknown", "/times/x"])
async def test_whatever_else_is_named_goes_to_the_default(name) -> None:
    async with Deployment(Worker) as worker:
        assert (await worker.call(name, Text(text="a")))[0].text == "default a"


async def test_without_a_default_an_unknown_endpoint_is_an_error_that_lists_those_there_are() -> None:
    class Only(Executor):
        @requests(on="/only")
        async def only(self, docs: DocList[Text]) -> DocList[Text]:
            return docs

    async with Deployment(Only) as only:
        with pytest.raises(UnknownEndpoint, match="/only"):
            await only.call("/nope", Text(text="a"))


@pytest.mark.parametrize("parameters", [None, {}, {"a": 1.0, "b": 1.5}])
async def test_parameters_are_a_dict_with_whole_numbers_as_ints(parameters) -> None:
    async with Deployment(Worker) as worker:
        (doc,) = await worker.call("/raw", Text(text=""), parameters)
    assert doc.text == repr({"a": 1, "b": 1.5} if parameters else {})


async def test_run_gives_results_and_the_trail_as_well() -> None:
    async with Deployment(Worker, name="node") as worker:
        result = await worker.run("/dict", [Text(text="a"), Text(text="b")])
    assert [doc.text for doc in result.docs.typed] == ["a", "b"]
    assert result.results == {"node/rep-0": {"n": 2}}
    assert [step.name for step in result.trail] == ["node"]


async def test_a_context_of_the_callers_own_reaches_the_executor() -> None:
    async with Deployment(Worker) as worker:
        context = Context("id-1", headers={"x": "y"}, identity="ann")
        (doc,) = await worker.call("/who", Text(text=""), context=context)
    assert doc.text == "id-1 ann {'x': 'y'}"


async def test_errors_come_as_they_are() -> None:
    async with Deployment(Worker) as worker:
        with pytest.raises(ExecutorInputError, match="less"):
            await worker.call("/fail", Text(text="ours"))
        with pytest.raises(ExecutorError) as raised:
            await worker.call("/fail", Text(text="theirs"))
    assert isinstance(raised.value.__cause__, KeyError)
    assert (raised.value.executor, raised.value.endpoint) == ("Worker", "/fail")


async def test_a_stream_gives_one_document_after_another() -> None:
    async with Deployment(Worker) as worker:
        assert [doc.text async for doc in worker.stream("/count", Text(text="a"), {"n": 2})] == ["a0", "a1"]


async def test_a_stream_that_is_closed_early_closes_what_the_user_wrote() -> None:
    Worker.closed = False
    async with Deployment(Worker) as worker:
        async with aclosing(worker.stream("/count", {"text": "a"})) as steps:
            assert (await anext(steps)).text == "a0"
        assert Worker.closed


async def test_a_stream_may_be_asked_of_any_endpoint_and_a_call_not_of_a_stream() -> None:
    async with Deployment(Worker) as worker:
        assert [doc.text async for doc in worker.stream("/default", Text(text="a"))] == ["default a"]
        with pytest.raises(InvalidDocs, match="streams its answer"):
            await worker.call("/count", Text(text="a"))


# Life.


async def test_calls_outside_of_its_life_are_refused() -> None:
    worker = Deployment(Worker)
    for _ in range(2):
        with pytest.raises(NotReady):
            await worker.call("/default", Text(text="a"))
        with pytest.raises(NotReady):
            await anext(worker.stream("/count", Text(text="a")))
        async with worker:
            assert Worker.living == 1
            await worker.call("/default", Text(text="a"))
        assert Worker.living == 0


@pytest.mark.parametrize(
    "source",
    [
        Deployment(Worker),
        Deployment(Worker, shards=2),
        Deployment(Worker, uses_dynamic_batching={"/default": {"preferred_batch_size": 2}}),
        Deployment(Worker, external=True, host="http://127.0.0.1:1"),
        Flow().add(uses=Worker),
        pytest.param(ReplicaPool(Worker), marks=pytest.mark.skipif(sys.platform != "linux", reason="for Linux")),
    ],
    ids=["one", "shards", "batched", "external", "flow", "replicas"],
)
async def test_a_call_to_one_that_was_never_started_says_so(source: Deployment | Flow) -> None:
    if source.settings.host == "127.0.0.1":  # what is external is not known before
        with pytest.raises(NotReady, match="was never started"):
            await source.call("/default", Text(text="a"))
    with pytest.raises(NotReady, match="was never started"):
        source.runner.admit("/default")


async def test_entering_a_living_one_shares_its_life() -> None:
    worker = Deployment(Worker)
    async with worker.lifespan():
        async with worker.lifespan():
            assert Worker.living == 1
        assert Worker.living == 1
        await worker.call("/default", Text(text="a"))
    assert Worker.living == 0


async def test_those_who_share_may_leave_in_any_order_and_from_any_task() -> None:
    worker, leave = Deployment(Worker), [asyncio.Event() for _ in range(3)]
    inside = asyncio.Semaphore(0)

    async def user(event: asyncio.Event) -> None:
        async with worker.lifespan():
            inside.release()
            await event.wait()

    async with asyncio.TaskGroup() as users:
        tasks = [users.create_task(user(event)) for event in leave]
        for _ in leave:
            await inside.acquire()
        for index in (1, 0):
            leave[index].set()
            await tasks[index]
            assert Worker.living == 1
            await worker.call("/default", Text(text="a"))
        leave[2].set()
    assert Worker.living == 0


async def test_one_that_lives_on_another_loop_is_not_shared() -> None:
    worker = Deployment(Worker)

    async def enter() -> None:
        async with worker:
            pass

    async with worker:
        with pytest.raises(DefinitionError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, enter())


async def test_one_that_failed_to_load_may_be_tried_again() -> None:
    class Flaky(Executor):
        tries = 0

        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            Flaky.tries += 1
            if Flaky.tries == 1:
                raise OSError("not yet")

        @requests
        async def default(self, docs: DocList[Text]) -> DocList[Text]:
            return docs

    flaky = Deployment(Flaky)
    with pytest.raises(OSError, match="not yet"):
        async with flaky:
            pass
    async with flaky:
        await flaky.call("/", Text(text="a"))


async def test_it_works_on_one_loop_after_another() -> None:
    worker = Deployment(Worker)

    async def once() -> str:
        async with worker:
            return (await worker.call("/", Text(text="a")))[0].text

    assert [await asyncio.to_thread(asyncio.run, once()) for _ in range(2)] == ["default a"] * 2


# Options.


async def test_what_is_passed_to_the_executor(tmp_path) -> None:
    options: dict[str, Any] = {
        "uses_with": {"greeting": "hello"},
        "uses_metas": {"name": "meta"},
        "workspace": str(tmp_path),
    }
    async with Deployment(Worker, name="node", **options) as worker:
        (doc,) = await worker.call("/facts", Text(text=""))
    assert doc.text == f"hello meta node {tmp_path / 'meta'}"


async def test_uses_requests_moves_a_method_to_another_endpoint() -> None:
    async with Deployment(Worker, uses_requests={"/twice": "times"}) as worker:
        assert "/times" not in worker.endpoints
        assert (await worker.call("/twice", Text(text="a"), {"times": 2}))[0].text == "aa"


def test_idempotent_covers_every_endpoint() -> None:
    assert all(endpoint.idempotent for endpoint in Deployment(Worker, idempotent=True).endpoints.values())
    assert not any(endpoint.idempotent for endpoint in Deployment(Worker).endpoints.values())


async def test_max_queue_bounds_what_waits_and_runs() -> None:
    async with Deployment(Worker, max_queue=2, grace=0) as worker:
        calls = [asyncio.create_task(worker.call("/forever", Text(text=""))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as raised:
            await worker.call("/default", Text(text="a"))
        assert raised.value.retry_after > 0
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        await worker.call("/default", Text(text="a"))


@pytest.mark.parametrize("path", ["Nobody", "", "a..B", "a.b.", "a b.C"])
def test_a_path_that_names_no_class_is_refused(path: str) -> None:
    with pytest.raises(DefinitionError, match="expected an import path such as"):
        Deployment(path)


@pytest.mark.parametrize("uses", [None, object(), Text, 5])
def test_something_else_than_an_executor_class_is_refused(uses) -> None:
    with pytest.raises(DefinitionError, match="expected a class derived from"):
        Deployment(uses)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"nam": "x"}, "Deployment has no option 'nam'; did you mean 'name'?"),
        ({"use_with": {}}, "did you mean 'uses_with'?"),
        ({"zzz": 1}, "no option 'zzz'; known: host, port"),
        ({"name": "a b"}, "'name'"),
        ({"name": "../x"}, "'name'"),
        ({"name": ""}, "'name'"),
        ({"max_queue": 0}, "'max_queue'"),
        ({"max_queue": "many"}, "'max_queue'"),
        ({"grace": -1}, "'grace'"),
        ({"allow_concurrent": -1}, "'allow_concurrent'"),
        ({"allow_concurrent": "x"}, "'allow_concurrent'"),
        ({"uses_with": 5}, "'uses_with'"),
        ({"uses_requests": {"/x": "nope"}}, "nope"),
        ({"uses_requests": {"/-/x": "times"}}, "reserved"),
    ],
)
def test_an_option_that_does_not_exist_or_fit_is_refused_by_name(option, message) -> None:
    with pytest.raises(DefinitionError) as raised:
        Deployment(Worker, **option)
    assert message in str(raised.value)


def test_what_is_passed_to_the_executor_is_not_shown() -> None:
    worker = Deployment(Worker, uses_with={"token": "SECRET"})
    assert "SECRET" not in repr(worker) + repr(worker.settings)


def test_a_pool_says_that_it_needs_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")  # another system cannot be injected
    with pytest.raises(DefinitionError, match="replicas need Linux"):
        Deployment("package.module.Class", replicas=2)
    Deployment(Worker, replicas=2, placement="worker")
