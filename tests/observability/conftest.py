"""A receiver of OTLP for each test, to which spans are sent without delay."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.doubles.otlp_receiver import Receiver


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    with Receiver() as made:
        yield made
