"""A small model on disk, read by most tests of the engine and the Executor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from jina_asgi.contrib.text_generation.engine import Engine
from jina_asgi.contrib.text_generation.tests import doubles

Watching = Callable[..., tuple[Engine, doubles.Watched]]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors gain nothing by several threads, and these wait for each other busily."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of two layers whose tokens are bytes."""
    return doubles.save(doubles.llama(), tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def watched(tiny_folder: Path) -> Iterator[Watching]:
    """Make engines on the small model; each is closed after the test, and its thread has ended."""
    made: list[tuple[Engine, doubles.Watched]] = []

    def make(**options: Any) -> tuple[Engine, doubles.Watched]:
        made.append(doubles.watched_engine(tiny_folder, **options))
        return made[-1]

    yield make
    for engine, decoder in made:
        decoder.open.set()
        engine.close()
        assert not engine._thread.is_alive()
