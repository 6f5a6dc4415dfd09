"""HTTP: what is refused and how, what comes back in which form, and how long a client waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
import pytest_asyncio
from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from pydantic import BaseModel

from jina_asgi import Context, Deployment, Executor, JinaASGI, Limits, Overloaded, ReplicaDied, requests
from jina_asgi.documents.msgpack import pack, unpack
from jina_asgi.testing import client

JSON, MSGPACK = "application/json", "application/msgpack"


class Text(BaseModel):
    text: str


class Vector(BaseDoc):
    vector: NdArray


class Echo(Executor):
    """Answers what it is asked, in each kind of endpoint."""

    @requests(on="/echo")
    async def echo(self, docs: list[Text]) -> list[Text]:
        return docs

    @requests(on="/double")
    async def double(self, docs: DocList[Vector]) -> DocList[Vector]:
        for doc in docs:
            doc.vector = doc.vector * 2  # type: ignore[assignment]
        return docs

    @requests(on="/forever")
    async def forever(self, docs: list[Text]) -> list[Text]:
        return await asyncio.get_running_loop().create_future()

    @requests(on="/context")
    async def context(self, docs: list[Text], context: Context) -> list[Text]:
        facts = {
            "request_id": context.request_id,
            "x-one": context.headers.get("x-one"),
            "identity": str(context.identity),
            "deadline": context.deadline is not None,
        }
        return [Text(text=json.dumps(facts))]

    @requests(on="/stream")
    async def stream(self, doc: Text, parameters: dict[str, Any]) -> AsyncGenerator[Text, None]:
        for index in range(parameters.get("n", 2)):
            yield Text(text=f"{doc.text}{index}")


LIMITS = Limits(body=4096, docs=10, depth=8)
HI = {"data": [{"text": "hi"}]}
HI_JSON = json.dumps(HI).encode()


@pytest_asyncio.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with client(JinaASGI(Echo, limits=LIMITS, wait_ready=True)) as http:
        yield http


def told(answer: httpx.Response) -> tuple[int, str]:
    """The status of a refusal, and its type; every refusal has the same shape."""
    body = answer.json()
    assert body.keys() == {"detail", "error"}
    assert body["error"].keys() == {"type", "id", "retriable"}
    return answer.status_code, body["error"]["type"]


# Content types.


@pytest.mark.parametrize("path", ["/echo", "/double", "/stream", "/post"])
@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/python-pickle",
        "application/jsonp",
        "application/json; charset=utf-16",
        "application/xml",
    ],
)
async def test_json_under_any_other_content_type_is_415(http, path, content_type) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    assert told(await http.post(path, content=HI_JSON, headers=headers)) == (415, "UnsupportedMedia")


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=UTF-8", "Application/JSON", ' application/json;charset="utf-8"']
)
async def test_json_may_be_spelt_as_http_allows(http, content_type) -> None:
    answer = await http.post("/echo", content=HI_JSON, headers={"content-type": content_type})
    assert answer.json()["data"] == HI["data"]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "gzip, gzip", "zstd", "x"])
async def test_an_encoded_body_is_415_and_never_inflated(http, coding) -> None:
    headers = {"content-type": JSON, "content-encoding": coding}
    assert told(await http.post("/echo", content=HI_JSON, headers=headers)) == (415, "UnsupportedMedia")


# Bodies that are none.


@pytest.mark.parametrize("path", ["/echo", "/double", "/stream", "/post"])
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"data": [{"text": "hi"}]} trailing',
        b'{"data": [{"text": NaN}]}',
        b'{"data": [{"text": "\xff"}]}',
        '{"data": [{"text": "hi"}]}'.encode("utf-16"),
        b"\xef\xbb\xbf" + HI_JSON,
        b'{"data": [{"text": "\\ud800"}]}',
        b"[" * 100_000,
    ],
    ids=["empty", "cut off", "nonsense", "trailing", "NaN", "not UTF-8", "UTF-16", "BOM", "surrogate", "deep"],
)
async def test_what_is_no_json_is_400(path, raw) -> None:
    async with client(JinaASGI(Echo)) as http:
        answer = await http.post(path, content=raw, headers={"content-type": JSON})
    assert told(answer) == (400, "InvalidRequest")


@pytest.mark.parametrize("body", [[], 1, "text", None, {}, {"docs": []}, {"data": 1}, {"data": None}, {"data": [1]}])
@pytest.mark.parametrize("path", ["/echo", "/double", "/stream"])
async def test_json_of_another_form_is_422_with_fastapis_list(http, path, body) -> None:
    answer = await http.post(path, content=json.dumps(body), headers={"content-type": JSON})
    assert told(answer) == (422, "InvalidDocs")
    for entry in answer.json()["detail"]:
        assert entry["loc"][0] == "body"
        assert entry.keys() >= {"type", "loc", "msg"}


@pytest.mark.parametrize("parameters", [[], "x", 5])
async def test_parameters_that_are_no_object_are_422(http, parameters) -> None:
    answer = await http.post("/echo", json={**HI, "parameters": parameters})
    assert answer.json()["detail"][0]["loc"][:2] == ["body", "parameters"]


async def test_unknown_keys_are_ignored(http) -> None:
    answer = await http.post("/echo", json={**HI, "exec_endpoint": "/x", "__class__": 1, "self": 2})
    assert answer.status_code == 200


# Limits.


async def chunks(size: int, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b" " * size


@pytest.mark.parametrize("path", ["/echo", "/stream", "/post"])
async def test_a_body_that_declares_too_much_is_413_before_it_is_read(path) -> None:
    async def receive() -> Any:
        raise AssertionError("the body was read")

    app, sent = JinaASGI(Echo, limits=LIMITS), []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"content-length", b"4097")]
    async with app.lifespan():
        await app(
            {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}, receive, send
        )
    assert sent[0]["status"] == 413


@pytest.mark.parametrize("path", ["/echo", "/stream", "/post"])
async def test_a_body_that_declares_nothing_is_413_once_it_is_too_large(http, path) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1024
            yield b" " * 1024

    answer = await http.post(path, content=endless(), headers={"content-type": JSON})
    assert told(answer) == (413, "TooLarge")
    assert read <= LIMITS.body + 2 * 1024


async def test_a_body_that_is_larger_than_it_declares_is_413_by_what_it_is(http) -> None:
    headers = {"content-type": JSON, "content-length": "10"}
    assert told(await http.post("/echo", content=chunks(1024, 5), headers=headers)) == (413, "TooLarge")


async def test_a_body_of_just_the_limit_is_read(http) -> None:
    answer = await http.post("/echo", content=HI_JSON.ljust(LIMITS.body), headers={"content-type": JSON})
    assert answer.status_code == 200


@pytest.mark.parametrize("declared", ["-1", "+5", "0x5", "5,5", "", "1e3", "٣".encode(), "5" * 5000, "0" * 5000])
async def test_a_length_that_is_no_number_is_400(http, declared) -> None:
    headers = {"content-type": JSON, "content-length": declared}
    assert told(await http.post("/echo", content=chunks(1, 1), headers=headers)) == (400, "InvalidRequest")


@pytest.mark.parametrize("media", [JSON, MSGPACK])
@pytest.mark.parametrize("path", ["/echo", "/double"])
async def test_more_docs_than_the_limit_are_413(http, path, media) -> None:
    field = {"/echo": {"text": ""}, "/double": {"vector": [1.0]}}[path]
    for count, status in [(LIMITS.docs, 200), (LIMITS.docs + 1, 413)]:
        body = {"data": [field] * count}
        raw = json.dumps(body).encode() if media == JSON else pack(body)
        answer = await http.post(path, content=raw, headers={"content-type": media})
        assert answer.status_code == status


async def test_columns_count_as_docs(http) -> None:
    raw = pack({"data": {"columns": {"vector": np.zeros((LIMITS.docs + 1, 1))}}})
    answer = await http.post("/double", content=raw, headers={"content-type": MSGPACK})
    assert told(answer) == (413, "TooLarge")


async def test_deeper_parameters_than_the_limit_are_refused(http) -> None:
    deep: Any = 1
    for _ in range(100):
        deep = {"a": deep}
    answer = await http.post("/echo", json={**HI, "parameters": deep})
    assert answer.status_code in (413, 422)


# Methods and paths.


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        *[(method, "/echo", "POST") for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY")],
        *[(method, "/stream", "POST, GET") for method in ("HEAD", "PUT", "DELETE")],
        *[(method, "/post", "POST") for method in ("GET", "DELETE")],
        *[("POST", path, "GET, HEAD") for path in ("/", "/-/live", "/-/ready", "/-/status", "/status", "/docs")],
    ],
)
async def test_another_method_is_405_and_the_allowed_ones_are_listed(http, method, path, allow) -> None:
    answer = await http.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
    if method != "HEAD":
        assert answer.json()["detail"] == "Method Not Allowed"


@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/echo/",
        "/echo/x",
        "http://test//echo",
        "/Echo",
        "/-/",
        "/-/nope",
        "/é",
        "/%00",
        "/..%2fecho",
        "/" + "x" * 10_000,
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_unknown_path_is_404(http, path, method) -> None:
    answer = await http.request(method, path, json=HI)
    assert told(answer) == (404, "UnknownEndpoint")


async def test_post_without_a_default_says_that_there_is_none(http) -> None:
    answer = await http.post("/post", json={**HI, "exec_endpoint": "/nope"})
    assert told(answer) == (404, "UnknownEndpoint")


async def test_a_head_has_the_headers_of_a_get_and_no_body(http) -> None:
    got, head = await http.get("/-/live"), await http.head("/-/live")
    assert (head.status_code, head.content) == (200, b"")
    assert dict(head.headers) == dict(got.headers)


# Time.


@pytest.mark.parametrize(
    ("timeout", "status"),
    [
        ("0", 504),
        ("0.0", 504),
        ("1e-9", 504),
        ("5", 200),
        ("1e9", 200),
        ("inf", 200),
        ("garbage", 400),
        ("", 400),
        ("-1", 400),
        ("-inf", 400),
        ("nan", 400),
        ("1,5", 400),
    ],
)
@pytest.mark.parametrize("path", ["/echo", "/stream"])
async def test_x_request_timeout_is_seconds(http, path, timeout, status) -> None:
    answer = await http.post(path, json={"data": {"text": "hi"}}, headers={"x-request-timeout": timeout})
    assert answer.status_code == status


async def test_a_call_that_takes_longer_than_its_client_waits_is_504(http) -> None:
    answer = await http.post("/forever", json=HI, headers={"x-request-timeout": "0.02"})
    assert told(answer) == (504, "DeadlineExceeded")


async def test_a_deadline_counts_while_an_executor_is_still_loading() -> None:
    loading = asyncio.Event()

    class Slow(Executor):
        def __init__(self, loop: Any, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            asyncio.run_coroutine_threadsafe(loading.wait(), loop).result()

        @requests(on="/x")
        async def x(self, docs: list[Text]) -> list[Text]:
            return docs

    app = JinaASGI(Deployment(Slow, uses_with={"loop": asyncio.get_running_loop()}), startup_wait=60)
    async with client(app) as http:
        answer = await http.post("/x", json=HI, headers={"x-request-timeout": "0.02"})
        loading.set()
        assert told(answer) == (504, "DeadlineExceeded")
        assert (await http.post("/x", json=HI, headers={"x-request-timeout": "60"})).status_code == 200


async def test_503_says_when_to_come_back_in_seconds_and_in_milliseconds() -> None:
    class Busy(Executor):
        @requests(on="/busy")
        async def busy(self, docs: list[Text]) -> list[Text]:
            raise Overloaded("the device is taken", retry_after=float(docs[0].text))

    async with client(JinaASGI(Busy)) as http:
        for given, seconds, milliseconds in [
            ("0.25", 1, 250),
            ("2.5", 3, 2500),
            ("-1", 1, 0),
            ("inf", 3600, 3_600_000),
        ]:
            answer = await http.post("/busy", json={"data": {"text": given}})
            assert told(answer) == (503, "Overloaded")
            assert answer.json()["error"]["retriable"] is True
            assert answer.headers["retry-after"] == str(seconds)
            assert answer.headers["retry-after-ms"] == str(milliseconds)
            assert "x-jina-executed" not in answer.headers


async def test_503_of_a_call_that_may_have_run_says_so() -> None:
    class Dies(Executor):
        @requests(on="/die")
        async def die(self, docs: list[Text]) -> list[Text]:
            raise ReplicaDied("whether it took effect is not known")

    async with client(JinaASGI(Dies)) as http:
        answer = await http.post("/die", json={"data": {"text": "x"}})
        assert told(answer) == (503, "ReplicaDied")
        assert answer.headers["x-jina-executed"] == "maybe"


async def test_a_full_queue_is_503_before_the_body_is_read() -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    class Gated(Executor):
        @requests
        async def default(self, docs: list[Text]) -> list[Text]:
            begun.set()
            await gate.wait()
            return docs

    async with client(JinaASGI(Deployment(Gated, max_queue=1))) as http:
        first = asyncio.create_task(http.post("/default", json=HI))
        await begun.wait()

        async def never() -> AsyncIterator[bytes]:
            raise AssertionError("the body was read")
            yield b""

        answer = await http.post("/default", content=never(), headers={"content-type": JSON})
        assert told(answer) == (503, "Overloaded")
        gate.set()
        assert (await first).status_code == 200
        assert (await http.post("/default", json=HI)).status_code == 200


# Request ids, headers and identity.


@pytest.mark.parametrize("given", ["a", "0" * 32, "3f2b8c1e-0d5e-4f4e-9a52-0c1a2b3c4d5e", "A.b_c-9", "x" * 64])
@pytest.mark.parametrize("path", ["/echo", "/double"])
async def test_a_clients_request_id_is_echoed(http, path, given) -> None:
    data = {"/echo": {"text": ""}, "/double": {"vector": [1.0]}}[path]
    answer = await http.post(path, json={"data": data, "header": {"request_id": given}})
    assert answer.json()["header"]["request_id"] == given


@pytest.mark.parametrize(
    "given", ["", "x" * 65, "a b", "a\n", "a\r\nset-cookie: x", "\x1b[31m", "a\u2028", "é", "a/b", 5, None]
)
@pytest.mark.parametrize("path", ["/echo", "/double"])
async def test_a_request_id_that_could_mean_something_elsewhere_is_422(http, path, given) -> None:
    data = {"/echo": {"text": ""}, "/double": {"vector": [1.0]}}[path]
    answer = await http.post(path, json={"data": data, "header": {"request_id": given}})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "header", "request_id"]


async def test_a_request_without_an_id_is_given_one(http) -> None:
    ids = {(await http.post("/echo", json=HI)).json()["header"]["request_id"] for _ in range(3)}
    assert {len(one) for one in ids} == {32}
    assert len(ids) == 3


async def test_an_executor_sees_the_callers_id_headers_and_deadline(http) -> None:
    headers = {"X-One": "1", "X-Request-Timeout": "5"}
    answer = await http.post("/context", json={**HI, "header": {"request_id": "abc"}}, headers=headers)
    facts = json.loads(answer.json()["data"][0]["text"])
    assert facts == {"request_id": "abc", "x-one": "1", "identity": "None", "deadline": True}


async def test_the_identity_is_the_hosts_user_where_there_is_no_auth_of_ours() -> None:
    app = JinaASGI(Echo)

    async def host(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "user": "ann"} if scope["type"] == "http" else scope, receive, send)

    async with client(host) as http:
        answer = await http.post("/context", json=HI)
    assert json.loads(answer.json()["data"][0]["text"])["identity"] == "ann"


# Forms of answers.


@pytest.mark.parametrize(
    ("sent", "accept", "wanted"),
    [
        (JSON, None, JSON),
        (JSON, "*/*", JSON),
        (JSON, MSGPACK, MSGPACK),
        (JSON, f"{MSGPACK}, */*", MSGPACK),
        (JSON, f"{JSON}, {MSGPACK}", JSON),
        (JSON, f"{JSON};q=0.5, {MSGPACK}", MSGPACK),
        (JSON, f"{JSON}, {MSGPACK};q=0.1", JSON),
        (JSON, f"{MSGPACK};q=0", JSON),
        (JSON, f"{MSGPACK};q=nonsense", JSON),
        (JSON, "text/html", JSON),
        (MSGPACK, None, MSGPACK),
        (MSGPACK, "*/*", MSGPACK),
        (MSGPACK, JSON, JSON),
        (MSGPACK, f"{JSON}, text/plain, */*", JSON),
        (MSGPACK, f"{JSON};q=0.1, {MSGPACK}", MSGPACK),
        (MSGPACK, "text/html", MSGPACK),
    ],
)
async def test_an_answer_is_in_the_form_that_accept_asks_for_else_in_the_requests_own(
    http, sent, accept, wanted
) -> None:
    raw = HI_JSON if sent == JSON else pack(HI)
    headers = {"content-type": sent, **({} if accept is None else {"accept": accept})}
    request = http.build_request("POST", "/echo", content=raw, headers=headers)
    if accept is None:
        del request.headers["accept"]
    answer = await http.send(request)
    assert answer.headers["content-type"] == wanted
    body = json.loads(answer.content) if wanted == JSON else unpack(answer.content)
    assert body["data"] == HI["data"]


async def test_msgpack_carries_raw_tensors_both_ways(http) -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    raw = pack({"data": [{"id": str(i), "vector": vector} for i, vector in enumerate(vectors)]})
    answer = unpack((await http.post("/double", content=raw, headers={"content-type": MSGPACK})).content)
    assert [doc["vector"].tolist() for doc in answer["data"]] == (vectors * 2).tolist()
    assert answer["data"][0]["vector"].dtype == np.float32
    assert answer.keys() == {"data", "parameters", "header"}


async def test_columns_in_are_columns_out(http) -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    raw = pack({"data": {"columns": {"id": ["a", "b"], "vector": vectors}}, "parameters": {"x": 1}})
    answer = unpack((await http.post("/double", content=raw, headers={"content-type": MSGPACK})).content)
    assert answer["data"]["columns"]["vector"].tolist() == (vectors * 2).tolist()
    assert list(answer["data"]["columns"]["id"]) == ["a", "b"]
    assert answer["parameters"] == {"x": 1}


async def test_columns_asked_for_as_json_come_as_docs(http) -> None:
    raw = pack({"data": {"columns": {"id": ["a"], "vector": np.ones((1, 2))}}})
    answer = await http.post("/double", content=raw, headers={"content-type": MSGPACK, "accept": JSON})
    assert answer.json()["data"] == [{"id": "a", "vector": [2.0, 2.0]}]


@pytest.mark.parametrize(
    "raw",
    [b"", b"\xc1", pack([]), pack(1), pack(HI)[:-1], pack(HI) + b"x", b"\x91" * 10_000, b"\xdf\xff\xff\xff\xff"],
    ids=["empty", "reserved", "list", "int", "cut off", "trailing", "deep", "lying length"],
)
@pytest.mark.parametrize("path", ["/echo", "/double", "/stream", "/post"])
async def test_what_is_no_msgpack_map_is_the_clients_fault(http, path, raw) -> None:
    status, _ = told(await http.post(path, content=raw, headers={"content-type": MSGPACK}))
    assert status in (400, 404, 413, 422)


@pytest.mark.parametrize("code", [99, 127, -1, -100])
async def test_an_extension_type_of_msgpack_that_is_no_tensor_is_refused(http, code) -> None:
    raw = msgspec.msgpack.encode({"data": [{"vector": msgspec.msgpack.Ext(code, b"\x00" * 16)}]})
    status, _ = told(await http.post("/double", content=raw, headers={"content-type": MSGPACK}))
    assert status in (400, 422)
