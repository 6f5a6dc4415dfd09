"""Which texts share a pass."""

from __future__ import annotations

import random
from itertools import combinations, pairwise

import pytest

from jina_asgi.contrib.text_embedding.passes import split


def cost(lengths: list[int], passes: list[list[int]], pass_tokens: float) -> float:
    return sum(pass_tokens + len(places) * max(lengths[at] for at in places) for places in passes)


def test_few_long_texts_do_not_pad_many_short_ones() -> None:
    lengths = [256, *[8] * 15, 256, *[8] * 15]
    found = split(lengths, pass_tokens=32, max_tokens=16_384)
    assert [sorted(lengths[at] for at in places) for places in found] == [[8] * 30, [256] * 2]


def test_a_pass_that_costs_more_than_the_padding_is_saved() -> None:
    assert len(split([8, 9, 10, 11], pass_tokens=32, max_tokens=16_384)) == 1


@pytest.mark.parametrize("pass_tokens", [0, 5, 40])
def test_no_other_cut_of_the_sorted_texts_costs_less(pass_tokens: int) -> None:
    draw = random.Random(3)
    for _ in range(20):
        lengths = [draw.choice([3, 5, 8, 13, 40, 41]) for _ in range(7)]
        order = sorted(range(7), key=lengths.__getitem__)
        cuts = [(0, *inner, 7) for count in range(7) for inner in combinations(range(1, 7), count)]
        least = min(cost(lengths, [order[a:b] for a, b in pairwise(cut)], pass_tokens) for cut in cuts)
        assert cost(lengths, split(lengths, pass_tokens=pass_tokens, max_tokens=10**6), pass_tokens) == least


@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_every_text_is_in_one_pass_and_no_pass_is_over_the_bound(count: int) -> None:
    draw = random.Random(count)
    lengths = [draw.randint(0, 60) for _ in range(count)]
    found = split(lengths, pass_tokens=500, max_tokens=50)
    assert sorted(at for places in found for at in places) == list(range(count))
    assert all(len(places) == 1 or len(places) * max(lengths[at] for at in places) <= 50 for places in found)
