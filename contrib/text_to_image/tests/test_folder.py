"""The folder in the hub's format: it holds what its config.yml names, and works where it is copied to."""

from __future__ import annotations

from pathlib import Path

import pytest

from jina_asgi.contrib.tests import folders

FOLDER = Path(__file__).parents[1]


def test_a_copy_of_the_folder_imports_as_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = folders.copied(FOLDER, tmp_path / "pulled_pictures", monkeypatch)
    assert found.__module__ == "pulled_pictures.executor"
    assert "/generate" in found.methods


def test_its_requirements_are_those_of_the_extra() -> None:
    assert (FOLDER / "requirements.txt").read_text().split() == folders.extra("image")
