"""A process's writing of its figures, which rests while nothing serves, and goes on without a count lost or doubled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jina_asgi.observability.figure_file import sums
from jina_asgi.observability.figures import FIGURES
from jina_asgi.observability.metrics import REQUESTS
from jina_asgi.observability.writer import FigureWriter

LABELS = ("of the writer", "/echo", "http", "ok")
KEY = (REQUESTS.name, LABELS)
OK = FIGURES.figure(REQUESTS, *LABELS)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[FigureWriter]:
    found = FigureWriter()
    OK.reset()
    found.wake(tmp_path / "m")
    yield found
    found.rest(removes=False)
    found.forget()


def test_what_is_counted_is_read_at_once_in_the_same_process(writer: FigureWriter) -> None:
    OK.value += 2
    assert [2] == writer.sums()[KEY]


def test_counts_go_on_after_a_rest(writer: FigureWriter, tmp_path: Path) -> None:
    OK.value += 2
    assert writer.rest(removes=False)
    writer.wake(tmp_path / "m")
    OK.value += 1
    assert [3] == writer.sums()[KEY]


def test_counts_go_on_after_a_rest_in_which_another_process_has_added_them_up(
    writer: FigureWriter, tmp_path: Path
) -> None:
    OK.value += 2
    writer.rest(removes=False)
    assert [2] == sums(tmp_path / "m")[KEY]
    writer.wake(tmp_path / "m")
    OK.value += 1
    assert [3] == writer.sums()[KEY]


def test_counts_go_on_after_the_folder_was_removed(writer: FigureWriter, tmp_path: Path) -> None:
    OK.value += 2
    assert writer.rest(removes=True)
    assert [] == [*tmp_path.iterdir()]
    writer.wake(tmp_path / "m")
    OK.value += 1
    assert [3] == writer.sums()[KEY]


def test_a_rest_writes_what_was_counted_last(writer: FigureWriter, tmp_path: Path) -> None:
    OK.value += 2
    writer.rest(removes=False)
    assert [2] == sums(tmp_path / "m")[KEY]


def test_a_process_is_not_the_last_one_while_another_writes(writer: FigureWriter, tmp_path: Path) -> None:
    other = FigureWriter()
    other.wake(tmp_path / "m")
    assert not writer.rest(removes=True)
    assert other.rest(removes=True)
    assert [] == [*tmp_path.iterdir()]


def test_figures_that_are_read_are_read_before_each_writing(writer: FigureWriter) -> None:
    writer.before.append(lambda: setattr(OK, "value", 7))
    assert [7] == writer.sums()[KEY]
