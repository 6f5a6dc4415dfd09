"""Which texts share a pass of the model: pure functions of their lengths.

A pass costs something by itself, and its longest text times their number: padding is computed like text. So texts are
sorted by length and cut where that makes the sum of all passes least.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby


def split(lengths: Sequence[int], *, pass_tokens: float, max_tokens: int) -> list[list[int]]:
    """The places of the texts of each pass, shortest texts first.

    Args:
        lengths: tokens of each text.
        pass_tokens: what a pass costs by itself, as so many tokens.
        max_tokens: tokens in a pass at most, padding among them; a longer text has one for itself.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    found: list[list[int]] = []
    for begin, end in _cuts([lengths[place] for place in order], pass_tokens):
        rows = max(1, max_tokens // max(1, lengths[order[end - 1]]))
        found += [order[start : min(start + rows, end)] for start in range(begin, end, rows)]
    return found


def _cuts(ascending: Sequence[int], pass_tokens: float) -> list[tuple[int, int]]:
    """Where to cut sorted lengths; texts of one length are never parted."""
    ends, lengths = [0], list[int]()
    for length, same in groupby(ascending):
        lengths.append(length)
        ends.append(ends[-1] + len(list(same)))
    least, cut = [0.0], [0]  # of the texts before each end: the cost, and where the last pass of them begins
    for last, length in enumerate(lengths, 1):
        costs = [least[first] + pass_tokens + length * (ends[last] - ends[first]) for first in range(last)]
        best = min(range(last), key=costs.__getitem__)
        least.append(costs[best])
        cut.append(best)
    cuts, last = list[tuple[int, int]](), len(lengths)
    while last:
        cuts.append((ends[cut[last]], ends[last]))
        last = cut[last]
    return cuts[::-1]
