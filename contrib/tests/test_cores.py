"""How many threads the arithmetic may use."""

from __future__ import annotations

import os

import pytest

from jina_asgi.contrib.cores import default_threads, quota


@pytest.mark.parametrize(
    ("line", "cores"), [("max 100000\n", float("inf")), ("150000 100000\n", 1.5), ("50000 100000", 0.5)]
)
def test_the_quota_of_a_control_group(line: str, cores: float) -> None:
    assert quota(line) == cores


def test_one_core_is_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads = default_threads()
    assert threads is not None
    assert 1 <= threads < max(2, os.cpu_count() or 1)


def test_what_the_user_set_for_openmp_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert default_threads() is None
