"""Whatever bytes a client sends end in one of our errors, at once, in little memory, and in an answer of a few lines."""

import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
from docarray import DocList
from pydantic import BaseModel

from jina_asgi.documents.document_types import LegacyDocument
from jina_asgi.documents.msgpack import pack
from jina_asgi.documents.schemas import schema_of
from jina_asgi.errors import InvalidDocs, InvalidRequest, TooLarge, UnsupportedMedia
from jina_asgi.protocols.http.bodies import JSON, MSGPACK, loads_object
from jina_asgi.protocols.http.routed import exec_endpoint
from jina_asgi.settings import Limits
from tests.doubles.round_trips import bodies

Ext = msgspec.msgpack.Ext
from tests.doubles.hostile_bodies import HEAVY, LARGE_AND_WRONG, NO_JSON, OTHER_FORMS
from tests.doubles.hostile_documents import BODIES, Fast, Plain, Slow, doc, ends, every_model, refusal


@every_model
@pytest.mark.parametrize("name", NO_JSON)
def test_what_is_no_json_is_400_on_every_path(model: type[BaseModel], name: str) -> None:
    error = refusal(model, NO_JSON[name])
    assert (type(error), error.status) == (InvalidRequest, 400)


@pytest.mark.parametrize("read", [loads_object, lambda raw: exec_endpoint(JSON, raw)])
@pytest.mark.parametrize("name", NO_JSON)
def test_what_is_no_json_is_400_where_only_an_object_is_asked_for(read: Any, name: str) -> None:
    with pytest.raises(InvalidRequest):
        read(NO_JSON[name])


@every_model
@pytest.mark.parametrize("raw", OTHER_FORMS, ids=bytes.decode)
def test_json_of_another_form_is_422_and_says_where(model: type[BaseModel], raw: bytes) -> None:
    error = refusal(model, raw)
    assert (type(error), error.status) == (InvalidDocs, 422)
    for entry in error.errors:  # type: ignore[attr-defined]  # InvalidDocs
        assert entry["loc"][0] == "body"
        assert entry.keys() >= {"type", "loc", "msg"}


@every_model
def test_of_two_keys_of_one_name_the_last_counts(model: type[BaseModel]) -> None:
    read = BODIES[model].read
    assert read(JSON, doc('"n":1,"n":2')).docs.typed[0].n == 2
    assert read(JSON, b'{"data":[{"n":1}],"data":[{"n":2}]}').docs.typed[0].n == 2
    one, two = pack("n") + pack(1), pack("n") + pack(2)
    assert read(MSGPACK, b"\x81" + pack("data") + b"\x91\x82" + one + two).docs.typed[0].n == 2


@every_model
@pytest.mark.parametrize("digits", ["18446744073709551616", "-9223372036854775809", "1" * 30])
def test_integers_over_64_bits_are_refused(model: type[BaseModel], digits: str) -> None:
    assert type(refusal(model, doc(f'"n":{digits}'))) is InvalidDocs


@every_model
def test_long_digits_in_texts_are_texts(model: type[BaseModel]) -> None:
    text = "9" * 40 + " NaN Infinity 1e400 " + "[" * 100
    assert BODIES[model].read(JSON, doc(f'"text":"{text}"')).docs.typed[0].text == text


NAMES = ["__class__", "__dict__", "__init__", "self", "docs", "doc", "parameters", "model_config", "context", "kwargs"]


@every_model
@pytest.mark.parametrize("name", NAMES)
def test_no_name_of_a_field_or_parameter_reaches_an_attribute(model: type[BaseModel], name: str) -> None:
    raw = orjson.dumps({"data": [{name: {"a": 1}}], "parameters": {name: 1}})
    request = BODIES[model].read(JSON, raw)
    (read,) = request.docs.typed
    assert (type(read), request.parameters) == (model, {name: 1})
    assert set(read.__dict__) == set(model.model_fields)
    assert read.__pydantic_fields_set__ == set()


@pytest.mark.parametrize("depth", [100, 500, 1000])
def test_what_nests_too_deep_is_413_where_it_may_nest(depth: int) -> None:
    fields: list[tuple[type[BaseModel], str]]
    fields = [(Slow, "any"), (Plain, "any"), (LegacyDocument, "tags")]
    for model, field in fields:
        raw = doc(f'"{field}":{{"a":' + "[" * depth + "]" * depth + "}")
        assert type(refusal(model, raw)) in (TooLarge, InvalidRequest)
    kids = '{"kids":[' * depth + "]}" * depth
    assert type(refusal(Slow, b'{"data":[%s]}' % kids.encode())) in (TooLarge, InvalidRequest)
    packed: Any = {}
    for _ in range(min(depth, 200)):
        packed = {"kids": [packed]}
    assert type(refusal(Slow, pack({"data": [packed]}), MSGPACK)) is TooLarge


def test_the_limit_of_depth_is_an_option() -> None:
    raw = doc('"any":' + "[" * 90 + "]" * 90)
    for model in (Slow, Plain):
        assert type(refusal(model, raw)) is TooLarge
        assert bodies(schema_of(model), Limits(depth=200)).read(JSON, raw).docs.typed[0].any


@every_model
def test_too_many_docs_are_413_before_they_are_read(model: type[BaseModel]) -> None:
    few = bodies(schema_of(model), Limits(docs=2))
    fine: dict[str, Any]
    fine, many = {"data": [{}] * 2}, {"data": [{"n": "x"}] * 3}
    for media, dump in ((JSON, orjson.dumps), (MSGPACK, pack)):
        assert len(few.read(media, dump(fine)).docs) == 2
        with pytest.raises(TooLarge, match="at most 2 docs"):
            few.read(media, dump(many))
    with pytest.raises(TooLarge, match="at most 2 docs"):
        few.read(MSGPACK, pack({"data": {"columns": {"n": ["x"] * 3}}}))


@every_model
@pytest.mark.parametrize("request_id", ["", "x" * 65, "a b", "a\nb", "é", "\x1b[31m", "a" * 10**6])
def test_a_request_id_is_short_and_plain(model: type[BaseModel], request_id: str) -> None:
    raw = orjson.dumps({"data": [], "header": {"request_id": request_id}})
    assert type(refusal(model, raw)) is InvalidDocs
    fine = orjson.dumps({"data": [], "header": {"request_id": "Az09._-", "exec_endpoint": "/x"}})
    assert BODIES[model].read(JSON, fine).request_id == "Az09._-"


@every_model
@pytest.mark.parametrize("name", LARGE_AND_WRONG)
def test_an_answer_does_not_grow_with_what_was_wrong(model: type[BaseModel], name: str) -> None:
    ends(model, LARGE_AND_WRONG[name])  # asserts the length of the answer


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def _collections_look_at_new_objects_alone() -> Iterator[None]:
    """What is alive before is not looked at by the garbage collector: a collection of a whole run's objects is long."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory in use from /proc")
@pytest.mark.usefixtures("_collections_look_at_new_objects_alone")
@every_model
@pytest.mark.parametrize("name", HEAVY)
def test_a_heavy_body_ends_soon_and_leaves_nothing_behind(model: type[BaseModel], name: str) -> None:
    ends(model, HEAVY[name])  # what is made once is made
    gc.collect()
    before, start = resident(), time.process_time()
    ends(model, HEAVY[name])
    took = time.process_time() - start
    gc.collect()
    assert resident() - before < 64 * 2**20
    assert took < 1.5  # 11 MB of keys take the parser 0.3, more where much else is in memory


@pytest.mark.parametrize(
    "media", ["", "text/plain", "application/x-www-form-urlencoded", "application/pickle", "x" * 9999]
)
def test_other_content_types_are_415(media: str) -> None:
    with pytest.raises(UnsupportedMedia) as told:
        BODIES[Fast].read(media, b"{}")
    assert len(told.value.message) < 200
    with pytest.raises(UnsupportedMedia):
        exec_endpoint(media, b"{}")


def test_a_buffer_of_pickle_is_no_document() -> None:
    raw = b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."
    for media in (JSON, MSGPACK):
        refusal(Fast, raw, media)  # asserts that it is refused, and how


def test_documents_of_one_request_share_nothing_with_those_of_another() -> None:
    raw = pack({"data": {"columns": {"v": np.ones((3, 2), np.float32)}}})
    first, second = (BODIES[Fast].read(MSGPACK, raw).docs.typed for _ in range(2))
    first[0].v[:] = 9
    assert type(first) is type(DocList[Fast]())
    assert [np.asarray(d.v).tolist() for d in second] == [[1, 1]] * 3
    assert [np.asarray(d.v).tolist() for d in first[1:]] == [[1, 1]] * 2
