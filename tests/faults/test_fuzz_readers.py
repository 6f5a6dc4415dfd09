"""A little of the fuzzing of readers in every run of the tests; `fuzz_readers.py` does as much as one likes."""

import pytest

from tests.faults.fuzz_readers import TARGETS, fuzz


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_texts_raise_nothing_but_errors_of_ours(name: str) -> None:
    """IN-16."""
    seen = fuzz(name, 500, seed=0)

    assert seen.total() == 500
    assert seen["read"] > 0  # some still mean something, so what lies behind the reader is reached


@pytest.mark.parametrize("name", TARGETS)
def test_unchanged_data_is_read(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].read(seed)  # raises where it is not
