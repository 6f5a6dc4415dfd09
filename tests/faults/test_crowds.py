"""Callers that come and leave in crowds, over every Runner and every protocol: the next one is answered, nothing is left."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.faults.crowds import IN_PROCESSES, PLACES, WAYS, crowd

HERE = [(place, way) for place in PLACES if place not in IN_PROCESSES for way in WAYS]
#: A few of those that `soak_crowds.py` has: each starts processes.
THERE = [
    ("pool", "http"),
    ("pool", "grpc"),
    ("batched pool", "in process"),
    ("batched pool", "websocket"),
]


@pytest.fixture(autouse=True)
def _no_log() -> Iterator[None]:
    """Bad documents are part of it, and pytest keeps what is logged, with the frames of its errors and what is in them."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(("place", "way"), HERE)
async def test_a_calm_caller_is_answered_after_crowds_have_left(place: str, way: str) -> None:
    crowds = await crowd(place, way, leavings=1000, seed=1)
    assert crowds.leavings == 1000


@pytest.mark.processes
@pytest.mark.parametrize(("place", "way"), THERE)
async def test_a_calm_caller_is_answered_after_crowds_have_left_and_replicas_have_died(place: str, way: str) -> None:
    crowds = await crowd(place, way, leavings=1000, seed=1, kills=0.1)
    assert crowds.leavings == 1000
