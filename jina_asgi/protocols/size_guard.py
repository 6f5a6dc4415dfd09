"""How many values a JSON or msgpack body holds, counted before any is made: three bytes would become a hundred.

Texts, keys and lists count once, mappings four times, since documents are made of them: `limit` in all. Of numbers,
true, false and null there may be 20 times as many: they cost less, and arrays hold millions of them.

And whether an answer is so large that writing it takes long.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jina_asgi.concurrency.offload import LARGE
from jina_asgi.documents import _sizes
from jina_asgi.errors import TooLarge
from jina_asgi.types import Docs, Result

JSON, MSGPACK, PROTOBUF = "application/json", "application/msgpack", "application/x-protobuf"
#: Numbers that weigh as much as a text, key or list, and how many of these a mapping weighs.
NUMBERS, MAPPING = 20, 4
#: Bytes of a request's parameters.
PARAMETERS_SIZE = 4 * 2**20
#: Bytes of a body that holds little whatever is in it, and values that are few.
SMALL, _FEW = 2**14, 2**12
_HUGE = 2**23
_BLOCK = 2**18


def check_json(raw: bytes, limit: int) -> None:
    """Refuse a JSON body of more values than `limit` allows.

    Raises:
        TooLarge: so it is.
    """
    if len(raw) <= 2 * limit:
        return  # a number and its comma take two bytes, all else takes more
    if len(raw) <= 2 * NUMBERS * limit and _structure(raw) <= limit:
        return  # what stands within texts is counted, too
    for values, numbers in _counted(raw):
        _check(values, numbers, limit)


class JsonBudget:
    """How many values several JSON texts of one request may hold together: as many as `check_json` allows one."""

    def __init__(self, limit: int) -> None:
        self._limit, self._values, self._numbers = limit, 0, 0

    def spend(self, raw: bytes) -> None:
        """Count one more text.

        Raises:
            TooLarge: with the others it holds too many values.
        """
        values = numbers = 0
        for values, numbers in _counted(raw):
            _check(self._values + values, self._numbers + numbers, self._limit)
        self._values += values
        self._numbers += numbers


def _counted(raw: bytes) -> Iterator[tuple[int, int]]:
    """What a JSON text weighs, and how many commas it has, block after block."""
    texts = openings = commas = 0
    at, inside = 0, 0
    while at < len(raw):
        block = raw[at : at + _BLOCK]
        if (len(block) - len(block.rstrip(b"\\"))) % 2:  # what is escaped belongs to it
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
    """Refuse a msgpack body of more values than `limit` allows; one that is broken is left to its decoder.

    Raises:
        TooLarge: so it is.
    """
    if len(raw) > limit:
        try:
            _count(raw, limit)
        except IndexError:
            return


def check_parameters(value: Any, limit: int) -> None:
    """Refuse parameters of more than `limit` values, or 4 MiB of text: they are compared and copied on the event loop.

    Raises:
        TooLarge: so they are.
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
    """Whether so much may be in a body that it is to be read beside the event loop.

    `numbers`: whether numbers count as other values do; they need not where all are read by numpy.
    """
    return len(raw) >= LARGE or holds_many(media, raw, numbers=numbers)


def needs_patience(media: str, raw: bytes, *, numbers: bool = True) -> bool:
    """Whether reading a heavy body in one go would keep other threads waiting."""
    return len(raw) >= _HUGE or holds_many(media, raw, numbers=numbers)


def holds_many(media: str, raw: bytes, *, numbers: bool = True) -> bool:
    """Whether many values may be in a body.

    Looking takes 0.1 µs a kilobyte, and more where there are many values.
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
    """What the texts, keys, lists and mappings of JSON weigh at most."""
    return _times(raw, b'"') // 2 + _times(raw, b"[") + MAPPING * _times(raw, b"{")


def _times(raw: bytes, letter: bytes) -> int:
    """As `raw.count`, which takes 0.24 ms a megabyte however rare the letter is; looking for the next takes a sixth."""
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
    """Walk from value to value, over arrays of floats or small numbers at one go; raises IndexError at the end."""
    at, size = 0, len(raw)
    values = numbers = 0
    while at < size:
        head = raw[at]
        length = _LENGTHS[head]
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
    """Over how many bytes an array of `count` numbers of one kind reaches, and their number; 0, 0 where it is mixed."""
    if count < 64 or at + count > len(raw):
        return 0, 0
    width = {0xCB: 9, 0xCA: 5}.get(raw[at])
    if width is None:
        return (count, count) if raw[at : at + count].isascii() else (0, 0)
    heads = raw[at : at + width * count : width]
    return (width * count, count) if heads.count(raw[at : at + 1]) == count else (0, 0)


def _lengths() -> tuple[list[int], list[int]]:
    """Two tables by a value's first byte: how many bytes follow, or minus the width of that number; and the value's weight."""
    lengths, weights = [0] * 256, [0] * 256
    for head in (*range(0x80, 0xC0), *range(0xC4, 0xCA), *range(0xD9, 0xE0)):  # mappings, lists, texts, buffers
        weights[head], lengths[head] = 1, head - 0xA0 if 0xA0 <= head < 0xC0 else 0
    for head in (*range(0x80, 0x90), 0xDE, 0xDF):
        weights[head] = MAPPING
    for head, width in {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4}.items():
        lengths[head] = -width
    for head, width in {0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}.items():
        lengths[head] = -width
    for head, length in {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}.items():
        lengths[head] = length
    for head, length in {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}.items():
        lengths[head] = length
    for power in range(5):
        weights[0xD4 + power], lengths[0xD4 + power] = 1, 1 + 2**power
    return lengths, weights


_LENGTHS, _WEIGHTS = _lengths()


def are_large(docs: Docs, media: str) -> bool:
    """Whether writing documents in a media type, and reading them before where they are encoded, takes long."""
    if docs.is_typed:
        return _sizes.are_large(docs.typed, _sizes.JSON if media == JSON else 1)
    buffers = docs.encoded
    size = sum(map(len, buffers))
    if size < SMALL:
        return False
    return len(buffers) > _sizes.MANY or size > _sizes.LARGE or any(holds_many(MSGPACK, bytes(one)) for one in buffers)


def is_large(result: Result, media: str) -> bool:
    """Whether writing an answer in a media type takes long."""
    return are_large(result.docs, media) or bool(result.results and _sizes.is_large([result.results]))
