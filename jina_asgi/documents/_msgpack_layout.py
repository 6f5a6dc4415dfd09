"""Finds the start and end of msgpack's values, for code that visits a buffer without decoding it."""

from __future__ import annotations

Buffer = bytes | bytearray | memoryview


def _lengths() -> list[int]:
    lengths = [0] * 256
    for head in range(0xA0, 0xC0):
        lengths[head] = head - 0xA0
    for head, width in {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4}.items():
        lengths[head] = -width
    for head, width in {0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}.items():
        lengths[head] = -width
    for head, length in {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}.items():
        lengths[head] = length
    for head, length in {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}.items():
        lengths[head] = length
    for power in range(5):
        lengths[0xD4 + power] = 1 + 2**power
    return lengths


_SMALL_CONTAINERS, _LARGE_CONTAINERS = range(0x80, 0xA0), range(0xDC, 0xE0)
#: By the first byte of a value: how many bytes follow, or minus the width of the length or count that follows.
LENGTHS = _lengths()
#: By the first byte: the size of a value, if this byte determines it; else 0.
SIZES = [0 if head in _SMALL_CONTAINERS or LENGTHS[head] < 0 else 1 + LENGTHS[head] for head in range(256)]


def is_mapping(head: int) -> bool:
    """Whether a value that begins with this byte is a mapping."""
    return 0x80 <= head < 0x90 or 0xDE <= head <= 0xDF


def container(raw: Buffer, at: int) -> tuple[int, int]:
    """The number of items or entries of the list or mapping at a place, and their start; -1 if it is neither."""
    head = raw[at]
    if head in _SMALL_CONTAINERS:
        return head & 15, at + 1
    if head in _LARGE_CONTAINERS:
        start = at + 1 - LENGTHS[head]
        return int.from_bytes(raw[at + 1 : start], "big"), start
    return -1, at


def end_of(raw: Buffer, at: int, limit: int) -> int:
    """The end of the value at a place; -1 if it is beyond `limit`. Raises IndexError at the buffer's end."""
    values = 1
    while values > 0:
        if at >= limit:
            return -1
        head = raw[at]
        values -= 1
        if size := SIZES[head]:
            at += size
            continue
        count, start = container(raw, at)
        if count >= 0:
            at, values = start, values + count * (1 + is_mapping(head))
        else:  # a text, bytes or an extension
            start = at + 1 - LENGTHS[head]
            at = start + int.from_bytes(raw[at + 1 : start], "big") + (0xC7 <= head <= 0xC9)
    return at if at <= limit else -1


def open_at(raw: Buffer, at: int, limit: int) -> list[int]:
    """Where the lists and mappings begin that end beyond `limit`, from the one at a place to the innermost."""
    starts, left = list[int](), list[int]()
    values = 1  # of the innermost; `left` has those after it of the others
    while at < limit:
        if size := SIZES[raw[at]]:
            at += size
        else:
            count, start = container(raw, at)
            if count > 0:
                starts.append(at)
                left.append(values - 1)
                at, values = start, count * (1 + is_mapping(raw[at]))
                continue
            at = start if count == 0 else end_of(raw, at, len(raw))
            if at < 0:  # a text that ends beyond the buffer
                break
        values -= 1
        while not values and left:
            starts.pop()
            values = left.pop()
    return starts
