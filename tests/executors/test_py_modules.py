"""The files of `py_modules` find each other as in Jina, by their bare names, and those of two folders never meet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from jina_asgi import Deployment, Flow, ReplicaPool
from jina_asgi.errors import DefinitionError

EXECUTOR = """
from pydantic import BaseModel

from jina_asgi import Executor, requests
{imports}

class Text(BaseModel):
    text: str


class Marker(Executor):
    @requests
    def mark(self, docs: list[Text], **kwargs) -> list[Text]:
        {late}
        return [Text(text=doc.text + {mark}) for doc in docs]
"""
HELPER = "MARK = '!'\n"


def executor(imports: str = "", mark: str = "'!'", late: str = "") -> str:
    return EXECUTOR.format(imports=imports, mark=mark, late=late or "pass")


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder / "config.yml"


async def marked(source: Deployment | Flow) -> str:
    async with source:
        [doc] = await source.call("/default", [{"text": "hi"}])
    text: str = doc["text"] if isinstance(doc, dict) else doc.text
    return text


LAYOUTS: dict[str, dict[str, str]] = {
    "below metas": {
        "config.yml": "jtype: Marker\nmetas:\n  py_modules:\n    - executor.py\n",
        "executor.py": executor(),
    },
    "one text below metas": {
        "config.yml": "jtype: Marker\nmetas: {py_modules: executor.py}\n",
        "executor.py": executor(),
    },
    "one imports the other, listed before it": {
        "config.yml": "jtype: Marker\npy_modules: [helper.py, executor.py]\n",
        "executor.py": executor("from helper import MARK", "MARK"),
        "helper.py": HELPER,
    },
    "one imports the other, listed after it": {
        "config.yml": "jtype: Marker\npy_modules: [executor.py, helper.py]\n",
        "executor.py": executor("import helper", "helper.MARK"),
        "helper.py": HELPER,
    },
    "one imports the other of another folder": {
        "config.yml": "jtype: Marker\npy_modules: [lib/helper.py, src/executor.py]\n",
        "src/executor.py": executor("from helper import MARK", "MARK"),
        "lib/helper.py": HELPER,
    },
    "a neighbour that is not listed": {
        "config.yml": "jtype: Marker\npy_modules: executor.py\n",
        "executor.py": executor("from helper import MARK", "MARK"),
        "helper.py": HELPER,
    },
    "a neighbour of a neighbour": {
        "config.yml": "jtype: Marker\npy_modules: executor.py\n",
        "executor.py": executor("from helper import MARK", "MARK"),
        "helper.py": "from marks import MARK\n",
        "marks.py": HELPER,
    },
    "a neighbour imported while it answers": {
        "config.yml": "jtype: Marker\npy_modules: executor.py\n",
        "executor.py": executor(late="from helper import MARK", mark="MARK"),
        "helper.py": HELPER,
    },
    "a package beside it": {
        "config.yml": "jtype: Marker\npy_modules: executor.py\n",
        "executor.py": executor("import lib.marks.all\nfrom lib import marks", "marks.all.MARK"),
        "lib/__init__.py": "",
        "lib/marks/__init__.py": "",
        "lib/marks/all.py": HELPER,
    },
    "a folder without an __init__.py beside it": {
        "config.yml": "jtype: Marker\npy_modules: executor.py\n",
        "executor.py": executor("from models.marks import MARK", "MARK"),
        "models/marks.py": "from helper import MARK\n",
        "helper.py": HELPER,
    },
    "in a package that cannot be imported, by bare names": {
        "config.yml": "jtype: Marker\npy_modules: [helper.py, executor.py]\n",
        "__init__.py": "raise RuntimeError('not listed, so not run')\n",
        "executor.py": executor("from helper import MARK", "MARK"),
        "helper.py": HELPER,
    },
    "in a package that cannot be imported, relatively": {
        "config.yml": "jtype: Marker\npy_modules: executor.py\n",
        "__init__.py": "",
        "executor.py": executor("from .helper import MARK\nfrom . import helper", "helper.MARK"),
        "helper.py": HELPER,
    },
    "an __init__.py": {
        "config.yml": "jtype: Marker\npy_modules: [marker/__init__.py]\n",
        "marker/__init__.py": "from .executor import Marker\n",
        "marker/executor.py": executor("from marker.helper import MARK", "MARK"),
        "marker/helper.py": HELPER,
    },
    "an __init__.py that has the class": {
        "config.yml": "jtype: Marker\npy_modules: [marker/helper.py, marker/__init__.py]\n",
        "marker/__init__.py": executor("from .helper import MARK", "MARK"),
        "marker/helper.py": HELPER,
    },
    "a name of Python's own": {
        "config.yml": "jtype: Marker\npy_modules: executor.py\n",
        "executor.py": executor("import types", "('!' if hasattr(types, 'ModuleType') else '?')"),
        "types.py": "",
    },
    "a search path": {
        "config.yml": "jtype: Deployment\nuses: Marker\npy_modules: executor.py\nextra_search_paths: [src]\n",
        "src/executor.py": executor("from helper import MARK", "MARK"),
        "src/helper.py": HELPER,
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_the_modules_of_an_executor_are_found(layout: str, tmp_path: Path) -> None:
    config = written(tmp_path, LAYOUTS[layout])
    made = (
        Deployment.load_config(str(config))
        if "Deployment" in LAYOUTS[layout]["config.yml"]
        else Deployment(str(config))
    )
    assert "hi!" == await marked(made)


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="pools are for Linux")
@pytest.mark.parametrize("layout", ["one imports the other of another folder", "an __init__.py", "below metas"])
async def test_replicas_find_them_too(layout: str, tmp_path: Path) -> None:
    assert "hi!" == await marked(ReplicaPool(str(written(tmp_path, LAYOUTS[layout]))))


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="pools are for Linux")
@pytest.mark.parametrize("layout", ["one imports the other of another folder", "an __init__.py"])
async def test_replicas_of_a_class_that_was_loaded_here_find_them_too(layout: str, tmp_path: Path) -> None:
    config = written(tmp_path, LAYOUTS[layout])
    from jina_asgi import Executor

    cls: Any = type(Executor.load_config(str(config)))
    assert "hi!" == await marked(ReplicaPool(cls))


async def test_two_folders_may_have_modules_of_one_name(tmp_path: Path) -> None:
    flow = Flow()
    for mark in "?!":
        files = {
            "config.yml": "jtype: Marker\npy_modules: [executor.py]\n",
            "executor.py": executor("import helper", "helper.MARK + late.MARK", late="import late"),
            "helper.py": f"MARK = {mark!r}\n",
            "late.py": f"MARK = {mark!r}\n",
        }
        flow = flow.add(uses=str(written(tmp_path / f"folder{ord(mark)}", files)))
    assert "hi??!!" == await marked(flow)


async def test_a_dotted_name_is_that_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, {"dotted_markers/__init__.py": "", "dotted_markers/one.py": executor()})
    monkeypatch.syspath_prepend(str(tmp_path))
    made = Deployment("jtype: Marker\npy_modules: dotted_markers.one\n")
    assert "hi!" == await marked(made)


async def test_a_package_that_can_be_imported_may_use_bare_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"__init__.py": "", "executor.py": executor("from helper import MARK", "MARK"), "helper.py": HELPER}
    written(tmp_path / "bare_markers", files | {"config.yml": "jtype: Marker\npy_modules: executor.py\n"})
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "hi!" == await marked(Deployment(str(tmp_path / "bare_markers" / "config.yml")))


def test_a_module_that_is_missing_is_named_as_it_was_imported(tmp_path: Path) -> None:
    config = written(
        tmp_path,
        {"config.yml": "jtype: Marker\npy_modules: executor.py\n", "executor.py": executor("import nowhere_at_all")},
    )
    with pytest.raises(ModuleNotFoundError, match="No module named 'nowhere_at_all'"):
        Deployment(str(config)).endpoints  # noqa: B018  # loads the class


async def test_a_saved_deployment_finds_the_modules_below_its_metas(tmp_path: Path) -> None:
    config = written(tmp_path / "model", LAYOUTS["below metas"])
    saved = tmp_path / "saved.yml"
    Deployment.load_config({"jtype": "Deployment", "uses": str(config)}).save_config(saved)
    assert "hi!" == await marked(Deployment.load_config(str(saved)))


@pytest.mark.parametrize(
    ("jtype", "said"),
    [
        ("Markr", "there is no class 'Markr'; did you mean 'Marker'?"),
        ("Unlike", "there is no class 'Unlike'; the Executors there: Marker"),
        ("Text", "expected a class derived from jina_asgi.Executor, got <class"),
    ],
)
def test_a_class_that_is_not_there_is_named_with_those_that_are(jtype: str, said: str, tmp_path: Path) -> None:
    config = written(tmp_path, {"config.yml": f"jtype: {jtype}\npy_modules: executor.py\n", "executor.py": executor()})
    with pytest.raises(DefinitionError) as raised:
        Deployment(str(config))
    assert said in str(raised.value)
