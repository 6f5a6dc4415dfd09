"""A tiny encoder on disk, read by all tests of the Executor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jina_asgi.contrib.text_embedding.tests import doubles


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors gain nothing by several threads, and these wait for each other busily."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return doubles.save_tiny(tmp_path_factory.mktemp("tiny-encoder"))
