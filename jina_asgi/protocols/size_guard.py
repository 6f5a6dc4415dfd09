"""Counts the values of a JSON or msgpack body before it is parsed, as three bytes can become a hundred in memory.

Texts, keys and lists count once, mappings four times, as documents are made of them; `limit` bounds the sum. 20 times as
many numbers, true, false and null are allowed: they cost less, and arrays have millions of them.

Also estimates whether writing an answer takes long.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jina_asgi.concurrency.offload import LARGE
from jina_asgi.documents import _sizes
from jina_asgi.documents.msgpack import LENGTHS
from jina_asgi.errors import TooLarge
from jina_asgi.types import Docs, Result

JSON, MSGPACK, PROTOBUF = "application/json", "application/msgpack", "application/x-protobuf"
#: The numbers that count as one text, key or list; and the weight of a mapping.
NUMBERS, MAPPING = 20, 4
#: Bytes of a request's parameters.
PARAMETERS_SIZE = 4 * 2**20
#: The size of a body that is small whatever it contains, and the number of values that are few.
SMALL, _FEW = 2**14, 2**12
#: The size from which a body is parsed in pieces, whatever it contains.
HUGE = 2**23
_BLOCK = 2**18


def check_json(raw: bytes, limit: int) -> None:
    """Check that a JSON body has no more values than `limit` allows.

    Raises:
        TooLarge: it has more.
    """
    if len(raw) <= 2 * limit:
        return  # a number and its comma take two bytes, other values more
    if len(raw) <= 2 * NUMBERS * limit and _structure(raw) <= limit:
        return  # characters within texts are counted too
    for values, numbers in _counted(raw):
        _check(values, numbers, limit)


class JsonBudget:
    """Counts the values of several JSON texts of one request, which together may have as many as one body."""

    def __init__(self, limit: int) -> None:
        self._limit, self._values, self._numbers = limit, 0, 0

    def spend(self, raw: bytes) -> None:
        """Count another text.

        Raises:
            TooLarge: there are too many values.
        """
        values = numbers = 0
        for values, numbers in _counted(raw):
            _check(self._values + values, self._numbers + numbers, self._limit)
        self._values += values
        self._numbers += numbers


def _counted(raw: bytes) -> Iterator[tuple[int, int]]:
    """The weight of a JSON text, and its number of commas, block by block."""
    texts = openings = commas = 0
    at, inside = 0, 0
    while at < len(raw):
        block = raw[at : at + _BLOCK]
        if (len(block) - len(block.rstrip(b"\\"))) % 2:  # an escaped quote belongs to the text
            block = raw[at : at + _BLOCK + 1]
        at += len(block)
        if b"\\" in block:
            block = block.replace(b"\\\\", b"").replace(b'\\"', b"")
        pieces = block.split(b'"')
        texts += len(pieces) - 1
        outside = b"".join(pieces[inside::2])
        inside ^= (len(pieces) - 1) & 1
        openings += outside.count(b"[") + MAPPING * outside.count(b"{")
        commas += outside.count(b",")
        yield texts // 2 + openings, commas


def check_msgpack(raw: bytes, limit: int) -> None:
    """Check that a msgpack body has no more values than `limit` allows; a broken one is left to its decoder.

    Raises:
        TooLarge: it has more.
    """
    if len(raw) > limit:
        try:
            _count(raw, limit)
        except IndexError:
            return


def check_parameters(value: Any, limit: int) -> None:
    """Check that parameters have at most `limit` values and 4 MiB of text: they are compared and copied on the event loop.

    Raises:
        TooLarge: they have more.
    """
    values = size = 0
    within = [value]
    while within:
        part = within.pop()
        values += len(part)
        if values > limit:
            raise TooLarge(f"expected at most {limit} values in the parameters; `limits` of JinaASGI raises this")
        if isinstance(part, Mapping):
            size += sum(map(len, map(str, part)))
            part = part.values()
        for item in part:
            if isinstance(item, dict | list):
                within.append(item)
            elif isinstance(item, str | bytes):
                size += len(item)
            else:
                size += getattr(item, "nbytes", 0)
        if size > PARAMETERS_SIZE:
            raise TooLarge(f"expected at most {PARAMETERS_SIZE} bytes of parameters")


def is_heavy(media: str, raw: bytes, *, numbers: bool = True) -> bool:
    """Whether a body may have so many values that it should be read in a thread.

    `numbers`: whether numbers count like other values; not if numpy reads all of them.
    """
    return len(raw) >= SMALL and (len(raw) >= LARGE or holds_many(media, raw, numbers=numbers))


def needs_patience(media: str, raw: bytes, *, numbers: bool = True) -> bool:
    """Whether reading a heavy body in one call would block other threads."""
    return len(raw) >= HUGE or holds_many(media, raw, numbers=numbers)


def holds_many(media: str, raw: bytes, *, numbers: bool = True) -> bool:
    """Whether a body may have many values.

    This takes 0.1 µs for each kilobyte, and more if there are many values.
    """
    if len(raw) < SMALL:
        return False
    if media == JSON:
        return _structure(raw) > _FEW or (numbers and raw.count(b",") > _FEW)
    if media == PROTOBUF:  # a value's field begins with a 10
        return raw.count(b"\x0a") > _FEW
    try:
        _count(raw, _FEW)
    except (TooLarge, IndexError):
        return True
    return False


def _structure(raw: bytes) -> int:
    """The greatest possible weight of the texts, keys, lists and mappings of a JSON text."""
    return _times(raw, b'"') // 2 + _times(raw, b"[") + MAPPING * _times(raw, b"{")


def _times(raw: bytes, letter: bytes) -> int:
    """As `raw.count`, which takes 0.24 ms for each megabyte however rare the letter is; finding the next takes a sixth."""
    found, at = 0, raw.find(letter)
    while at >= 0:
        if found == _FEW:
            return raw.count(letter)
        found += 1
        at = raw.find(letter, at + 1)
    return found


def _check(values: int, numbers: int, limit: int) -> None:
    if values > limit or numbers > NUMBERS * limit:
        raise TooLarge(
            f"expected at most {limit} texts, keys, lists and mappings (which count {MAPPING} times), and {NUMBERS} times "
            "as many numbers, in one request; `limits` of JinaASGI raises this"
        )


def _count(raw: bytes, limit: int) -> None:
    """Count value by value, but arrays of floats or small numbers at once; raises IndexError at the end."""
    at, size = 0, len(raw)
    values = numbers = 0
    while at < size:
        head = raw[at]
        length = LENGTHS[head]
        at += 1
        if length >= 0:
            at += length
            values += _WEIGHTS[head]
            numbers += not _WEIGHTS[head]
        else:
            width = -length
            count = int.from_bytes(raw[at : at + width], "big")
            at += width
            values += _WEIGHTS[head]
            if head in (0xDC, 0xDD):
                alike = _alike(raw, at, count)
                at, numbers = at + alike[0], numbers + alike[1]
            elif head not in (0xDE, 0xDF):
                at += count + (0xC7 <= head <= 0xC9)
        if values > limit or numbers > NUMBERS * limit:
            _check(values, numbers, limit)


def _alike(raw: bytes, at: int, count: int) -> tuple[int, int]:
    """The bytes of an array of `count` numbers of one kind, and their number; 0, 0 if it is mixed."""
    if count < 64 or at + count > len(raw):
        return 0, 0
    width = {0xCB: 9, 0xCA: 5}.get(raw[at])
    if width is None:
        return (count, count) if raw[at : at + count].isascii() else (0, 0)
    heads = raw[at : at + width * count : width]
    return (width * count, count) if heads.count(raw[at : at + 1]) == count else (0, 0)


def _weights() -> list[int]:
    """A table by a value's first byte: its weight, which is 0 for numbers."""
    weights = [0] * 256
    for head in (*range(0x80, 0xC0), *range(0xC4, 0xCA), *range(0xD4, 0xE0)):  # mappings, lists, texts, buffers
        weights[head] = MAPPING if head < 0x90 or head in (0xDE, 0xDF) else 1
    return weights


_WEIGHTS = _weights()


def are_large(docs: Docs, media: str) -> bool:
    """Whether writing documents in a media type, and decoding them first if they are encoded, takes long."""
    if docs.objects is not None:
        return _sizes.are_large(docs.objects, _sizes.JSON if media == JSON else 1)
    buffers = docs.encoded
    size = sum(map(len, buffers))
    if size < SMALL:
        return False
    return len(buffers) > _sizes.MANY or size > _sizes.LARGE or any(holds_many(MSGPACK, bytes(one)) for one in buffers)


def is_large(result: Result, media: str) -> bool:
    """Whether writing an answer in a media type takes long."""
    return are_large(result.docs, media) or bool(result.results and _sizes.is_large([result.results]))
