"""The pages of docs/: their Python is Python, what it imports of this library is there, and what stands alone runs."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
TOX = (ROOT / "tox.ini").read_text(encoding="utf-8")
#: Pages whose blocks, one after another, are a program.
PROGRAMS = ["batching.md", "executor.md", "flow.md", "hosts.md", "migrate.md"]


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_imports_is_there(page: Path) -> None:
    for block in blocks(page):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jina_asgi":
                module = importlib.import_module(str(node.module))
                assert [name.name for name in node.names if name.name != "*" and not hasattr(module, name.name)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", prose)
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_block_of_a_page_is_of_a_kind_that_is_checked(page: Path) -> None:
    """Python, YAML, scripts and consoles are run, by these tests or by those of README.md; "text" is a picture."""
    text = page.read_text(encoding="utf-8")
    kinds = re.findall(r"^```(\w*)\n.*?^```$", text, re.MULTILINE | re.DOTALL)
    assert [kind for kind in kinds if kind not in ("console", "js", "json", "python", "sh", "text", "yaml")] == []
    for block in re.findall(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        json.loads(block)
    for script in re.findall(r"\b(?:python )?((?:tests|examples)/[\w/]+\.py)\b", text):
        assert (page.parent.parent / script).exists()
    for name in re.findall(r"tox run -e (\S+)", text):
        assert f"[testenv:{name}" in TOX


@pytest.mark.processes
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_page_that_is_a_program_runs(name: str, tmp_path: Path) -> None:
    (page,) = [page for page in PAGES if page.name == name]
    program = tmp_path / "page.py"
    program.write_text("\n".join(blocks(page)), encoding="utf-8")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
