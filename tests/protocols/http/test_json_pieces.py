"""A JSON text read in pieces is what it is read at one go, and what is none is refused, wherever it is cut."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from jina_asgi.errors import InvalidRequest
from jina_asgi.protocols.http.json_pieces import loads
from tests.doubles.hostile_bodies import NO_JSON, OTHER_FORMS

SPACES = ["", "", "", " ", "\n", "\t \r"]


def text_of(rng: random.Random, depth: int = 0) -> str:
    """Any JSON, with texts that look like other values, and spaces wherever they may be."""

    def spaced(*parts: str) -> str:
        return "".join(rng.choice(SPACES) + part for part in parts) + rng.choice(SPACES)

    def string() -> str:
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


@pytest.mark.parametrize("raw", [*NO_JSON.values(), *OTHER_FORMS], ids=range(len(NO_JSON) + len(OTHER_FORMS)))
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    try:
        expected = orjson.loads(raw)
    except orjson.JSONDecodeError:
        expected = InvalidRequest
    assert expected == outcome(raw, 1000)
    assert expected == outcome(raw, 10**6)
