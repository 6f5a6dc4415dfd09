"""Large values are written in pieces as the encoder itself writes them whole."""

from __future__ import annotations

import random
from collections import Counter, deque
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
from docarray import BaseDoc, DocList
from docarray.typing import NdArray

from jina_asgi.documents import _sizes, chunked_writers
from jina_asgi.documents.chunked_writers import JsonPieces
from jina_asgi.documents.codec import codec_of
from jina_asgi.documents.msgpack import unpack
from jina_asgi.documents.writers import RawJson
from jina_asgi.errors import ExecutorError, InvalidDocs


class Part(BaseDoc):
    text: str = ""
    vector: NdArray | None = None


class Whole(BaseDoc):
    any: Any = None
    text: str = ""
    blob: bytes = b""
    numbers: list[float] = []
    vector: NdArray | None = None
    parts: DocList[Part] | None = None


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces so small that whatever is written is cut."""
    for name, size in {"_PIECE": 200, "_NUMBERS": 7, "_CHARACTERS": 5, "_BYTES": 9}.items():
        monkeypatch.setattr(chunked_writers, name, size)


def value(dice: random.Random, depth: int) -> Any:
    """Anything that JSON and msgpack hold, large or small."""
    many = dice.choice([0, 1, 3, 15, 16, 40, 70_000 if dice.random() < 0.001 else 17])
    kinds: list[Any] = [
        lambda: dice.choice([None, True, -1, 2**63, 0.5, float("nan"), "", "a", b""]),
        lambda: "".join(dice.choice('ab"\\\n\u00e9ж\U0001f600\x00') for _ in range(many)),
        lambda: dice.randbytes(many),
        lambda: (
            np.arange(many * 3)
            .astype(dice.choice(["<f4", "<i8", "?", "<f2"]))
            .reshape(dice.choice([(many, 3), (3, many), (-1,)]))
        ),
    ]
    if depth:
        kinds += [
            lambda: [value(dice, depth - 1) for _ in range(min(many, 20))],
            lambda: tuple(value(dice, depth - 1) for _ in range(min(many, 20))),
            lambda: deque(value(dice, depth - 1) for _ in range(min(many, 20))),
            lambda: {
                dice.choice(["k", "ж", 7, True]) if dice.random() < 0.1 else f"k{n}": value(dice, depth - 1)
                for n in range(min(many, 20))
            },
            lambda: Part(id="a", text="a" * many, vector=np.ones(many)),
            lambda: DocList[Part]([Part(id="a", text="ab", vector=np.ones((2, 9))) for _ in range(min(many, 20))]),
            lambda: [float(n) for n in range(many)],
            lambda: ["text"] * many,
        ]
    return dice.choice(kinds)()


def read(packed: bytes) -> Any:
    """What msgpack holds, as values that can be compared: heads may be wider than they must be."""
    return repr(unpack(packed))


@pytest.mark.parametrize("seed", range(300))
def test_pieces_are_those_of_the_whole(seed: int) -> None:
    dice = random.Random(seed)
    writer = codec_of(Whole)
    given = {"data": value(dice, 3), "parameters": {}}
    assert writer.dumps(given) == writer.dumps(given, in_pieces=True)
    assert read(writer.pack(given)) == read(writer.pack(given, in_pieces=True))


@pytest.mark.parametrize("seed", range(50))
def test_documents_for_the_other_half_are_the_same_in_pieces(seed: int) -> None:
    dice = random.Random(seed)
    writer = codec_of(Whole)
    doc = Whole(id="a", any=value(dice, 2), text="ж" * 90, blob=bytes(99), numbers=[0.5] * 99, vector=np.ones((30, 3)))
    [whole], [cut], [part] = (
        writer.encode([doc]),
        writer.encode([doc], in_pieces=True),
        writer.encode_parts([doc], in_pieces=True),
    )
    assert isinstance(part, bytes)
    assert read(whole) == read(cut) == read(part)


def test_what_cannot_be_written_is_named_by_its_place() -> None:
    writer = codec_of(Whole)
    given = {"data": [{"vector": [0.5] * 99}, {"of": ["a"] * 99 + [np.array([object()])]}]}
    with pytest.raises(ExecutorError, match=r"data\.1\.of\.99: "):
        writer.dumps(given, in_pieces=True)
    with pytest.raises(ExecutorError, match=r"data\.1\.of\.99: a tensor of dtype"):
        writer.pack(given, in_pieces=True)
    with pytest.raises(InvalidDocs, match=r"any\.99"):
        writer.encode([Whole(any=[*range(99), 2**70])], in_pieces=True)


def holding_itself() -> list[Any]:
    alone: list[Any] = []
    alone.append(alone)
    last: list[Any] = ["a" * 99]
    last.append(last)
    twice: list[Any] = []
    twice += [twice, twice]
    mapping: dict[str, Any] = {}
    mapping["a"] = [mapping]
    return [alone, last, twice, mapping]


@pytest.mark.parametrize("endless", holding_itself(), ids=["alone", "last", "twice", "mapping"])
def test_what_holds_itself_is_refused_as_soon_as_the_encoder_refuses_it(endless: Any) -> None:
    counted = Counter[str]()

    def encode(value: Any) -> bytes:
        counted["pieces"] += 1
        return orjson.dumps(value)

    with pytest.raises(orjson.JSONEncodeError):
        JsonPieces(encode, lambda value: value).write(endless)
    assert counted["pieces"] < 100
    with pytest.raises(ExecutorError):
        codec_of(Whole).dumps({"data": endless}, in_pieces=True)
    with pytest.raises(ExecutorError):
        codec_of(Whole).pack({"data": endless}, in_pieces=True)


@pytest.mark.parametrize(
    ("given", "large"),
    [
        ("a" * 2**21, True),
        ("a" * 2**19, False),
        ([0.5] * 2**17, True),
        ([0.5] * 2**10, False),
        (["a"] * 2**17, True),
        ([["a" * 2**17] * 3] * 4, True),
        ({f"k{n}": n for n in range(2**17)}, True),
        ({"a" * 2**21: 1}, True),
        ([{"a": [{"a": "a"}] * 100}] * 1000, True),
        (np.ones(2**19), True),
        (np.ones(2**10), False),
        (Part(text="a" * 2**21), True),
        ([Part(text="a")], False),
        (RawJson(b"1" * 2**21), True),
        (msgspec.Raw(b""), False),
    ],
)
def test_what_is_large_is_known_before_it_is_written(given: Any, large: bool) -> None:
    assert large == _sizes.is_large([given])
    assert large == _sizes.are_large([Whole(any=given)])


def test_what_is_no_document_is_not_large() -> None:
    assert not _sizes.are_large([5, None, "text"])
    assert not _sizes.are_large([5, None, "text", object(), 7])
