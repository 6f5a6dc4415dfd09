"""Parses a large JSON body in pieces, so that other threads run in between: a parser holds the GIL until it has read all.

The text is cut at commas, some hundred kilobytes apart. The lists and mappings that are open at a cut are kept here, and
the parser's values are added to them; the parser checks the values. A text that is longer than that is parsed in pieces
of its own: its value has a short one in its place meanwhile.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import orjson

from jina_asgi.errors import InvalidRequest

#: Levels of nesting where no limit is given: about as many as orjson reads.
MAX_LEVELS = 1000
_PIECE = 2**18
_SPACE = b" \t\n\r"
_KINDS = np.zeros(256, np.int8)
_KINDS[[*b"[{"]], _KINDS[[*b"]}"]], _KINDS[44], _KINDS[34] = 1, -1, 2, 3
_OPEN, _CLOSE, _COMMA, _QUOTE = 1, -1, 2, 3


def loads(raw: bytes, depth: int, *, piece: int = _PIECE) -> Any:
    """Parses a JSON text as orjson does.

    Args:
        depth: the nesting limit: deeper lists and mappings that are larger than a piece are refused.
        piece: bytes after which other threads can run.

    Raises:
        InvalidRequest: it is not JSON.
    """
    pieces = _OpenValues(depth)
    for start, stop, places, kinds in _marks(raw, piece):
        if stop - start <= 2 * piece + 1:
            pieces.take(raw, start, stop, places, kinds)
        else:
            pieces.take_long(raw, start, stop, places, kinds, piece)
    return pieces.end()


def without_nested(raw: bytes) -> bytes:
    """A JSON object with null for each list and mapping in it."""
    kept, begin, level = list[bytes](), 0, 0
    for _, _, places, kinds in _marks(raw, _PIECE):
        brackets = np.abs(kinds) == 1
        at, steps = places[brackets], kinds[brackets]
        levels = level + np.cumsum(steps, dtype=np.int64)
        level = int(levels[-1]) if len(levels) else level
        turns = np.flatnonzero(((steps == _OPEN) & (levels == 2)) | ((steps == _CLOSE) & (levels == 1)))
        for place, step in zip(at[turns].tolist(), steps[turns].tolist(), strict=True):
            if step == _OPEN:
                kept += raw[begin:place], b"null"
            else:
                begin = place + 1
    return b"".join(kept) + (raw[begin:] if level < 2 else b"")


def _marks(raw: bytes, piece: int) -> Any:
    """Yields pieces that end after a comma, or at the end: start, end, and the places and kinds of its marks.

    Marks are brackets, commas and quotes, except those within a text.
    """
    at = start = inside = 0
    places: list[Any] = []
    kinds: list[Any] = []
    while at < len(raw):
        block = raw[at : at + piece]
        if (len(block) - len(block.rstrip(b"\\"))) % 2:  # an escaped quote belongs to the text
            block = raw[at : at + piece + 1]
        plain = block.replace(b"\\\\", b"__").replace(b'\\"', b"__") if b"\\" in block else block
        marks = _KINDS[np.frombuffer(plain, np.uint8)]
        found = np.flatnonzero(marks)
        kind = marks[found]
        quotes = np.cumsum(kind == _QUOTE)
        outside = ((quotes + inside) % 2 == 0) | (kind == _QUOTE)
        inside = (inside + int(quotes[-1])) % 2 if len(quotes) else inside
        found, kind = found[outside], kind[outside]
        commas = np.flatnonzero(kind == _COMMA)
        cuts = commas[[0, -1]] if len(commas) > 1 and at - start > piece else commas[-1:]  # a long text ends here
        last = 0
        for cut in cuts.tolist():
            stop = at + int(found[cut]) + 1
            yield (
                start,
                stop,
                np.concatenate([*places, found[last : cut + 1] + at]),
                np.concatenate([*kinds, kind[last : cut + 1]]),
            )
            start, last, places, kinds = stop, cut + 1, [], []
        places.append(found[last:] + at)
        kinds.append(kind[last:])
        at += len(block)
    yield (
        start,
        len(raw),
        np.concatenate([*places, np.empty(0, np.int64)]),
        np.concatenate([*kinds, np.empty(0, np.int8)]),
    )


class _OpenValues:
    """The values read so far: the open lists and mappings, of which the outermost is a list of the one value."""

    def __init__(self, depth: int) -> None:
        self._raw, self._depth = b"", depth
        self._texts: dict[Any, str] = {}  # the long texts of the piece, by what is in their places
        self._open: list[Any] = [[]]
        self._behind = False  # directly after a value: a comma or an end must follow
        self._wants = True  # a value must follow

    def take_long(self, raw: bytes, start: int, stop: int, places: Any, kinds: Any, piece: int) -> None:
        """As `take`, for a piece with long texts: it has no comma but at its end, so each list or mapping has one item."""
        quotes = places[kinds == _QUOTE]
        shorter, kept = places - start, list[bytes]()
        for begin, end in zip(quotes[::2].tolist(), quotes[1::2].tolist(), strict=False):
            if end - begin > piece:
                key = os.urandom(16).hex()
                self._texts[key] = _long_text(raw, begin + 1, end, piece)
                kept += raw[start : begin + 1], key.encode()
                shorter[places >= end] -= end - begin - 1 - len(key)
                start = end
        kept.append(raw[start:stop])
        short = b"".join(kept)
        self.take(short, 0, len(short), shorter, kinds)
        self._texts.clear()

    def take(self, raw: bytes, start: int, stop: int, places: Any, kinds: Any) -> None:
        """Read a piece: the lists and mappings that it closes, those that it leaves open, and the values between."""
        self._raw = raw
        brackets = np.abs(kinds) == 1
        at, steps = places[brackets], kinds[brackets]
        levels = len(self._open) + np.cumsum(steps, dtype=np.int64)
        lowest = min(len(self._open), int(levels.min(initial=len(self._open))))
        for level in range(len(self._open) - 1, lowest - 1, -1):
            place = int(at[np.argmax(levels == level)])
            self._close(start, place)
            start = place + 1
        final = int(levels[-1]) if len(levels) else lowest
        if final > self._depth:
            raise InvalidRequest(f"the body nests deeper than {self._depth}")
        for level in range(lowest + 1, final + 1):
            below = np.flatnonzero(levels == level - 1)
            place = int(at[below[-1] + 1 if len(below) else 0])
            self._enter(start, place, places[kinds == _QUOTE])
            start = place + 1
        is_cut = stop > start and len(kinds) > 0 and int(kinds[-1]) == _COMMA and int(places[-1]) == stop - 1
        self._add(self._raw[start : stop - is_cut], closes=not is_cut)
        if is_cut:
            self._behind, self._wants = False, True

    def end(self) -> Any:
        """Return the value."""
        if len(self._open) != 1 or len(self._open[0]) != 1:
            raise _broken()
        return self._open[0][0]

    def _close(self, start: int, place: int) -> None:
        expected = b"]" if isinstance(self._open[-1], list) else b"}"
        if len(self._open) == 1 or self._raw[place : place + 1] != expected:
            raise _broken()
        self._add(self._raw[start:place], closes=True)
        self._open.pop()
        self._behind, self._wants = True, False

    def _enter(self, start: int, place: int, quotes: Any) -> None:
        """Open a list or a mapping that this piece does not close."""
        outer = self._open[-1]
        made: Any = [] if self._raw[place : place + 1] == b"[" else {}
        if isinstance(outer, list):
            self._add_before(self._raw[start:place])
            outer.append(made)
        else:
            before = quotes[: np.searchsorted(quotes, place)]
            if len(before) < 2 or before[-2] < start:
                raise _broken()
            begin, stop = int(before[-2]), int(before[-1]) + 1
            if self._raw[stop:place].strip(_SPACE) != b":":
                raise _broken()
            self._add_before(self._raw[start:begin])
            key = _parsed(self._raw[begin:stop])
            outer[self._texts.get(key, key)] = made
        self._open.append(made)
        self._behind = self._wants = False

    def _add_before(self, text: bytes) -> None:
        """Add values up to a comma, if any."""
        text = text.strip(_SPACE)
        if not text and not self._behind:
            return
        if not text.endswith(b","):
            raise _broken()
        if text == b"," and self._behind:
            return
        self._add(text[:-1], closes=False)

    def _add(self, text: bytes, *, closes: bool) -> None:
        """Add the values of a text to the innermost open one; `closes`: they end it, and there may be none."""
        text = text.strip(_SPACE)
        if self._behind:
            if text and not text.startswith(b","):
                raise _broken()
            if not text:
                return
            text = text[1:].strip(_SPACE)
            if not text:
                raise _broken()
        elif not text:
            if self._wants or not closes:
                raise _broken()
            return
        outer = self._open[-1]
        made = _parsed((b"[%s]" if isinstance(outer, list) else b"{%s}") % text)
        if self._texts:
            self._fill_in(made)
        if isinstance(outer, list):
            outer += made
        else:
            outer |= made

    def _fill_in(self, made: Any) -> None:
        """Put the long texts into a value in which each list or mapping has one item at most."""
        while made and isinstance(made, list | dict):
            key, value = (0, made[0]) if isinstance(made, list) else made.popitem()
            if isinstance(value, str):
                value = self._texts.get(value, value)
            if isinstance(made, list):
                made[0] = value
            else:
                made[self._texts.get(key, key)] = value
            made = value


def _long_text(raw: bytes, at: int, end: int, piece: int) -> str:
    """Parses the text between two quotes."""
    parsed, piece = list[str](), max(piece, 32)
    while at < end:
        stop = _cut(raw, at, min(at + piece, end)) if at + piece < end else end
        parsed.append(_parsed(b'"%s"' % raw[at:stop]))
        at = stop
    return "".join(parsed)


def _cut(raw: bytes, start: int, stop: int) -> int:
    """The last place up to `stop` that is not within a letter or an escape, nor between two halves of a letter."""
    for _ in range(3):
        stop -= (raw[stop] & 0xC0) == 0x80
    for _ in range(2):  # the second one may be the first half of what begins at the cut
        escape = raw.rfind(b"\\", max(start, stop - 6), stop)
        run = escape + 1 - start - len(raw[start : escape + 1].rstrip(b"\\")) if escape >= 0 else 0
        whole = 6 if raw[escape + 1 : escape + 2] == b"u" else 2
        is_half = whole == 6 and raw[escape + 2 : escape + 4].lower() in (b"d8", b"d9", b"da", b"db")
        if run % 2 and (escape + whole > stop or (escape + whole == stop and is_half)):
            stop = escape
    return stop


def _parsed(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error.msg}") from None


def _broken() -> InvalidRequest:
    return InvalidRequest("the body is not JSON: a bracket, a comma or a value is missing, or one too many")
