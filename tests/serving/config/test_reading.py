"""An Executor's YAML as `uses`: its class, its options below the Deployment's, and its mistakes by line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from docarray import DocList
from docarray.documents import TextDoc

from jina_asgi import Deployment, Executor, Flow, JinaASGI, ReplicaPool, requests
from jina_asgi.errors import DefinitionError
from jina_asgi.serving.asgi import source_of
from jina_asgi.testing import client

EXECUTOR = """
from pydantic import BaseModel

from jina_asgi import Executor, requests


class Text(BaseModel):
    text: str


class Greeter(Executor):
    def __init__(self, greeting: str = "hello", mark: str = "", **kwargs) -> None:
        super().__init__(**kwargs)
        self.greeting, self.mark = greeting, mark

    @requests(on="/greet")
    def greet(self, docs: list[Text]) -> list[Text]:
        return [Text(text=f"{self.greeting} {doc.text}{self.mark} of {len(docs)} ({self.metas.name})") for doc in docs]
"""
CONFIG = """
jtype: Greeter
py_modules: executor.py
with:
  greeting: good day
  mark: "?"
metas:
  name: greeter
requests:
  /hail: greet
dynamic_batching:
  greet:
    preferred_batch_size: 8
    timeout: 100
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "executor.py").write_text(EXECUTOR)
    file = tmp_path / "config.yml"
    file.write_text(CONFIG)
    return file


async def test_a_yaml_says_the_class_and_its_options(config: Path) -> None:
    async with Deployment(str(config)) as greeter:
        assert await texts(greeter, "you") == ["good day you? of 1 (greeter)"]


async def test_a_deployments_options_are_over_those_of_the_yaml(config: Path) -> None:
    async with Deployment(str(config), uses_with={"mark": "!"}, uses_metas={"name": "other"}) as greeter:
        assert await texts(greeter, "you") == ["good day you! of 1 (other)"]


async def test_dynamic_batching_is_merged_option_by_option(config: Path) -> None:
    async with Deployment(str(config), uses_dynamic_batching={"greet": {"preferred_batch_size": 2}}) as greeter:
        assert await texts(greeter, *"abcd") == [f"good day {name}? of 2 (greeter)" for name in "abcd"]
    async with Deployment(str(config), uses_dynamic_batching={"/hail": {"use_dynamic_batching": False}}) as greeter:
        assert await texts(greeter, *"abc") == [f"good day {name}? of 3 (greeter)" for name in "abc"]


async def test_an_application_may_be_made_of_a_yaml(config: Path) -> None:
    async with client(JinaASGI(str(config), wait_ready=True)) as http:
        answer = await http.post("/hail", json={"data": {"text": "you"}})
        assert answer.json()["data"] == [{"text": "good day you? of 1 (greeter)"}]


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="pools are for Linux")
async def test_replicas_load_the_yamls_class_and_batch_as_it_says(config: Path) -> None:
    async with ReplicaPool(str(config)) as greeter:
        docs = await greeter.call("/hail", [{"text": name} for name in "abcdefghij"])
        assert [doc["text"] for doc in docs] == [
            f"good day {name}? of {8 if name < 'i' else 2} (greeter)" for name in "abcdefghij"
        ]


def test_a_module_is_loaded_once(config: Path) -> None:
    first, second = Deployment(str(config)), Deployment(str(config))
    assert first.endpoints["/hail"].input.model is second.endpoints["/hail"].input.model


def test_an_init_file_is_loaded_as_a_package(tmp_path: Path) -> None:
    folder = tmp_path / "greeting-folder"
    folder.mkdir()
    (folder / "executor.py").write_text(EXECUTOR)
    (folder / "__init__.py").write_text("from .executor import Greeter\n")
    (folder / "config.yml").write_text("jtype: Greeter\npy_modules: [__init__.py]\n")
    assert "/greet" in Deployment(str(folder / "config.yml")).endpoints


def test_a_module_of_an_importable_package_is_that_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "importable_greeters"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "executor.py").write_text(EXECUTOR)
    (package / "config.yml").write_text("jtype: Greeter\npy_modules: executor.py\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    from importable_greeters.executor import Text  # type: ignore[import-not-found]  # written above

    assert Deployment(str(package / "config.yml")).endpoints["/greet"].input.model is Text


async def test_the_runtime_args_of_hub_executors_are_taken_and_change_nothing(
    config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config.write_text(CONFIG + "runtime_args:\n  pea_id: 0\n")
    with caplog.at_level(logging.WARNING):
        async with Deployment(str(config)) as greeter:
            assert await texts(greeter, "you") == ["good day you? of 1 (greeter)"]
    assert "config.yml:15:1: 'runtime_args' changes nothing here" in caplog.text


class Reader(Executor):
    """Its methods are called as those of files are."""

    @requests(on="/read")
    def read(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        return docs

    def readable(self) -> bool:
        return True


async def test_a_class_may_have_a_method_that_files_have() -> None:
    for source in (Deployment(Reader), Flow().add(uses=Reader), source_of(Reader)):
        async with source:
            assert ["hi"] == [doc.text for doc in await source.call("/read", [TextDoc(text="hi")])]


@pytest.mark.parametrize(
    "take", [Deployment, Flow().add, Executor.load_config, Deployment.load_config, Flow.load_config]
)
@pytest.mark.parametrize("what", [Reader, Reader()], ids=["class", "instance"])
def test_an_executor_is_never_read_as_a_file(take: Callable[[Any], Any], what: Any) -> None:
    with suppress(DefinitionError):  # a class is taken where one is wanted
        assert take(what)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("jtyp: Greeter\n", ":1:1: unknown key 'jtyp'; did you mean 'jtype'?"),
        ("jtype: Greeter\nwith: 5\n", "'with': expected a mapping, got 5"),
        ("jtype: 5\n", ":1:1: 'jtype': expected the name of an Executor class, got 5"),
        ("jtype: Greeter\nrequests: {/a: 5}\n", ":2:12: 'requests': expected a mapping of endpoints to methods, got"),
        ("jtype: Greeter\ndynamic_batching: {greet: 5}\n", ":2:20: 'dynamic_batching': expected a mapping of"),
        ("jtype: Greeter\njtype: Other\n", ":2:1: 'jtype' stands here twice"),
        ("jtype: Greeter\nmetas: &a {name: *a}\n", ":2:8: this alias stands within what it repeats"),
        ("jtype: !!python/name:os.system\n", ":1:8: the tag"),
        ("jtype: [\n", ":2:1: "),
        ("- Greeter\n", "expected a mapping with 'jtype', got list"),
        ("", "expected a mapping with 'jtype', got NoneType"),
        ("with: {}\n", "expected 'jtype', the name of an Executor class"),
        ("jtype: Greeter\npy_modules: [nowhere.py]\n", "nowhere.py: No such file"),
        ("jtype: Greeter\nmetas: {py_modules: [nowhere.py]}\n", ":2:9: "),
        ("jtype: Greeter\nmetas: {py_modules: [nowhere.py]}\n", "nowhere.py: No such file"),
        ("jtype: Greeter\npy_modules: {a: b}\n", "'py_modules': expected a list of Python files"),
        ("jtype: Gretr\npy_modules: executor.py\n", "Gretr: there is no class 'Gretr'; did you mean 'Greeter'?"),
        ("jtype: \xff", "codec can't decode"),
    ],
)
def test_mistakes_are_named(config: Path, text: str, said: str) -> None:
    config.write_text(text, encoding="latin-1")
    with pytest.raises(DefinitionError) as raised:
        Deployment(str(config))
    assert said in str(raised.value)
    assert str(config) in str(raised.value) or "executor.py" in str(raised.value)


@pytest.mark.parametrize("value", ["null", "[]", "5", "''"])
def test_a_wrong_jtype_is_named_once(config: Path, value: str) -> None:
    config.write_text(f"jtype: {value}\n")
    with pytest.raises(DefinitionError) as raised:
        Deployment(str(config))
    assert 1 == str(raised.value).count("the name of an Executor class")


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(DefinitionError, match=r"nowhere\.yml: No such file"):
        Deployment("nowhere.yml")


async def texts(greeter: Deployment, *names: str) -> list[str]:
    return [doc.text for doc in await greeter.call("/hail", [{"text": name} for name in names])]
