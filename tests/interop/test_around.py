"""Executors before and after shards: one program has the same answers from a real Jina and from us."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.interop.conftest import OURS

pytestmark = pytest.mark.processes


def told(printed: str) -> Any:
    (line,) = [line for line in printed.splitlines() if line.startswith("told ")]
    return json.loads(line.removeprefix("told "))


@pytest.mark.parametrize("case", ["all", "one_of_them", "one_shard", "flow"])
def test_what_is_around_shards_is_given_and_answers_the_same(run: Callable[..., str], case: str) -> None:
    assert told(run("around.py", case)) == told(run("around.py", case, python=OURS))
