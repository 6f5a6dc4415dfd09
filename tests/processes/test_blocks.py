"""Blocks of an arena: never two in one place, and all of it free again once all are given back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jina_asgi.processes.arena import PAGE, Blocks

SIZE = 16 * PAGE


@given(st.lists(st.one_of(st.integers(0, 6 * PAGE), st.none()), max_size=60), st.randoms(use_true_random=False))
def test_blocks_do_not_overlap_and_come_back(steps: list[int | None], dice: object) -> None:
    blocks, allocated = Blocks(SIZE), dict[int, int]()
    for length in steps:
        if length is None and allocated:
            offset = dice.choice(sorted(allocated))  # type: ignore[attr-defined]  # a Random
            del allocated[offset]
            assert blocks.free(offset)
        elif length is not None and (offset := blocks.allocate(length)) is not None:
            end = offset + max(length, 1)
            assert offset % PAGE == 0
            assert 0 <= offset < end <= SIZE
            assert all(end <= other or offset >= other + size for other, size in allocated.items())
            allocated[offset] = max(length, 1)
    for offset in allocated:
        assert blocks.free(offset)
    assert blocks.allocated == 0
    assert blocks.allocate(SIZE) == 0


def test_what_was_used_last_is_used_again() -> None:
    blocks = Blocks(SIZE)
    first = blocks.allocate(PAGE)
    assert first is not None
    blocks.free(first)
    assert first == blocks.allocate(2 * PAGE)


def test_a_full_arena_has_no_room_and_what_was_not_taken_cannot_be_given_back() -> None:
    blocks = Blocks(SIZE)
    blocks.allocate(SIZE)
    assert blocks.allocate(1) is None
    assert not blocks.free(PAGE)
