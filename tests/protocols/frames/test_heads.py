"""Endpoints and errors as data: what comes out on the other side equals what went in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from jina_asgi import errors
from jina_asgi.errors import (
    DefinitionError,
    ExecutorError,
    InvalidDocs,
    InvalidRequest,
    JinaASGIError,
    Overloaded,
    ProtocolError,
)
from jina_asgi.protocols.frames import _layout
from jina_asgi.protocols.frames._heads import (
    LEAST_LIMIT,
    CallHead,
    CreditHead,
    ErrorHead,
    describe,
    endpoint_of,
    error_of,
    read,
    write,
    write_error,
)
from jina_asgi.protocols.frames._layout import Frame
from jina_asgi.types import Endpoint, Field, ParametersSchema, Schema

PAGE = Schema(
    "Page",
    {
        "Page": (
            Field("id", "str", required=False, tag="id"),
            Field("image", "tensor", dtype="<f4", shape=(3, None)),
            Field("either", "union", nullable=True, items=(Field("", "int"), Field("", "str"))),
            Field("parts", "docs", doc="Part"),
        ),
        "Part": (Field("whole", "doc", nullable=True, doc="Page"),),
    },
    {"title": "Page", "type": "object", "properties": {"id": {"type": "string", "default": None}}},
)
ENDPOINT = Endpoint(
    name="/read",
    kind="batch",
    input=PAGE,
    output=PAGE,
    parameters=ParametersSchema("Options", {"type": "object"}, required=True),
    idempotent=True,
    batching={"preferred_batch_size": 4, "timeout": 10},
    description="Reads pages.",
)


@pytest.mark.parametrize(
    "endpoint", [ENDPOINT, Endpoint(name="/default", kind="stream", input=PAGE, output=PAGE)], ids=["full", "bare"]
)
def test_an_endpoint_equals_its_copy_on_the_other_side(endpoint: Endpoint) -> None:
    assert endpoint == endpoint_of(describe(endpoint))


def test_a_description_has_no_classes() -> None:
    typed = replace(PAGE, models={"Page": dict})

    assert describe(replace(ENDPOINT, input=typed)) == describe(ENDPOINT)


def test_what_is_no_data_is_refused_where_it_is_described() -> None:
    with pytest.raises(DefinitionError, match="/read cannot be described"):
        describe(replace(ENDPOINT, batching={"custom_metric": len}))


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "other"},
        {"name": 1},
        {"input": {"name": "Absent", "documents": {}, "json_schema": {}}},
        {"input": {"name": "A", "documents": {"A": [{"name": "b", "kind": "doc", "doc": "B"}]}, "json_schema": {}}},
        {"input": {"name": "A", "documents": {"A": [{"name": "b", "kind": "no such"}]}, "json_schema": {}}},
        {"input": None},
        {"parameters": []},
    ],
)
def test_data_that_describes_no_endpoint_is_a_protocol_error(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        endpoint_of({**describe(ENDPOINT), **change})


def example_of(kind: type[JinaASGIError]) -> JinaASGIError:
    if issubclass(kind, errors.Unavailable):
        return kind("why", retry_after=2.5)
    if kind is InvalidDocs:
        return InvalidDocs("why", [{"type": "missing", "loc": [0, "text"], "msg": "Field required"}])
    if kind is ExecutorError:
        return ExecutorError("why", executor="Encoder", endpoint="/encode")
    return kind("why")


@pytest.mark.parametrize(
    "kind", [found for found in vars(errors).values() if isinstance(found, type) and issubclass(found, JinaASGIError)]
)
def test_every_error_of_ours_is_the_same_on_the_other_side(kind: type[JinaASGIError]) -> None:
    error = example_of(kind)

    copy = error_of(msgspec.msgpack.decode(write_error(error), type=ErrorHead))

    assert type(error) is type(copy)
    assert error.message == copy.message
    assert error.facts() == copy.facts()


def test_an_error_of_a_users_class_crosses_as_the_one_of_ours_that_it_is() -> None:
    class TooBusy(Overloaded):
        """A user's own."""

    copy = error_of(msgspec.msgpack.decode(write_error(TooBusy("later", retry_after=3.0)), type=ErrorHead))

    assert type(copy) is Overloaded
    assert copy.facts() == {"retry_after": 3.0}


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (msgspec.msgpack.decode(write_error(ValueError("no \ud800")), type=ErrorHead), r"ValueError: no \ud800"),
        (ErrorHead("FromTheFuture", "what"), "FromTheFuture: what"),
        (ErrorHead("dict", "what"), "dict: what"),
    ],
)
def test_an_error_that_is_not_ours_becomes_an_executor_error(head: ErrorHead, message: str) -> None:
    error = error_of(head)

    assert type(error) is ExecutorError
    assert error.message == message


@pytest.mark.parametrize("facts", [b"\xff", msgspec.msgpack.encode({"unknown": 1}), msgspec.msgpack.encode([1])])
def test_facts_of_another_version_leave_the_kind_and_the_message(facts: bytes) -> None:
    error = error_of(ErrorHead("Overloaded", "later", facts))

    assert (Overloaded, "later") == (type(error), str(error))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x" * 10_000_000),
        ValueError("\U0001f600" * 10_000_000),
        InvalidDocs("why", [{"input": "x" * 10_000_000}]),
        InvalidDocs("why", [{"input": 2**70}]),
        InvalidDocs("why", [{"input": object()}]),
    ],
)
def test_any_error_fits_the_smallest_frame(error: Exception) -> None:
    assert len(write_error(error)) <= LEAST_LIMIT


@pytest.mark.parametrize(
    "head", [b"", b"\xc1", b"\x91" * 5000, b"\x80", msgspec.msgpack.encode({"items": -1, "size": 1})]
)
def test_another_head_than_expected_is_a_protocol_error(head: bytes) -> None:
    with pytest.raises(ProtocolError, match="without a CreditHead"):
        read(Frame(_layout.CREDIT, 1, head), CreditHead)


def test_a_name_that_this_version_does_not_know_is_skipped() -> None:
    head = msgspec.msgpack.encode({"items": 1, "size": 2, "of a later version": 3})

    assert CreditHead(1, 2) == read(Frame(_layout.CREDIT, 1, head), CreditHead)


@pytest.mark.parametrize("change", [{"tenant": "\ud800"}, {"priority": 2**70}])
def test_a_context_that_cannot_cross_is_an_invalid_request(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="cannot cross"):
        write(CallHead("/call", "id", **change))
