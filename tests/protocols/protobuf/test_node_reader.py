"""What a large message holds is the same, whether it is parsed as a whole or in pieces."""

from __future__ import annotations

from typing import Any

import pytest
from docarray import BaseDoc, DocList
from google.protobuf.message import DecodeError

from jina_asgi.documents.schemas import schema_of
from jina_asgi.errors import InvalidRequest
from jina_asgi.protocols.protobuf.fast_parser import Scanner
from jina_asgi.protocols.protobuf.messages import DocProto, NodeProto
from jina_asgi.protocols.protobuf.node_reader import NodeReader
from jina_asgi.protocols.protobuf.node_writer import framed
from jina_asgi.settings import Limits

COUNT = 40_000
LONG = "é" * 200_000


class Part(BaseDoc):
    text: str = ""
    pairs: dict[str, str] = {}


class Whole(BaseDoc):
    texts: list[str] = []
    pairs: dict[str, int] = {}
    parts: DocList[Part] = DocList[Part]()
    part: Part | None = None
    some: set[str] = set()
    two: tuple[str, str] = ("", "")
    any: Any = None


READER = NodeReader(schema_of(Whole))


def text(value: str) -> bytes:
    return framed(b"\x0a", value.encode())


def listed(items: list[bytes], tag: bytes = b"\x4a") -> bytes:
    return framed(tag, b"".join(framed(b"\x0a", item) for item in items))


def mapping(tag: bytes, entries: dict[str, bytes]) -> bytes:
    return framed(tag, document(entries))


def document(entries: dict[str, bytes]) -> bytes:
    return b"".join(
        framed(b"\x0a", framed(b"\x0a", key.encode()) + framed(b"\x12", node)) for key, node in entries.items()
    )


MANY = [text(f"t{number}") for number in range(COUNT)]
BY_KEY = {f"k{number}": b"\x10\x01" for number in range(COUNT)}
PARTS = [document({"text": text(f"t{number}"), "other": b"\x10\x02"}) for number in range(COUNT // 4)]
#: By field: nodes that are larger than a piece.
NODES: dict[str, tuple[str, bytes]] = {
    "many items": ("texts", listed(MANY)),
    "with a type": ("texts", listed(MANY) + framed(b"\x6a", b"any")),
    "a long item among others": ("texts", listed([*MANY[:9], text(LONG), *MANY[:9], text(LONG)])),
    "two values, of which the last counts": ("any", listed(MANY) + text("a")),
    "two lists, which are one": ("texts", listed(MANY) + listed(MANY)),
    "entries": ("pairs", mapping(b"\x62", BY_KEY)),
    "an entry twice": ("pairs", framed(b"\x62", document(BY_KEY) + document({"k7": b"\x10\x05"}))),
    "documents": ("parts", framed(b"\x42", b"".join(framed(b"\x0a", one) for one in PARTS))),
    "large documents": (
        "parts",
        framed(b"\x42", framed(b"\x0a", document({"text": text(LONG), "no": text(LONG), "pairs": text("a")})) * 3),
    ),
    "a document": ("part", mapping(b"\x3a", {"text": text(LONG), "pairs": mapping(b"\x62", BY_KEY), "more": text("")})),
    "a set": ("some", listed(MANY, b"\x52")),
    "a pair": ("two", listed([text(LONG), text("b")], b"\x5a")),
    "a tuple": ("any", listed(MANY, b"\x5a")),
    "lists within": ("any", listed([listed([listed(MANY), listed(MANY)]), mapping(b"\x62", {"a": listed(MANY)})])),
    "fields that nothing has": (
        "texts",
        framed(b"\x4a", b"\x10\x01" + framed(b"\x0a", MANY[0]) * COUNT + b"\x1a\x01a"),
    ),
    "a long text": ("any", text(LONG)),
    "nothing": ("any", framed(b"\x7a", b"a" * 300_000)),
}


@pytest.mark.parametrize("name", NODES)
def test_a_node_is_the_same_as_protobufs_own(name: str) -> None:
    key, raw = NODES[name]
    field = READER.field("Whole", key)
    assert field is not None
    assert READER.value(NodeProto.FromString(raw), field) == READER.read(raw, 0, len(raw), field)


@pytest.mark.parametrize("name", NODES)
def test_a_document_is_the_same_as_protobufs_own(name: str) -> None:
    key, raw = NODES[name]
    doc = document({"any": text("a"), key: raw, "texts2": listed(MANY)})
    expected = READER.document(DocProto.FromString(doc), "Whole")
    scanner = Scanner(schema_of(Whole))
    docs = framed(b"\x0a", doc)
    assert [expected] * 2 == scanner.rows(docs * 2, Limits())
    assert [expected] * 2 == scanner.rows(docs + b"\x10\x01" + docs, Limits())


@pytest.mark.parametrize("name", NODES)
def test_what_is_cut_off_is_refused(name: str) -> None:
    key, raw = NODES[name]
    field = READER.field("Whole", key)
    assert field is not None
    with pytest.raises((DecodeError, IndexError, InvalidRequest)):
        READER.read(raw[:-1], 0, len(raw) - 1, field)


def test_values_within_values_end_where_protobuf_ends() -> None:
    raw = text(LONG)
    for _ in range(3000):
        raw = listed([raw])
    field = READER.field("Whole", "any")
    assert field is not None
    with pytest.raises(DecodeError):
        READER.read(raw, 0, len(raw), field)
