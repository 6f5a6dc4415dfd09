"""The folder in the hub's format: it holds what its config.yml names, and works where it is copied to."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import jina_asgi
from jina_asgi import Executor

FOLDER = Path(__file__).parents[1]
CONFIG = yaml.safe_load((FOLDER / "config.yml").read_text())


def test_a_copy_of_the_folder_imports_as_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "pulled_pictures"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    (start,) = CONFIG["py_modules"]
    spec = importlib.util.spec_from_file_location(
        "pulled_pictures", copy / start, submodule_search_locations=[str(copy)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "pulled_pictures", module)
    spec.loader.exec_module(module)
    found = getattr(module, CONFIG["jtype"])
    assert issubclass(found, Executor)
    assert found.__module__ == "pulled_pictures.executor"
    assert "/generate" in found.methods


def test_its_requirements_are_those_of_the_extra() -> None:
    project = Path(jina_asgi.__file__).parents[1] / "pyproject.toml"
    if not project.is_file():
        pytest.skip("this jina_asgi is installed without its pyproject.toml")
    extra = tomllib.loads(project.read_text())["project"]["optional-dependencies"]["image"]
    assert (FOLDER / "requirements.txt").read_text().split() == extra
