"""Large msgpack is read in pieces as its decoder reads it whole, and no piece is large."""

import random
from typing import Any

import msgspec
import numpy as np
import pytest

from jina_asgi.documents import msgpack
from jina_asgi.documents._sizes import LARGE
from jina_asgi.documents.msgpack import PIECE, end_of, pack, unpack_in_pieces
from jina_asgi.documents.writers import Rendered, pack_rendered
from jina_asgi.documents.writers import unpack_rendered as hook
from jina_asgi.errors import InvalidDocs

decode = msgspec.msgpack.Decoder(ext_hook=hook).decode


def anything(dice: random.Random, depth: int = 0) -> Any:
    kind = dice.random()
    if depth > 4 or kind < 0.4:
        return dice.choice(
            [1, -5, 300, 2**40, -(2**40), 1.5, None, True, "a" * dice.randrange(60), b"x" * 300, "é" * 40]
        )
    if kind < 0.65:
        return [anything(dice, depth + 1) for _ in range(dice.randrange(30))]
    if kind < 0.75:
        return [1.5] * dice.randrange(200)
    keys = [dice.choice([str(n), n, "k" * n]) for n in range(dice.randrange(25))]
    return {key: anything(dice, depth + 1) for key in keys}


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msgpack, "PIECE", 64)
    monkeypatch.setattr(msgpack, "LARGE", 0)


@pytest.mark.parametrize("seed", range(50))
@pytest.mark.usefixtures("small_pieces")
def test_a_value_is_the_one_that_the_decoder_reads_and_so_is_an_error(seed: int) -> None:
    dice = random.Random(seed)
    value = anything(dice)
    raw = msgspec.msgpack.encode(value)
    found = unpack_in_pieces(raw, decode)
    assert (value, repr(value)) == (found, repr(found))  # the order of keys is the same, too
    for broken in (raw[: dice.randrange(len(raw))], raw + b"\x01", raw.replace(b"\x00", b"\xc1")):
        assert outcome(decode, broken) == outcome(lambda raw: unpack_in_pieces(raw, decode), broken)


def outcome(read: Any, raw: bytes) -> Any:
    try:
        return read(raw)
    except (msgspec.DecodeError, RecursionError, TypeError) as error:
        return type(error)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    "value",
    [
        {(1, 2): "a", "b": ["c"] * 99},
        {(1, (2, "k")): ["c"] * 99, "b": 1},
        [[[["a"] * 99] * 3] * 3] * 3,
        {"a": {"b": {"c": "d" * 99}}},
    ],
)
def test_keys_that_are_lists_and_values_within_values_are_read(value: Any) -> None:
    raw = msgspec.msgpack.encode(value)
    assert value == unpack_in_pieces(raw, decode)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    "raw", [pack(["ab"] * 99)[:-1], pack(["ab"] * 99) + b"\x01", b"\x81\x81\x01\x02" + pack([1] * 99)]
)
def test_what_is_broken_is_refused_as_by_the_decoder_without_reading_it_again(raw: bytes) -> None:
    largest = 0

    def counted(piece: msgpack.Buffer) -> Any:
        nonlocal largest
        largest = max(largest, len(piece))
        return decode(piece)

    with pytest.raises(msgspec.DecodeError) as expected:
        decode(raw)
    with pytest.raises(msgspec.DecodeError) as found:
        unpack_in_pieces(raw, counted)
    assert str(expected.value).partition("(byte")[0] == str(found.value).partition("(byte")[0]
    assert largest < len(raw)


@pytest.mark.usefixtures("small_pieces")
def test_tensors_are_read() -> None:
    array = np.arange(400, dtype=np.float32).reshape(20, 20)
    found = unpack_in_pieces(pack({"of": [array, array[:1, :2]], "n": 1}), decode)
    assert np.array_equal(array, found["of"][0])
    assert np.array_equal(array[:1, :2], found["of"][1])
    assert array.dtype == found["of"][0].dtype


@pytest.mark.parametrize("depth", [1, 8, 60])
def test_the_bytes_of_nested_lists_are_visited_a_few_times_however_deep(
    depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    item: Any = [1] * (PIECE + 10)
    for _ in range(depth):
        item = [item]
    raw = msgspec.msgpack.encode([{"a": [item, "b"]}] * 16)
    visited = 0

    def counted(raw: Any, at: int, limit: int) -> int:
        nonlocal visited
        end = end_of(raw, at, limit)
        visited += (limit if end < 0 else end) - at
        return end

    monkeypatch.setattr(msgpack, "end_of", counted)
    assert len(raw) > LARGE
    assert decode(raw) == unpack_in_pieces(raw, decode)
    assert visited < 3 * len(raw)


@pytest.mark.parametrize(
    "value",
    [
        {f"k{n}": n for n in range(300_000)},
        {"parts": [{"id": "a", "n": n} for n in range(200_000)]},
        [n / 3 for n in range(300_000)],
        {"at": [{"of": [[n] for n in range(20_000)]} for _ in range(20)]},
    ],
    ids=["keys", "documents", "floats", "nested"],
)
def test_no_piece_is_large(value: Any) -> None:
    raw = msgspec.msgpack.encode(value)
    sizes: list[int] = []

    def measured(piece: Any) -> Any:
        sizes.append(len(piece))
        return decode(piece)

    assert len(raw) > LARGE
    assert value == unpack_in_pieces(raw, measured)
    assert max(sizes) < 2 * PIECE
    assert len(sizes) < 8 * len(raw) // PIECE + 100


def test_a_document_with_its_json_is_read_in_pieces_too(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def measured(raw: Any, read: Any) -> Any:
        def noted(piece: Any) -> Any:
            sizes.append(len(piece))
            return read(piece)

        return unpack_in_pieces(raw, noted)

    monkeypatch.setattr(msgpack, "unpack_in_pieces", measured)
    values = {"parts": [{"id": "a", "n": n} for n in range(200_000)], "at": np.ones(3)}
    found = msgpack.unpack_answer(pack_rendered(pack(values), b'{"id":"a"}'))
    assert type(found) is Rendered
    assert (values["parts"], [1.0] * 3, b'{"id":"a"}') == (found["parts"], found["at"].tolist(), found.json)
    assert max(sizes) < 2 * PIECE


@pytest.mark.parametrize("wrong", ["a list", "cut", "longer", "a size beyond it"])
def test_a_large_document_with_its_json_that_is_broken_is_refused(wrong: str) -> None:
    values: Any = ["a"] * LARGE if wrong == "a list" else {"a": ["a"] * LARGE}
    raw = pack_rendered(pack(values), b"{}")
    raw = raw[:-9] if wrong == "cut" else raw + b"\x01" if wrong == "longer" else raw
    if wrong == "a size beyond it":
        raw = raw[:6] + b"\xff\xff\xff\xff" + raw[10:]
    with pytest.raises(InvalidDocs):
        msgpack.unpack_answer(raw)
