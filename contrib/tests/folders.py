"""What the tests of every folder in the hub's format do."""

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


def copied(folder: Path, to: Path, monkeypatch: pytest.MonkeyPatch) -> type[Executor]:
    """The Executor of a copy, imported as the package that its config.yml names."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    config = yaml.safe_load((to / "config.yml").read_text())
    (start,) = config["py_modules"]
    spec = importlib.util.spec_from_file_location(to.name, to / start, submodule_search_locations=[str(to)])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, to.name, module)
    spec.loader.exec_module(module)
    found = getattr(module, config["jtype"])
    assert issubclass(found, Executor)
    return found


def extra(name: str) -> list[str]:
    """The requirements of one of the project's extras."""
    project = Path(jina_asgi.__file__).parents[1] / "pyproject.toml"
    if not project.is_file():
        pytest.skip("this jina_asgi is installed without its pyproject.toml")
    found: list[str] = tomllib.loads(project.read_text())["project"]["optional-dependencies"][name]
    return found
