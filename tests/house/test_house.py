"""What `python -m tests.house` counts, on trees that have a known number of each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.house.calls import functions_of
from tests.house.source import House, dialect_in, duplicates, is_dialect

ROOT = Path(__file__).parent.parent.parent
SAME = "".join(f"    value_{n} = given * {n}\n" for n in range(6))


def house(folder: Path, **modules: str) -> House:
    """A package of modules; a name's `__` stands for a folder."""
    for name, text in modules.items():
        file = folder / "jina_asgi" / Path(*name.split("__")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text), encoding="utf-8")
    return House(folder)


def test_lines_that_two_files_share_are_found_once(tmp_path: Path) -> None:
    one, other = (
        f"def one(given):\n{SAME}",
        f"import os\n\n\ndef other(given, more):\n    '''Doc.'''\n    # why\n{SAME}",
    )
    (found,) = duplicates(house(tmp_path, one=one, other=other).modules)
    assert (found.first, found.second, len(found.lines)) == ("one.py:2", "other.py:7", 6)


def test_five_lines_signatures_and_one_file_are_no_duplicates(tmp_path: Path) -> None:
    signature = "def f(\n" + "".join(f"    a{n},\n" for n in range(8)) + "):\n    return {}\n"
    five = SAME.split("\n", 1)[1]
    modules = house(
        tmp_path,
        one=f"def one(given):\n{five}    return 1\n\n\n{signature.format(1)}",
        other=f"def other(given):\n{five}    return 2\n\n\n{signature.format(2)}",
        twice=f"def a(some):\n{SAME.replace('given', 'some')}\n\ndef b(some):\n{SAME.replace('given', 'some')}",
    ).modules
    assert duplicates(modules) == []


@pytest.mark.parametrize("name", ["told", "_tell_ended", "Teller", "HintTeller", "NOBODY", "whoever", "what_answers"])
def test_a_name_with_a_word_of_the_dialect(name: str) -> None:
    assert is_dialect(name)


@pytest.mark.parametrize("name", ["notify", "intelligent", "storyteller", "untold", "Answers"])
def test_a_name_without_one(name: str) -> None:
    assert not is_dialect(name)


def test_words_of_the_dialect_are_counted_where_they_are(tmp_path: Path) -> None:
    text = '''
        """Nobody is told of somebody's
        error."""
        TOLD = "what answers"  # whoever asks


        def tell(told):
            return "untold"
    '''
    measured = house(tmp_path, sub__one=text)
    assert measured.dialect_in("docstrings") == {"sub/one.py": 3}
    assert measured.dialect_in("comments") == {"sub/one.py": 1}
    assert measured.dialect_in("messages") == {"sub/one.py": 1}
    assert measured.dialect_definitions == ["sub/one.py:tell"]
    assert measured.dialect_variables == ["sub/one.py:TOLD", "sub/one.py:told"]
    assert dialect_in("what\nanswers") == 1


def test_protocols_and_names_of_several_classes(tmp_path: Path) -> None:
    measured = house(
        tmp_path,
        one="class A(Protocol): ...\nclass B(typing.Protocol[T]): ...\nclass Http(HttpProtocol): ...\n",
        sub__two="class A: ...\nclass C:\n    class C: ...\n",
        contrib__three="class C(Protocol): ...\n",
    )
    assert measured.protocols == ["one.py:A", "one.py:B"]
    assert measured.shared_names == {"A": ["one.py", "sub/two.py"]}
    assert measured.top == ["one.py", "sub"]


def test_the_reading_path_is_read_from_the_page(tmp_path: Path) -> None:
    measured = house(tmp_path, one="a = 1\nb = 2\n", sub__two="c = 3\n")
    assert measured.reading_path is None
    (tmp_path / "docs").mkdir()
    page = "# Map\n\n1. `other.py`\n\n## Reading path\n\n1. `one.py` shows.\n2. `sub/two.py` shows.\n\n## More\n\n3. `no.py`\n"
    (tmp_path / "docs" / "architecture.md").write_text(page, encoding="utf-8")
    assert measured.reading_path == ["one.py", "sub/two.py"]
    assert measured.lines_of(["one.py", "sub/two.py"]) == 3


@pytest.mark.processes
def test_the_table_of_this_tree() -> None:
    program = [sys.executable, "-m", "tests.house", "--no-calls", "--before", "."]
    lines = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    (modules,) = [line.split() for line in lines if line.startswith("modules")]
    count = len([path for path in (ROOT / "jina_asgi").rglob("*.py") if "contrib" not in path.parts])
    assert modules[1:3] == [str(count)] * 2


@pytest.mark.processes
@pytest.mark.parametrize("walk", ["http", "grpc", "pool"])
def test_what_runs_for_one_call_is_counted_in_all_processes(walk: str) -> None:
    files = {file for file, _ in functions_of(ROOT, walk)}
    assert "runners/local/runner.py" in files  # where the Executor runs; with a pool in a process of its own
    assert ("serving/application.py" in files) == (walk != "grpc")  # which receives HTTP requests
    assert ("runners/pool/runner.py" in files) == (walk == "pool")
    assert not [
        file for file in files if file.startswith(("cli/", "serving/config/", "testing/"))
    ]  # what ran to start it
