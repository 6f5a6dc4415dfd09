"""YAML as plain data: what is taken, what is refused, and where it stands."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from jina_asgi import DefinitionError
from jina_asgi.serving.config.files import LIMIT, read


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("'true'", "true"),
        ("1_000", "1_000"),
        ("0o17", "0o17"),
        ("017", "017"),
        ("0", 0),
        ("-5", -5),
        ("1e3", 1000.0),
        ("1.5", 1.5),
        ("2020-01-01", "2020-01-01"),
        ("12:30:45", "12:30:45"),
        ("~", None),
        ("", None),
        ("[a, 1]", ["a", 1]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
        ('{"json": [1, "two", null]}', {"json": [1, "two", None]}),
    ],
)
def test_values_are_what_they_look_like(text: str, expected: Any) -> None:
    assert {"key": expected} == read(f"key: {text}\n").data


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &x {k: [1]}\nb: *x\n", {"a": {"k": [1]}, "b": {"k": [1]}}),
        ("a: &x {k: 1, l: 1}\nb: {l: 2, <<: *x}\n", {"a": {"k": 1, "l": 1}, "b": {"k": 1, "l": 2}}),
        ("a: {<<: [{k: 1}, {k: 2, l: 2}]}\n", {"a": {"k": 1, "l": 2}}),
        ("a: {'<<': 1}\n", {"a": {"<<": 1}}),
    ],
)
def test_aliases_repeat_and_merges_add_what_is_not_there(text: str, expected: Any) -> None:
    assert expected == read(text).data


def test_aliases_of_aliases_end_in_an_error_and_take_no_memory() -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    with pytest.raises(DefinitionError, match="aliases repeat more than 100000 values"):
        read("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: &x [1, *x]\n", ":1:4: this alias stands within"),
        (f"a: &x [{'1,' * 1000}]\nb: [{'*x,' * 101}]\n", ":1:"),
        ("a: *x\n", ":1:4: found undefined alias"),
        ("a: !!python/object/apply:os.system [x]\n", "1:4: the tag"),
        ("a: !!binary aGk=\n", "1:4: the tag"),
        ("a: !env X\n", "1:4: the tag '!env'"),
        ("b: {a: 1}\n<<: 1\n", ":2:5: expected a mapping"),
        ("b: {a: 1}\n<<: [1]\n", ":2:6: expected a mapping"),
        ("a: 1\nb: 2\na: 3\n", ":3:1: 'a' stands here twice"),
        ("a:\n\t- 1\n", ":2:1: "),
        ("a: [1\n", "expected"),
        ("? [a]\n: 1\n", ":1:3: expected a plain key"),
        ("[" * 5000 + "\n", ""),
    ],
)
def test_what_is_refused_is_named_with_its_place(text: str, complaint: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        read(text)
    assert complaint in raised.value.message


def test_sources_may_be_paths_strings_mappings_and_streams(tmp_path: Path) -> None:
    file = tmp_path / "flow.yml"
    file.write_bytes(b"\xef\xbb\xbfjtype: Flow\n")
    with file.open() as text, file.open("rb") as raw:
        documents = [read(file), read(str(file)), read("jtype: Flow\n"), read({"jtype": "Flow"}), read(text), read(raw)]
    assert [{"jtype": "Flow"}] * 6 == [document.data for document in documents]
    assert [tmp_path] * 2 == [documents[0].folder, documents[4].folder]
    assert Path.cwd() == read(io.StringIO("a: 1\n")).folder


@pytest.mark.parametrize("content", [b"a: \xff\n", b"a: " + b"x" * LIMIT])
def test_files_that_cannot_be_read_are_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.yml"
    file.write_bytes(content)
    for path in (file, tmp_path / "nobody.yml", tmp_path):
        with pytest.raises(DefinitionError, match=str(path)):
            read(path)


def test_a_part_knows_its_place() -> None:
    document = read("with:\n  replicas: 2\n  list:\n    - a\n    - b\n")
    assert "the YAML:2:3" == document.where(("with", "replicas"))
    assert "the YAML:5:7" == document.where(("with", "list", 1))
    assert "the YAML:3:3" == document.where(("with", "list", "nothing"))


def test_all_that_is_wrong_is_reported_at_once() -> None:
    document = read("with:\n  replicsa: 2\n  portt: 1\n")
    document.unknown(("with", "replicsa"), ["replicas", "port"])
    document.unknown(("with", "portt"), ["replicas", "port"])
    with pytest.raises(DefinitionError) as raised:
        document.check()
    first, second = raised.value.message.splitlines()
    assert first == "the YAML:2:3: unknown key 'replicsa'; did you mean 'replicas'?"
    assert second == "the YAML:3:3: unknown key 'portt'; did you mean 'port'?"


def test_jinas_tags_name_the_type() -> None:
    assert {"jtype": "Flow", "with": {"port": 1}} == read("!Flow\nwith:\n  port: 1\n").data
