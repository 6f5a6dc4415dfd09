"""Callers that come and leave, in crowds, over every Runner and every protocol, while replicas are killed.

    python tests/faults/soak_crowds.py --leavings 100000

`--leavings`: so many of each Runner over each protocol, with ten seeds. After each crowd a calm caller is answered within
a second; at the end every count in `/-/status`, and the tasks, threads and descriptors of the process, are what they were.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.faults.crowds import PLACES, WAYS, crowd
from tests.faults.soak_rig import soak, told

SEEDS = 10
KILLS = 0.02  # of the crowds


async def leavings(count: int, seed: int) -> bool:
    """Each Runner over each protocol."""
    logging.disable(logging.ERROR)  # bad documents are part of it
    return all([await _left(place, way, count, seed) for place in PLACES for way in WAYS])


async def _left(place: str, way: str, count: int, first: int) -> bool:
    start, answers, left = time.monotonic(), dict[str, int](), 0
    name = f"crowds at {place}, {way}"
    for seed in range(first, first + SEEDS):
        try:
            crowds = await crowd(place, way, leavings=max(1, count // SEEDS), seed=seed, kills=KILLS)
        except Exception as error:  # a calm caller that was not answered, or was told an error, says so
            return told(name, False, f"seed {seed}: {type(error).__name__} {error}")
        left += crowds.leavings
        for word, number in crowds.told.items():
            answers[word] = answers.get(word, 0) + number
    return told(name, True, f"{left} left, those that stayed: {answers}, in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    soak(__doc__, {"leavings": leavings})
