"""Frames: what is written is read again however it is cut, and nothing that is read does harm."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jina_asgi.errors import ProtocolError, TooLarge
from jina_asgi.protocols.frames import _layout
from jina_asgi.protocols.frames._layout import (
    COPIED_BELOW,
    DOCS_LIMIT,
    FRAME_LIMIT,
    Buffer,
    Frame,
    FrameKind,
    FrameReader,
    Reference,
    write_frame,
)

HEADER = struct.Struct("<IQBBII")

frames = st.builds(
    Frame,
    st.sampled_from([int(kind) for kind in FrameKind]),
    st.integers(0, 2**64 - 1),
    st.binary(max_size=64),
    st.lists(st.one_of(st.binary(max_size=64), st.just(bytes(COPIED_BELOW + 1))), max_size=5),
)


def written(frame: Frame, limit: int = FRAME_LIMIT) -> bytes:
    out: list[bytes | memoryview] = []
    size = write_frame(out, frame.kind, frame.request, frame.head, frame.docs, limit)
    data = b"".join(out)
    assert size == len(data)
    return data


def plain(frames: Iterable[Frame]) -> list[tuple[int, int, bytes, list[bytes]]]:
    return [(frame.kind, frame.request, frame.head, [bytes(doc) for doc in frame.docs]) for frame in frames]


def read(chunks: Iterable[bytes], reader: FrameReader | None = None) -> list[Frame]:
    reader = reader or FrameReader()
    return [frame for chunk in chunks for frame in reader.feed(chunk)]


def cut(data: bytes, points: Sequence[int]) -> list[bytes]:
    at = sorted({0, len(data), *(point % (len(data) + 1) for point in points)})
    return [data[start:stop] for start, stop in pairwise(at)]


@given(st.lists(frames, min_size=1, max_size=5), st.lists(st.integers(0, 2**20)))
def test_frames_cut_anywhere_are_read_as_they_were_written(sent: list[Frame], points: list[int]) -> None:
    reader = FrameReader()

    received = read(cut(b"".join(map(written, sent)), points), reader)

    assert plain(sent) == plain(received)
    assert reader.pending == 0


@settings(max_examples=settings().max_examples // 4)  # each is thousands of reads
@given(st.lists(frames, min_size=1, max_size=3))
def test_frames_that_come_byte_by_byte_are_read_as_they_were_written(sent: list[Frame]) -> None:
    data = b"".join(map(written, sent))

    assert plain(sent) == plain(read(data[i : i + 1] for i in range(len(data))))


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_bytes_that_are_no_frames_raise_protocol_error_and_nothing_else(chunks: list[bytes]) -> None:
    reader = FrameReader()
    try:
        read(chunks, reader)
    except ProtocolError:
        with pytest.raises(ProtocolError):
            read([b"anything"], reader)


@given(frames, st.data())
def test_a_frame_with_a_changed_byte_is_read_as_another_or_raises_protocol_error(
    frame: Frame, data: st.DataObject
) -> None:
    changed = bytearray(written(frame))
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        for got in read([bytes(changed)]):
            assert len(got.docs) <= len(changed)
    except ProtocolError:
        return


def test_a_frame_that_is_cut_off_is_kept_and_gives_nothing() -> None:
    reader = FrameReader()
    data = written(Frame(_layout.CALL, 1, b"head", [b"doc"]))

    assert read([data[:-1]], reader) == []
    assert len(data) - 1 == reader.pending


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ((0xFFFFFFFF, 1, _layout.CALL, 0, 0, 0), "4294967295 bytes is over the limit"),
        ((FRAME_LIMIT + 1, 1, _layout.CALL, 0, 0, 1), "over the limit"),
        ((0, 1, 0, 0, 0, 0), "kind 0"),
        ((0, 1, 17, 0, 0, 0), "kind 17"),
        ((0, 1, _layout.CALL, 2, 0, 0), "flags 0x2"),
        ((8, 1, _layout.CALL, 0, 9, 0), "cannot hold"),
        ((8, 1, _layout.CALL, 0, 7, 0), "cannot hold"),
        ((8, 1, _layout.CALL, 0, 0, 3), "cannot hold"),
        ((FRAME_LIMIT, 1, _layout.CALL, 0, 0, DOCS_LIMIT + 1), "docs is over the limit"),
        ((FRAME_LIMIT, 1, _layout.CALL, 0, 0xFFFFFFFF, 0xFFFFFFFF), "docs is over the limit"),
    ],
)
def test_a_header_that_lies_is_refused_before_anything_is_kept_for_it(header: tuple[int, ...], complaint: str) -> None:
    for chunks in ([HEADER.pack(*header)], [HEADER.pack(*header)[:9], HEADER.pack(*header)[9:]]):
        reader = FrameReader()
        tracemalloc.start()
        with pytest.raises(ProtocolError, match=complaint):
            read(chunks, reader)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 100_000
        assert reader.pending == 0


@pytest.mark.parametrize("lengths", [(4,), (2,), (1, 3), (0xFFFFFFFF,), (0xFFFFFFFF, 4)])
def test_lengths_that_do_not_fill_the_frame_are_refused(lengths: tuple[int, ...]) -> None:
    table = struct.pack(f"<{len(lengths)}I", *lengths)
    data = HEADER.pack(len(table) + 3, 1, _layout.CALL, 0, 0, len(lengths)) + table + b"doc"

    with pytest.raises(ProtocolError, match="do not fill"):
        read([data])


def test_frames_before_a_broken_one_are_given_first() -> None:
    good = Frame(_layout.CALL, 1, b"head", [b"doc"])
    received: list[Frame] = []

    with pytest.raises(ProtocolError, match="kind 255"):
        received.extend(FrameReader().feed(written(good) + b"\xff" * 22))

    assert plain([good]) == plain(received)


def test_a_frame_over_the_limit_is_not_written() -> None:
    assert written(Frame(_layout.CALL, 1, b"", [bytes(96)]), limit=100)
    with pytest.raises(TooLarge, match="a frame of 101 bytes and 1 docs"):
        written(Frame(_layout.CALL, 1, b"", [bytes(97)]), limit=100)
    with pytest.raises(TooLarge, match="a frame of 101 bytes and 0 docs"):
        written(Frame(_layout.CALL, 1, bytes(101)), limit=100)
    with pytest.raises(TooLarge, match="docs"):
        written(Frame(_layout.CALL, 1, b"", [b""] * (DOCS_LIMIT + 1)))


def test_a_small_doc_does_not_keep_its_chunk_alive_and_a_large_one_is_not_copied() -> None:
    small, large = read([written(Frame(_layout.ITEM, 1, b"", [b"small", bytes(COPIED_BELOW)]))])[0].docs

    assert isinstance(small, bytes)
    assert isinstance(large, memoryview)
    assert large.readonly


def test_a_large_doc_in_many_pieces_is_read_only_too() -> None:
    data = written(Frame(_layout.ITEM, 1, b"", [bytes(COPIED_BELOW)]))

    (doc,) = read([data[:100], data[100:]])[0].docs

    assert isinstance(doc, memoryview)
    assert doc.readonly


def test_a_doc_that_lies_elsewhere_is_looked_up_there() -> None:
    reference = Reference(3, 9, 4096, 70_000)
    out: list[Buffer] = []
    write_frame(out, _layout.CALL, 1, b"\x80", [b"here", reference, b""])
    asked: list[Reference] = []

    def find(found: Reference) -> memoryview:
        asked.append(found)
        return memoryview(b"there")

    reader = FrameReader(find=find)
    data = b"".join(out)
    [frame] = [frame for size in (7, len(data)) for frame in reader.feed(data[:size] if size == 7 else data[7:])]
    assert [b"here", b"there", b""] == [bytes(doc) for doc in frame.docs]
    assert [reference] == asked


def test_a_doc_that_lies_elsewhere_is_refused_where_no_memory_is_shared() -> None:
    out: list[Buffer] = []
    write_frame(out, _layout.CALL, 1, b"", [Reference(1, 1, 0, 10)])
    with pytest.raises(ProtocolError, match="shared memory"):
        read([b"".join(out)])


@pytest.mark.parametrize("lengths", [(1 << 31 | 4,), (1 << 31 | 24, 5), (1 << 31 | 28,), (24,)])
def test_references_that_lie_are_refused(lengths: tuple[int, ...]) -> None:
    table = struct.pack(f"<{len(lengths)}I", *lengths)
    data = HEADER.pack(len(table) + 28, 1, _layout.CALL, _layout.SHARED, 0, len(lengths)) + table + bytes(28)
    with pytest.raises(ProtocolError):
        read([data], FrameReader(find=lambda _: memoryview(b"")))


def test_a_frame_counts_what_it_refers_to() -> None:
    with pytest.raises(TooLarge, match="limits of 1000"):
        write_frame([], _layout.CALL, 1, b"", [Reference(1, 1, 0, 2000)], limit=1000)
