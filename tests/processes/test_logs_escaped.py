"""What a replica prints is shown with its control characters, and what is no UTF-8, escaped."""

from __future__ import annotations

import sys

import pytest

from jina_asgi.processes.logs import _printable


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"plain\ttext\r\r", "plain\ttext"),
        (b"\x1b[2J\x00\r.", r"\x1b[2J\x00\r."),
        ("é漢😀\u202e\u2028\x85".encode(), r"é漢😀\u202e\u2028\x85"),
        (b"\xff\xfe\x80a\xc3", r"\xff\xfe\x80a\xc3"),
        ("\udc80\ud800".encode("utf-8", "surrogatepass"), r"\xed\xb2\x80\xed\xa0\x80"),
        (b"\xff" * 9999, r"\xff" * 9999),
    ],
    ids=ascii,
)
def test_a_line_is_shown(line: bytes, shown: str) -> None:
    assert shown == _printable(line)


def test_each_character_is_printable_or_escaped() -> None:
    every = "".join(map(chr, (*range(0xD800), *range(0xE000, sys.maxunicode + 1))))
    shown = _printable(every.encode())
    assert all(character.isprintable() or character == "\t" for character in shown)
    expected = (c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in every)
    assert "".join(expected) == shown
