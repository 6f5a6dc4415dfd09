"""Requests taken apart by hand: they ask for what protobuf says, and get the answers that protobuf would write."""

from typing import Any

import pytest
from docarray import BaseDoc
from hypothesis import given
from hypothesis import strategies as st

from jina_asgi import InvalidRequest
from jina_asgi.documents.codec import codec
from jina_asgi.documents.schemas import schema_of
from jina_asgi.protocols.protobuf import requests
from jina_asgi.protocols.protobuf.messages import DataRequest, HeaderProto, RouteProto, StatusProto
from jina_asgi.protocols.protobuf.node_writer import varint
from jina_asgi.protocols.protobuf.request_handler import ParsedRequest
from jina_asgi.protocols.protobuf.statuses import route_buffers
from jina_asgi.types import Result, Step


class Text(BaseDoc):
    text: str


CODEC = codec(schema_of(Text))
DOCS = CODEC.docs(CODEC.wrap([Text(id="a", text="b" * 200)]))
ANSWER = Result(CODEC.docs(CODEC.wrap([Text(id="c", text="d")])), {}, (Step("one", 1.5, 2.25),))
#: As Jina's client writes it, and ours.
PLAIN = requests.request("/echo", DOCS, {}, request_id="0123456789abcdef0123456789abcdef").SerializeToString()
WITHOUT_PARAMETERS = PLAIN.replace(b"\x12\x00", b"")

HEADERS = st.builds(
    HeaderProto,
    request_id=st.text(max_size=40) | st.just("x" * 130),
    exec_endpoint=st.none() | st.sampled_from(["/echo", "echo", "/", "", "/a b"]) | st.text(max_size=9),
    target_executor=st.none() | st.text(max_size=5),
    timeout=st.none() | st.integers(0, 9),
    status=st.none() | st.builds(StatusProto, description=st.text(max_size=3)),
)
PARAMETERS: st.SearchStrategy[dict[str, int] | None] = (
    st.none() | st.just({}) | st.dictionaries(st.text(max_size=3), st.integers(-9, 9), max_size=2)
)


@st.composite
def messages(draw: Any) -> bytes:
    """What may be written of a request."""
    made = DataRequest(header=draw(st.none() | HEADERS))
    parameters = draw(PARAMETERS)
    if parameters is not None:
        made.parameters.update(parameters)
    made.routes.extend(draw(st.lists(st.builds(RouteProto, executor=st.text(max_size=3)), max_size=1)))
    field = draw(st.sampled_from([None, "docs", "docs_bytes"]))
    if field is not None:
        setattr(made.data, field, requests.request("/", DOCS, {}, request_id="").data.docs)
    raw: bytes = made.SerializeToString()
    return raw


def alike(raw: bytes) -> None:
    """Check that bytes are to `ParsedRequest` what they are to protobuf, and answered alike."""
    try:
        message = requests.read(raw)
    except InvalidRequest as error:
        with pytest.raises(type(error)):
            ParsedRequest(raw)
        return
    incoming = ParsedRequest(raw)
    assert requests.fields_of(message) == incoming.fields
    assert message == incoming.message
    expected = DataRequest.FromString(requests.answer(message, ANSWER))
    assert expected == DataRequest.FromString(ParsedRequest(raw).answer(ANSWER))
    with_results = Result(ANSWER.docs, {"one": {"n": 1}}, ANSWER.trail)
    expected = DataRequest.FromString(requests.answer(requests.read(raw), with_results))
    assert expected == DataRequest.FromString(ParsedRequest(raw).answer(with_results))


@given(messages())
def test_any_request_is_what_protobuf_says(raw: bytes) -> None:
    alike(raw)


@given(
    st.sampled_from([PLAIN, WITHOUT_PARAMETERS]),
    st.lists(st.tuples(st.integers(0, 60), st.binary(max_size=3), st.booleans()), min_size=1, max_size=3),
)
def test_whatever_is_changed_in_one_it_is_what_protobuf_says(
    raw: bytes, changes: list[tuple[int, bytes, bool]]
) -> None:
    for at, new, insert in changes:
        raw = raw[:at] + new + raw[at + (0 if insert else len(new)) :]
    alike(raw)


@pytest.mark.parametrize("length", range(61))
def test_the_beginning_of_one_is_what_protobuf_says(length: int) -> None:
    alike(PLAIN[:length])
    alike(WITHOUT_PARAMETERS[:length])


@pytest.mark.parametrize("last", ["b", ""])
def test_a_header_with_an_id_twice_has_the_last(last: str) -> None:
    header = b"\x0a\x01a\x0a" + bytes([len(last)]) + last.encode() + b"\x1a\x05/echo"
    raw = b"\x0a" + bytes([len(header)]) + header + WITHOUT_PARAMETERS[WITHOUT_PARAMETERS.index(b'"') :]
    alike(raw)
    assert last == ParsedRequest(raw).fields.request_id


@pytest.mark.parametrize("raw", [PLAIN, WITHOUT_PARAMETERS])
def test_what_clients_write_is_not_read_by_protobuf(raw: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = DataRequest.FromString(requests.answer(requests.read(raw), ANSWER))
    monkeypatch.delattr(requests, "read")
    monkeypatch.delattr(requests, "fields_of")
    incoming = ParsedRequest(raw)
    assert ("/echo", "0123456789abcdef0123456789abcdef") == (incoming.fields.endpoint, incoming.fields.request_id)
    assert expected == DataRequest.FromString(incoming.answer(ANSWER))


def test_of_many_headers_the_last_are_remembered() -> None:
    for number in range(3000):
        made = requests.request(f"/{number}", DOCS, {}, request_id="a")
        assert f"/{number}" == ParsedRequest(made.SerializeToString()).fields.endpoint


@pytest.mark.parametrize("moment", [0.0, 1.0, 1.999999999, 5.25, 1_700_000_000.1, 1_700_000_000.9, 4e9])
def test_routes_are_what_protobuf_writes(moment: float) -> None:
    trail = (Step("one", moment, moment + 0.001, "ValueError"), Step("flow", moment, moment + 1.5))
    expected = DataRequest()
    for name, step in (("gateway", trail[1]), ("one", trail[0])):
        route = expected.routes.add(executor=name)
        for stamp, time in ((route.start_time, step.start), (route.end_time, step.end)):
            stamp.seconds, stamp.nanos = int(time), int((time - int(time)) * 1e9)
    expected.routes[1].status.code, expected.routes[1].status.exception.name = 1, "ValueError"
    assert expected == DataRequest.FromString(b"".join(route_buffers(trail)))
    assert [] == route_buffers(())


@given(st.integers(0, 2**64 - 1) | st.integers(2**27, 2**36) | st.integers(0, 300))
def test_a_number_is_what_protobuf_writes(number: int) -> None:
    expected = bytearray()
    left = number
    while left >= 128:
        expected.append(left % 128 + 128)
        left //= 128
    assert bytes([*expected, left]) == varint(number)
