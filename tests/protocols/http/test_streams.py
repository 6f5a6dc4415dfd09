"""Streams over HTTP: asked for in three ways, framed so that no text breaks out of its event, ended truly."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from docarray import BaseDoc, DocList
from pydantic import BaseModel, Field

from jina_asgi import Executor, ExecutorInputError, JinaASGI, Limits, Overloaded, requests
from jina_asgi.documents.msgpack import pack
from jina_asgi.testing import Event, client, events


class Text(BaseModel):
    text: str


class Query(BaseModel):
    text: str
    n: int = 2
    share: float = 0.5
    loud: bool = False
    words: list[str] = []


class Anything(BaseModel):
    value: Any = None


class Streams(Executor):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.closed = asyncio.Event()

    @requests(on="/count")
    async def count(self, doc: Query, parameters: dict[str, Any]) -> AsyncGenerator[Text, None]:
        for index in range(doc.n):
            text = f"{doc.text}{index}"
            yield Text(text=text.upper() if doc.loud or parameters.get("loud") else text)

    @requests(on="/sync")
    def sync(self, doc: Query) -> Generator[Text, None, None]:
        for index in range(doc.n):
            yield Text(text=f"{doc.text}{index}")

    @requests(on="/words")
    async def words(self, doc: Query) -> AsyncGenerator[Text, None]:
        for word in doc.words:
            yield Text(text=word)

    @requests(on="/say")
    async def say(self, doc: Text) -> AsyncGenerator[Text, None]:
        yield doc

    @requests(on="/fail")
    async def fail(self, doc: Query) -> AsyncGenerator[Text, None]:
        for index in range(doc.n):
            yield Text(text=str(index))
        if doc.text == "busy":
            raise Overloaded("no room", retry_after=2)
        if doc.text == "input":
            raise ExecutorInputError("ask for less")
        raise ValueError("pw=SECRET")

    @requests(on="/odd")
    async def odd(self, doc: Text) -> AsyncGenerator[Anything, None]:
        yield Anything(value=0)
        yield Anything(value={"nan": math.nan, "lock": asyncio.Lock(), "surrogate": "\ud800"}[doc.text])

    @requests(on="/wait")
    async def wait(self, doc: Text) -> AsyncGenerator[Text, None]:
        try:
            yield doc
            await asyncio.get_running_loop().create_future()
        finally:
            self.closed.set()

    @requests(on="/closed")
    async def has_closed(self, docs: list[Text]) -> list[Text]:
        await self.closed.wait()
        return docs


@pytest_asyncio.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with client(JinaASGI(Streams, wait_ready=True)) as http:
        yield http


async def read(http: httpx.AsyncClient, method: str, path: str, **request: Any) -> list[Event]:
    async with http.stream(method, path, **request) as response:
        assert (response.status_code, response.headers["content-type"][:17]) == (200, "text/event-stream")
        return [event async for event in events(response)]


def texts(found: list[Event]) -> list[str]:
    assert [event.name for event in found] == ["update"] * (len(found) - 1) + ["end"]
    return [event.data["text"] for event in found[:-1]]


@pytest.mark.parametrize("path", ["/count", "/sync"])
@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("GET", {"params": {"text": "a"}}),
        ("GET", {"json": {"text": "a"}}),
        ("POST", {"json": {"data": {"text": "a"}}}),
        ("POST", {"json": {"data": [{"text": "a"}]}}),
        ("POST", {"content": pack({"data": {"text": "a"}}), "headers": {"content-type": "application/msgpack"}}),
    ],
    ids=["query", "JSON body of a GET", "POST", "POST of a list of one", "msgpack"],
)
async def test_a_stream_is_asked_for_in_any_of_these_ways(http, path, method, request_) -> None:
    assert texts(await read(http, method, path, **request_)) == ["a0", "a1"]


async def test_a_post_through_post_streams_too(http) -> None:
    sent = {"data": {"text": "a"}, "exec_endpoint": "/count", "parameters": {"loud": True}}
    assert texts(await read(http, "POST", "/post", json=sent)) == ["A0", "A1"]


async def test_a_query_string_holds_fields_of_any_scalar_type(http) -> None:
    query = {"text": "a", "n": "1", "share": "0.25", "loud": "true"}
    assert texts(await read(http, "GET", "/count", params=query)) == ["A0"]


@pytest.mark.parametrize("words", [["one"], ["one", "two"], []])
async def test_a_list_in_a_query_string_is_a_field_said_once_or_more(http, words) -> None:
    assert texts(await read(http, "GET", "/words", params={"text": "", "words": words})) == words


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 422),
        ("n=2", 422),
        ("text=a&n=x", 422),
        ("text=a&text=b", 422),
        ("text=%ff", 200),
        ("&".join(["text=a"] * 2000), 400),
    ],
)
async def test_a_query_that_is_no_document_is_the_clients_fault(http, query, status) -> None:
    answer = await http.get(f"/count?{query}")
    assert answer.status_code == status
    if status == 422:
        assert answer.json()["detail"][0]["loc"][0] == "query"


@pytest.mark.parametrize("docs", [[], [{"text": "a"}, {"text": "b"}]])
async def test_a_stream_answers_one_document(http, docs) -> None:
    assert (await http.post("/count", json={"data": docs})).status_code == 422


async def test_an_error_before_the_first_event_has_a_status(http) -> None:
    for text, status, name in [
        ("x", 500, "ExecutorError"),
        ("input", 422, "ExecutorInputError"),
        ("busy", 503, "Overloaded"),
    ]:
        answer = await http.get("/fail", params={"text": text, "n": 0})
        assert (answer.status_code, answer.json()["error"]["type"]) == (status, name)
        assert ("retry-after" in answer.headers) == (status == 503)


@pytest.mark.parametrize(
    ("text", "detail", "name"),
    [("input", "ask for less", "ExecutorInputError"), ("busy", "no room", "Overloaded"), ("x", None, "ExecutorError")],
)
async def test_an_error_after_it_is_an_event_and_no_end_follows(http, text, detail, name) -> None:
    *_, last = found = await read(http, "GET", "/fail", params={"text": text, "n": 2})
    assert [event.name for event in found] == ["update", "update", "error"]
    assert last.data["error"]["type"] == name
    assert last.data["detail"] == (detail or last.data["detail"])
    assert "SECRET" not in json.dumps(last.data)


async def test_a_deadline_within_a_stream_ends_it_by_an_error(http) -> None:
    found = await read(http, "GET", "/wait", params={"text": "a"}, headers={"x-request-timeout": "0.05"})
    assert [event.name for event in found] == ["update", "error"]
    assert found[-1].data["error"]["type"] == "DeadlineExceeded"


HOSTILE = [
    "\n", "\r", "\r\n", "\n\n", "\r\n\r\n", "\n\ndata: x\n\n", "\r\rdata: x\r\r", "event: admin", "\r\nevent: admin\r\n",
    "event: end\r\n\r\n", "id: 1\nretry: 1", ": comment", "\u2028", "\u2029", "\x85", "\x0b\x0c\x1c", "\0", "\x1b[31m",
    "\ufeff", "a" * 2**20, "日本語🙂", '"', "\\", "\\n", "", " ", "<script>", "data: ",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=[ascii(text)[:30] for text in HOSTILE])
async def test_no_text_breaks_out_of_its_event(http, text) -> None:
    assert texts(await read(http, "POST", "/say", json={"data": {"text": text}})) == [text]


async def test_one_character_in_several_chunks_is_still_one(http) -> None:
    class Bytewise(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for byte in 'event: update\r\ndata: {"text":"é🙂\u2028"}\r\n\r\nevent: end\r\n\r\n'.encode():
                yield bytes([byte])

    found = [event async for event in events(httpx.Response(200, stream=Bytewise()))]
    assert found == [Event("update", {"text": "é🙂\u2028"}), Event("end", None)]


async def test_a_client_that_leaves_closes_what_the_user_wrote(http) -> None:
    async with http.stream("GET", "/wait", params={"text": "a"}) as response:
        async for event in events(response):
            assert event.data == {"text": "a"}
            break
    async with asyncio.timeout(5):
        await http.post("/closed", json={"data": []})


async def test_a_number_that_json_has_not_is_null_in_a_stream(http) -> None:
    found = await read(http, "GET", "/odd", params={"text": "nan"})
    assert [event.data for event in found] == [{"value": 0}, {"value": None}, None]


@pytest.mark.parametrize("text", ["lock", "surrogate"])
async def test_a_document_that_cannot_be_written_ends_its_stream_as_the_executors_failure(http, text, caplog) -> None:
    found = await read(http, "POST", "/odd", json={"data": {"text": text}})
    assert [event.name for event in found] == ["update", "error"]
    assert found[-1].data["error"]["type"] == "ExecutorError"
    assert found[-1].data["error"]["id"] in caplog.text


async def test_a_quiet_stream_gets_heartbeats_that_readers_skip() -> None:
    async with client(JinaASGI(Streams, limits=Limits(stream_idle=0.01))) as http:
        async with http.stream("GET", "/wait", params={"text": "a"}) as response:
            chunks = response.aiter_raw()
            assert [await anext(chunks) for _ in range(3)][1:] == [b": ping\r\n\r\n"] * 2


# Answers that are no streams, and are unusual.


class Odd(Executor):
    @requests(on="/nan")
    async def nan(self, docs: list[Anything]) -> list[Anything]:
        return [Anything(value=[math.nan, math.inf, -math.inf])]

    @requests(on="/lock")
    async def lock(self, docs: list[Anything]) -> list[Anything]:
        return [Anything(value=asyncio.Lock())]

    @requests(on="/surrogate")
    async def surrogate(self, docs: list[Anything]) -> list[Anything]:
        return [Anything(value="\ud800")]

    @requests(on="/large")
    async def large(self, docs: list[Anything]) -> list[Anything]:
        return [Anything(value=2**70)]

    @requests(on="/circle")
    async def circle(self, docs: list[Anything]) -> list[Anything]:
        value: list[Any] = []
        value.append(value)
        return [Anything(value=value)]

    @requests(on="/dict")
    def dict_(self, docs: list[Anything]) -> list[Anything]:
        return {"n": 1, "deep": {"x": [1.5, None]}}  # type: ignore[return-value]  # `__results__`, as in Jina

    @requests(on="/dict_lock")
    def dict_lock(self, docs: list[Anything]) -> list[Anything]:
        return {"lock": asyncio.Lock()}  # type: ignore[return-value]


MEDIA = {"application/json": lambda body: json.dumps(body).encode(), "application/msgpack": pack}


@pytest.mark.parametrize("media", MEDIA)
@pytest.mark.parametrize("path", ["/lock", "/circle", "/dict_lock", "/surrogate", "/large"])
async def test_what_cannot_be_written_is_the_executors_failure_and_not_the_clients(path, media, caplog) -> None:
    async with client(JinaASGI(Odd)) as http:
        raw = MEDIA[media]({"data": [{}]})
        answer = await http.post(path, content=raw, headers={"content-type": media})
    if answer.status_code == 200:  # what one form has and the other has not
        assert (path, media) in {("/large", "application/json")}
        return
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "ExecutorError")
    assert answer.json()["error"]["id"] in caplog.text


async def test_nan_and_infinity_are_null_in_json() -> None:
    async with client(JinaASGI(Odd)) as http:
        assert (await http.post("/nan", json={"data": [{}]})).json()["data"] == [{"value": [None, None, None]}]


async def test_a_dict_stands_beside_the_docs_under_the_name_of_its_node() -> None:
    async with client(JinaASGI(Odd)) as http:
        answer = (await http.post("/dict", json={"data": [{"value": 1}], "parameters": {"p": 1}})).json()
    assert answer["data"] == [{"value": 1}]
    assert answer["parameters"] == {"p": 1, "__results__": {"executor/rep-0": {"n": 1, "deep": {"x": [1.5, None]}}}}


async def test_the_fields_of_a_document_come_as_its_class_writes_them() -> None:
    class Priced(BaseDoc):
        price: float = Field(alias="Price")

    class Shop(Executor):
        @requests(on="/x")
        async def x(self, docs: DocList[Priced]) -> DocList[Priced]:
            return docs

    async with client(JinaASGI(Shop)) as http:
        answer = await http.post("/x", json={"data": [{"id": "1", "Price": 1.5}]})
    assert answer.json()["data"] == [{"id": "1", "Price": 1.5}]
