"""A JSON text read in pieces is what it is read at one go, and what is none is refused, wherever it is cut."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from jina_asgi.errors import InvalidRequest
from jina_asgi.protocols.http.json_pieces import loads, without_nested
from tests.doubles.hostile_bodies import NO_JSON, OTHER_FORMS

SPACES = ["", "", "", " ", "\n", "\t \r"]
LETTERS = ["a", ",", "[", "é", "漢", "😀", r"\u0041", r"\u00e9", r"\ud83d\ude00", r"\\", r"\"", r"\n", r"\\u00e9"]


def text_of(rng: random.Random, depth: int = 0) -> str:
    """Any JSON, with texts that look like other values, and spaces wherever they may be."""

    def spaced(*parts: str) -> str:
        return "".join(rng.choice(SPACES) + part for part in parts) + rng.choice(SPACES)

    def string() -> str:
        if rng.random() < 0.1:
            return '"' + "".join(rng.choices(LETTERS[: rng.choice([3, len(LETTERS)])], k=rng.randrange(300))) + '"'
        return orjson.dumps("".join(rng.choices('a,[{":}]\\\n\x01é', k=rng.randrange(9)))).decode()

    if depth > 5 or rng.random() < 0.3:
        return spaced(rng.choice([string(), str(rng.randrange(-(2**40), 2**40)), str(rng.random()), "true", "null"]))
    count = rng.randrange(6)
    if rng.random() < 0.5:
        return spaced("[" + ",".join(text_of(rng, depth + 1) for _ in range(count)) + "]")
    return spaced("{" + ",".join(f"{spaced(string())}:{text_of(rng, depth + 1)}" for _ in range(count)) + "}")


def outcome(raw: bytes, piece: int) -> Any:
    try:
        return loads(raw, 64, piece=piece)
    except InvalidRequest:
        return InvalidRequest


@pytest.mark.parametrize("seed", range(6))
def test_it_is_what_it_is_at_one_go(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(12):
        raw = text_of(rng).encode()
        for piece in (1, 2, 7, 30, 10**6):
            found = loads(raw, 64, piece=piece)
            assert orjson.loads(raw) == found
            assert orjson.dumps(orjson.loads(raw)) == orjson.dumps(found)  # keys in their order


@pytest.mark.parametrize("seed", range(6))
def test_what_is_changed_anywhere_is_refused_as_it_is_at_one_go(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(12):
        raw = bytearray(text_of(rng).encode())
        for _ in range(rng.randrange(1, 3)):
            at = rng.randrange(len(raw) + 1)
            raw[at : at + rng.randrange(2)] = rng.choice(
                [b",", b"]", b"}", b"[", b"{", b'"', b"\\", b":", b"", b" ", b"1"]
            )
        try:
            expected = orjson.loads(raw)
        except orjson.JSONDecodeError:
            expected = InvalidRequest
        for piece in (1, 7, 30, 10**6):
            assert expected == outcome(bytes(raw), piece), bytes(raw)


@pytest.mark.parametrize("letter", LETTERS)
@pytest.mark.parametrize("within", ["%s", '[1,{"a":[{"b":[%s]}],"c":2}]', "{%s:[2]}", "[%s,%s]", '{"a":{%s:%s}}'])
def test_a_text_longer_than_a_piece_may_be_anywhere(letter: str, within: str) -> None:
    raw = within.replace("%s", '"' + letter * 500 + '"').encode()
    for piece in range(32, 45):
        assert orjson.loads(raw) == loads(raw, 64, piece=piece)


@pytest.mark.parametrize(
    "text", ['"\\ud83d%s"', '"%s\\ude00"', '"%s\x01"', '"%s\\x"', '"%s\\"', '"%s" "a"', '{"a":"%s"]', '["%s"']
)
def test_a_broken_text_longer_than_a_piece_is_refused(text: str) -> None:
    assert InvalidRequest is outcome(text.replace("%s", "a" * 500).encode(), 40)


def test_a_half_of_a_letter_is_no_text() -> None:
    assert InvalidRequest is outcome(b'"' + b"\xc3" * 500 + b'"', 40)


def test_a_large_message_without_what_it_holds_has_its_other_fields() -> None:
    held = orjson.dumps([[{"a": "}]", "b": []}]] * 40_000)
    raw = b'{"data": %s , "id":"[{", "parameters":{},"endpoint":"/a","header":{"x":[%s]},"timeout":2.5}' % (held, held)
    expected = {"data": None, "id": "[{", "parameters": None, "endpoint": "/a", "header": None, "timeout": 2.5}
    assert expected == orjson.loads(without_nested(raw))
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(without_nested(raw[:-30]))


@pytest.mark.parametrize("raw", [*NO_JSON.values(), *OTHER_FORMS], ids=range(len(NO_JSON) + len(OTHER_FORMS)))
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    try:
        expected = orjson.loads(raw)
    except orjson.JSONDecodeError:
        expected = InvalidRequest
    assert expected == outcome(raw, 1000)
    assert expected == outcome(raw, 10**6)
