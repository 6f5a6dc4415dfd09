"""Jina's requests and answers as calls and results: what one half writes, the other reads."""

from typing import Any

import numpy as np
import pytest
from docarray import BaseDoc

from jina_asgi import (
    Context,
    ExecutorError,
    ExecutorInputError,
    InvalidDocs,
    InvalidRequest,
    JinaASGIError,
    Overloaded,
    TooLarge,
)
from jina_asgi.documents.codec import codec
from jina_asgi.documents.schemas import schema_of
from jina_asgi.protocols.protobuf import requests, statuses
from jina_asgi.protocols.protobuf.messages import DataRequest, DataRequestProto, SingleDocumentRequest
from jina_asgi.protocols.protobuf.request_handler import call_of
from jina_asgi.settings import Limits
from jina_asgi.types import Docs, Endpoint, Result, Step


class Text(BaseDoc):
    text: str


SCHEMA = schema_of(Text)
CODEC = codec(SCHEMA)
ECHO = Endpoint(name="/echo", kind="batch", input=SCHEMA, output=SCHEMA)


def docs(*texts: str) -> Docs:
    return CODEC.docs(CODEC.wrap([Text(id=text, text=text) for text in texts]))


def test_a_call_is_asked_for_as_it_is_made() -> None:
    parameters = {"n": 1, "half": 0.5, "on": True, "none": None, "list": [1, {"a": "b"}], "whole": 2.0}
    sent = requests.request("/echo", docs("a", "b"), parameters, request_id="id", target_executor="one.*")
    asked = requests.fields_of(DataRequest.FromString(sent.SerializeToString()))
    call = call_of(asked, ECHO, Context(), Limits())
    assert ("/echo", "id", "one.*") == (asked.endpoint, asked.request_id, call.target_executor)
    assert parameters == call.parameters
    assert int is type(call.parameters["n"]) is type(call.parameters["whole"])
    assert ["a", "b"] == [doc.text for doc in call.docs.typed]


@pytest.mark.parametrize(
    ("name", "expected"), [("", "/default"), ("/", "/default"), ("foo", "/foo"), ("/a b", "/default")]
)
def test_an_endpoint_is_named_as_on_all_protocols(name: str, expected: str) -> None:
    message = DataRequest()
    message.header.exec_endpoint = name
    assert expected == requests.fields_of(message).endpoint


def test_docs_that_were_serialized_before_are_docs_too() -> None:
    exact = DataRequestProto()
    given = requests.request("/echo", docs("a"), {}, request_id="id").data.docs
    exact.data.docs_bytes = given
    assert given == requests.fields_of(requests.read(exact.SerializeToString())).docs


def test_a_stream_is_asked_for_with_one_document_and_answered_with_one_after_another() -> None:
    sent = requests.single("/echo", docs("a"), {"n": 1}, request_id="id")
    asked = requests.fields_of(SingleDocumentRequest.FromString(sent.SerializeToString()))
    assert ["a"] == [doc.text for doc in call_of(asked, ECHO, Context(), Limits()).docs.typed]
    step = SingleDocumentRequest.FromString(requests.stepped(sent)(docs("b")))
    assert ["b"] == [doc.text for doc in requests.answered(step, CODEC).docs.typed]
    assert "id" == step.header.request_id


def test_an_answer_has_the_results_by_node_and_the_trail() -> None:
    message = requests.request("/echo", docs("a"), {"n": 1}, request_id="id")
    message.routes.add(executor="before")
    trail = (Step("one", 1.5, 2.25, "ValueError"), Step("two", 3.0, 4.0), Step("flow", 1.5, 4.25))
    made = DataRequest.FromString(requests.answer(message, Result(docs("b"), {"one": {"count": np.int64(3)}}, trail)))
    answer = requests.answered(made, CODEC)
    assert ["b"] == [doc.text for doc in answer.docs.typed]
    assert ({"one": {"count": 3}}, "id") == (answer.results, answer.request_id)
    assert {"n": 1, "__results__": {"one": {"count": 3}}} == answer.parameters
    assert ("before", Step("gateway", 1.5, 4.25), *trail[:2]) == (answer.trail[0].name, *answer.trail[1:])
    assert [{"id": "b", "text": "b"}] == requests.values(made)


@pytest.mark.parametrize(
    "error",
    [
        ExecutorInputError("too long a prompt"),
        Overloaded("full", retry_after=2.5),
        InvalidDocs("wrong", [{"type": "t", "loc": [0, "text"], "msg": "bad"}]),
        TooLarge("too many"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_known_again_with_its_facts_and_the_requests_docs_come_back(error: JinaASGIError) -> None:
    message = requests.request("/echo", docs("a"), {}, request_id="id")
    told = DataRequest.FromString(statuses.failed(DataRequest.FromString(message.SerializeToString()), error))
    assert message.data.docs == told.data.docs
    assert (1, []) == (told.header.status.code, list(told.header.status.exception.stacks))
    with pytest.raises(type(error)) as found:
        requests.answered(told, CODEC)
    assert dict(error.facts()) == dict(found.value.facts())


@pytest.mark.parametrize(
    "message",
    [
        DataRequest(),
        DataRequest(data={"docs": b"\x0a\x00"}),
        DataRequest(data={"docs_bytes": b"\x0a\x00"}, parameters={"a": 1}),
        SingleDocumentRequest(document=b"\x0a\x00", header={"request_id": "a"}),
        SingleDocumentRequest(),
    ],
    ids=str,
)
def test_the_answer_for_an_error_is_the_request_with_a_status(message: Any) -> None:
    expected = type(message).FromString(message.SerializeToString())
    found = type(message).FromString(statuses.failed(message, TooLarge("too many")))
    assert 1 == found.header.status.code
    found.header.ClearField("status")
    if not expected.HasField("header"):
        found.ClearField("header")
    assert expected == found


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"\x0a\x03\x0a\x01i\x12\x09\x0a", "i"),
        (b"\x0a\x03\x0a\x01i\xff\xff", "i"),
        (b"\x0a\x03\x0a\x09i", ""),
        (b"\x0a\x09\x0a", ""),
        (b"\x12\x00", ""),
        (b"", ""),
    ],
)
def test_of_a_broken_request_its_header_is_read(raw: bytes, found: str) -> None:
    assert found == requests.salvaged(raw).header.request_id
    assert found == requests.salvaged(raw, SingleDocumentRequest).header.request_id
    assert found == requests.salvaged_join(b"\x0a%c%s\x0a\x99" % (len(raw), raw)).header.request_id


def test_an_executors_own_words_are_reported_only_where_that_is_asked_for() -> None:
    try:
        raise ExecutorError("pw=SECRET", executor="Echo", endpoint="/echo", raised="KeyError")
    except ExecutorError as error:
        hidden, told = (statuses.status_of(error, expose=expose) for expose in (False, True))
    assert "SECRET" not in str(hidden)
    assert ("ExecutorError", "Echo") == (hidden.exception.name, hidden.exception.executor)
    assert ("pw=SECRET", "KeyError") == (told.description, told.exception.name)
    assert "Traceback" in told.exception.stacks[0]


@pytest.mark.parametrize("args", [[], ["one"], ["a", "no JSON"], ["a", "[]"], ["a", '{"status": "x"}']])
def test_the_error_of_a_jina_is_one_of_its_executors(args: list[str]) -> None:
    message = DataRequest()
    message.header.status.code = 1
    message.header.status.description = "ValueError('boom')"
    message.header.status.exception.name = "ValueError"
    message.header.status.exception.args.extend(args)
    with pytest.raises(ExecutorError, match="boom") as found:
        requests.answered(message, CODEC)
    assert "ValueError" == found.value.raised


def test_parameters_that_protobuf_has_no_form_for_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="parameters cannot be written"):
        requests.request("/echo", None, {"a": object()}, request_id="id")


@pytest.mark.parametrize("raw", [b"\x0f", b"\x12" + b"\xff" * 8, b"\x12\x03\x0a\x0c\x0a" * 3])
def test_what_is_no_request_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest, match="not a DataRequestProto"):
        requests.read(raw)


def test_megabytes_of_parameters_are_refused_and_megabytes_of_docs_are_not() -> None:
    message = DataRequest()
    message.data.docs = b"x" * 5_000_000
    assert requests.read(message.SerializeToString()).data.docs
    message.parameters["a"] = "x" * 5_000_000
    with pytest.raises(TooLarge, match="parameters"):
        requests.read(message.SerializeToString())
