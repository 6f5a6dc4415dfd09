"""What the archives hold: the package, and contrib, which is a link in the checkout, as real files."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def build(target: str, source: Path, to: Path) -> Path:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", target, "-d", to], cwd=source, check=True)
    (archive,) = to.iterdir()
    return archive


def package_files(source: Path) -> set[str]:
    """The package's files as they should be in a wheel: no tests, nothing that Python left behind."""
    paths = [*(source / "jina_asgi").rglob("*"), *(source / "jina_asgi" / "contrib").rglob("*")]
    found = {path.relative_to(source) for path in paths if path.is_file()}
    return {path.as_posix() for path in found if not {"__pycache__", "tests"} & set(path.parts)}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build("sdist", ROOT, folder / "archive")) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob("jina_asgi-*"))


def wheel_files(source: Path, to: Path) -> set[str]:
    with zipfile.ZipFile(build("wheel", source, to)) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.mark.processes
def test_the_wheel_holds_the_package_and_contrib(tmp_path: Path) -> None:
    assert package_files(ROOT) == wheel_files(ROOT, tmp_path)


@pytest.mark.processes
def test_a_wheel_built_from_the_sdist_is_the_same(unpacked: Path, tmp_path: Path) -> None:
    assert package_files(ROOT) == wheel_files(unpacked, tmp_path)


@pytest.mark.processes
def test_the_sdist_holds_what_its_tests_need(unpacked: Path) -> None:
    for name in ("tests", "examples", "tox.ini", "README.md", "LICENSE", "CHANGELOG.md"):
        assert (unpacked / name).exists(), name


def test_type_checkers_learn_that_the_package_is_typed() -> None:
    assert "jina_asgi/py.typed" in package_files(ROOT)
