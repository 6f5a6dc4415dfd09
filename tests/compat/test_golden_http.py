"""Jina 3.34's own answers over HTTP, copied as facts, and ours: equal but for the differences that have a name.

The facts were recorded from a real Jina: from a Deployment and from a Flow around the Executor below.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from docarray import BaseDoc, DocList
from pydantic import BaseModel
from sse_starlette.event import ServerSentEvent

from jina_asgi import Deployment, Executor, Flow, JinaASGI, requests
from jina_asgi.testing import client

ID = "<32 hex>"


class In(BaseDoc):
    text: str


class Out(BaseDoc):
    text: str
    n: int = 0


class P(BaseModel):
    k: int = 3


class E(Executor):
    @requests
    def default(self, docs: DocList[In], **kwargs) -> DocList[Out]:
        return DocList[Out]([Out(id=d.id, text="D:" + d.text) for d in docs])

    @requests(on="/foo")
    def foo(self, docs: DocList[In], parameters: dict, **kwargs) -> DocList[Out]:
        return DocList[Out]([Out(id=d.id, text=d.text + repr(parameters)) for d in docs])

    @requests(on="/typed")
    def typed(self, docs: DocList[In], parameters: P, **kwargs) -> DocList[Out]:
        return DocList[Out]([Out(id=d.id, text=d.text, n=parameters.k) for d in docs])

    @requests(on="/single")
    async def single(self, doc: In, **kwargs) -> Out:
        return Out(id=doc.id, text="S:" + doc.text)

    @requests(on="/stream")
    async def st(self, doc: In, parameters: dict, **kwargs) -> Out:
        for i in range(3):
            yield Out(text=f"{doc.text}{i}{parameters!r}", n=i)

    @requests(on="/err")
    def err(self, docs: DocList[In], **kwargs) -> DocList[Out]:
        raise ValueError("boom")

    @requests(on="/dict")
    def dct(self, docs: DocList[In], **kwargs) -> DocList[In]:
        return {"a": 1}  # type: ignore[return-value]


@pytest_asyncio.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with client(JinaASGI(E, wait_ready=True)) as http:
        yield http


def normalised(value: Any) -> Any:
    """An answer with its random ids replaced."""
    return json.loads(re.sub(r'"[0-9a-f]{32}"', f'"{ID}"', json.dumps(value)))


def out(text: str, n: int = 0, id_: str = ID) -> dict[str, Any]:
    return {"id": id_, "text": text, "n": n}


HI = {"data": [{"text": "hi"}]}

#: path, body, what Jina's Deployment answered (ids normalised), its status.
ANSWERS: list[tuple[str, Any, Any]] = [
    ("/default", {"data": {"text": "one"}}, {"data": [out("D:one")], "parameters": {}}),
    (
        "/foo",
        {**HI, "header": {"request_id": "abc", "target_executor": "zzz"}},
        {"data": [out("hi{}")], "parameters": {}},
    ),
    ("/foo", {"data": []}, {"data": [], "parameters": {}}),
    ("/typed", {**HI, "parameters": {"k": 7}}, {"data": [out("hi", 7)], "parameters": {"k": 7.0}}),
    ("/typed", HI, {"data": [out("hi", 3)], "parameters": {}}),
    (
        "/single",
        {"data": [{"id": "1", "text": "hi"}, {"id": "2", "text": "ho"}]},
        {"data": [out("S:hi", 0, "1"), out("S:ho", 0, "2")], "parameters": {}},
    ),
    (
        "/dict",
        HI,
        {"data": [{"id": ID, "text": "hi"}], "parameters": {"__results__": {"executor/rep-0": {"a": 1.0}}}},
    ),
]


@pytest.mark.parametrize(("path", "body", "golden"), ANSWERS)
async def test_an_answer_is_a_deployments_own_with_a_header_beside_it(http, path, body, golden) -> None:
    answer = await http.post(path, json=body)
    header = {"request_id": body.get("header", {}).get("request_id", ID), "target_executor": ""}
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert normalised(answer.json()) == {**golden, "header": header}


#: path, body, what Jina's Flow answered: the same under its node's name, in floats, with a header, without ids.
FLOW_ANSWERS: list[tuple[str, Any, Any]] = [
    ("/default", {"data": {"text": "one"}}, {"data": [out("D:one")], "parameters": {}}),
    ("/foo", {"data": []}, {"data": [], "parameters": {}}),
    ("/typed", {**HI, "parameters": {"k": 7}}, {"data": [out("hi", 7)], "parameters": {"k": 7.0}}),
    ("/typed", HI, {"data": [out("hi", 3)], "parameters": {}}),
    (
        "/single",
        {"data": [{"id": "1", "text": "hi"}, {"id": "2", "text": "ho"}]},
        {"data": [out("S:hi", 0, "1"), out("S:ho", 0, "2")], "parameters": {}},
    ),
    (
        "/dict",
        HI,
        {"data": [{"id": ID, "text": "hi"}], "parameters": {"__results__": {"exec1/rep-0": {"a": 1.0}}}},
    ),
]


@pytest_asyncio.fixture
async def flow() -> AsyncIterator[httpx.AsyncClient]:
    """A Flow whose second node is the Executor; the first hands on what it is given."""
    async with client(JinaASGI(Flow().add(name="exec0").add(uses=E, name="exec1"), wait_ready=True)) as http:
        yield http


@pytest.mark.parametrize(("path", "body", "golden"), FLOW_ANSWERS)
@pytest.mark.parametrize("source", [Deployment(E, name="exec1"), Flow().add(uses=E, name="exec1")], ids=["one", "flow"])
async def test_an_answer_is_a_flows_own_by_the_name_of_its_node(source, path, body, golden) -> None:
    async with client(JinaASGI(source)) as http:
        answer = await http.post(path, json=body)
    assert normalised(answer.json()) == {**golden, "header": {"request_id": ID, "target_executor": ""}}


async def test_nodes_that_target_executor_does_not_name_hand_on_what_they_are_given(flow) -> None:
    answer = await flow.post("/foo", json={**HI, "header": {"request_id": "abc", "target_executor": "zzz"}})
    assert answer.status_code == 200
    assert answer.json()["data"][0]["text"] == "hi"
    assert answer.json()["header"] == {"request_id": "abc", "target_executor": ""}
    named = await flow.post("/foo", json={**HI, "header": {"request_id": "abc", "target_executor": "exec"}})
    assert named.json()["data"][0]["text"] == "hi{}"


async def test_a_node_of_a_flow_sees_the_parameters_for_all_and_its_own(flow) -> None:
    answer = await flow.post("/foo", json={**HI, "parameters": {"a": 1, "exec1__b": 2, "zz__c": 3}})
    assert answer.json()["data"][0]["text"] == "hi{'a': 1, 'b': 2}"  # Jina: floats
    assert answer.json()["parameters"] == {"a": 1, "exec1__b": 2, "zz__c": 3}


@pytest.mark.parametrize(("path", "status"), [("/nope", 404), ("/err", 500)])
async def test_a_flow_refuses_and_fails_with_jinas_status(flow, path, status) -> None:
    assert (await flow.post(path, json=HI)).status_code == status


async def test_a_flow_answers_the_paths_beside_its_endpoints_as_jinas_does(flow) -> None:
    assert (await flow.get("/")).json() == {}
    assert (await flow.get("/dry_run")).json() == {"code": 0, "description": "", "exception": None}
    paths = (await flow.get("/openapi.json")).json()["paths"]
    assert {"/dict", "/typed", "/stream", "/foo", "/single", "/err", "/default"} <= paths.keys()


async def test_a_flows_stream_has_jinas_frames(flow) -> None:
    answer = await flow.get("/stream", params={"text": "q"})
    frames = answer.content.split(b"\r\n\r\n")
    documents = [json.loads(frame.partition(b"\r\ndata: ")[2]) for frame in frames[:3]]
    assert normalised(documents) == [out(f"q{i}{{}}", i) for i in range(3)]
    assert frames[3] == b"event: end\r\ndata: null"


#: path, body, the first entry of Jina's `detail` for it: the same of a Deployment and of a Flow.
REFUSED = [
    (
        "/foo",
        {**HI, "header": {"requestId": "abc"}},
        {
            "type": "missing",
            "loc": ["body", "header", "request_id"],
            "msg": "Field required",
            "input": {"requestId": "abc"},
        },
    ),
    (
        "/foo",
        {"data": [{"txt": "hi"}]},
        {
            "type": "missing",
            "loc": ["body", "data", "list[In]", 0, "text"],
            "msg": "Field required",
            "input": {"txt": "hi"},
        },
    ),
    (
        "/typed",
        {**HI, "parameters": {"k": "zz"}},
        {
            "type": "int_parsing",
            "loc": ["body", "parameters", "k"],
            "msg": "Input should be a valid integer, unable to parse string as an integer",
            "input": "zz",
        },
    ),
]


@pytest.mark.parametrize(("path", "body", "first"), REFUSED)
async def test_what_is_wrong_is_listed_as_jina_lists_it(http, flow, path, body, first) -> None:
    for served in (http, flow):
        answer = await served.post(path, json=body)
        assert answer.status_code == 422
        assert answer.json()["detail"][0] == first


async def test_the_root_answers_an_empty_object(http) -> None:
    answer = await http.get("/")
    assert (answer.status_code, answer.json()) == (200, {})


async def test_an_unknown_endpoint_is_404_though_there_is_a_default(http) -> None:
    answer = await http.post("/nope", json=HI)
    assert (answer.status_code, answer.json()["detail"]) == (404, "Not Found")


@pytest.mark.parametrize("request_", [{"params": {"text": "q"}}, {"json": {"text": "q"}}], ids=["query", "JSON body"])
async def test_a_stream_is_jinas_by_its_headers_and_its_frames(http, request_) -> None:
    answer = await http.request("GET", "/stream", headers={"accept": "text/event-stream"}, **request_)
    assert answer.status_code == 200
    for name, value in {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
    }.items():
        assert answer.headers[name] == value
    frames = answer.content.split(b"\r\n\r\n")
    assert [frame.partition(b"\r\ndata: ")[0] for frame in frames] == [*[b"event: update"] * 3, b"event: end", b""]
    documents = [json.loads(frame.partition(b"\r\ndata: ")[2]) for frame in frames[:3]]
    assert normalised(documents) == [out(f"q{i}{{}}", i) for i in range(3)]


async def test_an_update_is_byte_for_byte_sse_starlettes(http) -> None:
    answer = await http.get("/stream", params={"text": "ü\n"})
    for frame in answer.content.split(b"\r\n\r\n")[:3]:
        data = frame.partition(b"\r\ndata: ")[2]
        assert frame + b"\r\n\r\n" == ServerSentEvent(data=data.decode(), event="update").encode()
    assert answer.content.endswith(b"event: end\r\ndata: null\r\n\r\n")


async def updates_as_jinas_client_reads_them(http: httpx.AsyncClient, path: str, **request_: Any) -> list[Any]:
    """Split every chunk at `event: `, and take what follows 14 bytes of an update: so Jina's client reads."""
    documents = []
    async with http.stream("GET", path, **request_) as response:
        async for chunk in response.aiter_raw():
            for event in chunk.split(b"event: ")[1:]:
                if event.startswith(b"update"):
                    documents.append(json.loads(event[14:].decode()))
    return documents


@pytest.mark.parametrize("text", ["b", "event: update\r\ndata: {}", "a\nb\r\n\r\n", "\\event: end", '"event: "'])
async def test_jinas_client_reads_a_stream_whatever_its_text_holds(http, text) -> None:
    documents = await updates_as_jinas_client_reads_them(http, "/stream", json={"text": text})
    assert normalised(documents) == [out(f"{text}{i}{{}}", i) for i in range(3)]


async def test_one_event_is_one_message(http) -> None:
    async with http.stream("GET", "/stream", params={"text": "q"}) as response:
        chunks = [chunk async for chunk in response.aiter_raw()]
    assert [chunk.count(b"event: ") for chunk in chunks] == [1, 1, 1, 1]


async def test_openapi_lists_jinas_paths_and_names_its_schemas(http) -> None:
    document = (await http.get("/openapi.json")).json()
    batch = ["/default", "/foo", "/typed", "/single", "/err", "/dict"]
    assert {path: list(document["paths"][path]) for path in batch} == {path: ["post"] for path in batch}
    schemas = document["components"]["schemas"]
    assert {"Header", "HTTPValidationError", "In", "Out", "P"} <= schemas.keys()
    assert {f"{path[1:]}_{way}_model" for path in batch for way in ("input", "output")} <= schemas.keys()
    operation = document["paths"]["/foo"]["post"]
    assert operation["operationId"] == "post_foo_post"
    reference = {"application/json": {"schema": {"$ref": "#/components/schemas/foo_input_model"}}}
    assert operation["requestBody"] == {"content": reference, "required": True}
    assert schemas["foo_input_model"] == {
        "properties": {
            "data": {
                "anyOf": [
                    {"items": {"$ref": "#/components/schemas/In"}, "type": "array"},
                    {"$ref": "#/components/schemas/In"},
                ],
                "title": "Data",
            },
            "parameters": {"anyOf": [{"type": "object"}, {"type": "null"}], "title": "Parameters"},
            "header": {"anyOf": [{"$ref": "#/components/schemas/Header"}, {"type": "null"}]},
        },
        "type": "object",
        "required": ["data"],
        "title": "foo_input_model",
    }


# What is otherwise here, and meant to be.


async def test_a_whole_number_in_parameters_stays_an_int(http) -> None:
    sent = {**HI, "parameters": {"x": 7, "y": 7.0, "z": 7.5, "deep": [1, {"w": 2.0}]}}
    answer = (await http.post("/foo", json=sent)).json()
    assert answer["data"][0]["text"] == "hi{'x': 7, 'y': 7, 'z': 7.5, 'deep': [1, {'w': 2}]}"
    typed = await http.post("/typed", json={**HI, "parameters": {"k": 7}})
    assert b'"parameters":{"k":7}' in typed.content  # Jina: 7.0


async def test_whole_numbers_in_dict_results_stay_ints(http) -> None:
    answer = await http.post("/dict", json=HI)
    assert b'"__results__":{"executor/rep-0":{"a":1}}' in answer.content  # Jina: 1.0


async def test_a_failing_executor_is_reported_as_a_safe_sentence_a_type_and_an_id(http) -> None:
    answer = await http.post("/err", json=HI)
    body = answer.json()
    assert answer.status_code == 500
    assert "boom" not in answer.text  # Jina: "ValueError('boom')"
    assert (body["error"]["type"], body["error"]["retriable"]) == ("ExecutorError", False)
    assert re.fullmatch("[0-9a-f]{16}", body["error"]["id"])


async def test_post_on_a_streaming_endpoint_streams(http) -> None:
    answer = await http.post("/stream", json={"data": {"text": "p"}, "parameters": {"x": 1}})
    assert (answer.status_code, answer.content.count(b"event: update\r\n")) == (200, 3)  # Jina: 405
    assert "p0{'x': 1}" in answer.text
    listed = (await http.get("/openapi.json")).json()["paths"]["/stream"]
    assert listed.keys() == {"get", "post"}


@pytest.mark.parametrize(("endpoint", "text"), [("/foo", "hi{}"), ("foo", "hi{}"), ("/", "D:hi"), (None, "D:hi")])
async def test_post_to_post_answers_for_the_endpoint_that_the_body_names(http, endpoint, text) -> None:
    answer = await http.post("/post", json={**HI, "exec_endpoint": endpoint})
    assert (answer.status_code, answer.json()["data"][0]["text"]) == (200, text)  # Jina: 404


async def test_dry_run_exists_in_a_deployments_application_too(http) -> None:
    answer = await http.get("/dry_run")
    assert (answer.status_code, answer.json()) == (200, {"code": 0, "description": "", "exception": None})


async def test_status_has_jinas_shape_with_versions_and_without_the_environment(http) -> None:
    answer = (await http.get("/status")).json()
    assert answer.keys() == {"jina", "envs"}
    assert answer["envs"] == {}
    assert {"jina", "docarray", "python", "platform"} <= answer["jina"].keys()
    assert not {"uid", "session-id", "platform-version"} & answer["jina"].keys()


async def test_the_header_stands_in_every_answer_as_a_flow_has_it(http) -> None:
    answer = (await http.post("/foo", json={**HI, "header": {"request_id": "abc"}})).json()
    assert answer["header"] == {"request_id": "abc", "target_executor": ""}
    assert list(answer) == ["data", "parameters", "header"]  # Jina's client refuses any other key


async def test_an_answer_keeps_the_ids_of_its_documents(http) -> None:
    answer = (await http.post("/default", json={"data": {"text": "one"}})).json()
    assert re.fullmatch("[0-9a-f]{32}", answer["data"][0]["id"])  # a Flow of Jina's on pydantic 2: null


async def test_the_one_executor_of_a_deployment_answers_whatever_target_executor_says(http) -> None:
    answer = await http.post("/foo", json={**HI, "header": {"request_id": "abc", "target_executor": "zzz"}})
    assert answer.json()["data"][0]["text"] == "hi{}"  # a Deployment of Jina's too; a Flow's nodes pass it on: "hi"


async def test_a_body_that_jinas_client_sends_is_read_with_all_its_keys(http) -> None:
    header = {"request_id": "0" * 32, "exec_endpoint": "/foo", "target_executor": ""}
    sent = {"header": header, "parameters": {"x": 1.0}, **HI, "exec_endpoint": "/foo", "target_executor": ""}
    answer = await http.post("/foo", json=sent)
    assert answer.json()["header"]["request_id"] == "0" * 32
