"""Every example runs as its first lines say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
KNOWN = {
    "app.py",
    "curl.sh",
    "fastapi_auth.py",
    "gunicorn.conf.py",
    "one_model.py",
    "pictures.py",
    "quickstart.py",
    "starlette_app.py",
    "upload.sh",
}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The toy application, served by the command that its folder is made for: `gunicorn app:asgi`."""
    with served("app:asgi") as found:
        yield found


@contextmanager
def served(app: str) -> Iterator[str]:
    """The address of an application, served in the examples' folder."""
    with subprocess.Popen(
        ["gunicorn", app, "--bind", "127.0.0.1:0"],
        cwd=EXAMPLES,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stderr is not None
        try:
            for line in server.stderr:
                if "Listening at: " in line:
                    yield line.split("Listening at: ")[1].split()[0]
                    break
            else:
                pytest.fail("gunicorn ended before it listened")
        finally:
            server.terminate()


def test_curl_shows_every_way_to_ask(address: str) -> None:
    done = subprocess.run(
        ["bash", "curl.sh", address], cwd=EXAMPLES, check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert '"data":[{' in done.stdout
    assert done.stdout.count("event: update") == 3
    assert "event: end" in done.stdout
    assert "Field required" in done.stdout
    assert '{"openapi":"3.1.0"' in done.stdout


def test_curl_sends_pictures_as_forms_and_alone() -> None:
    with served("pictures:asgi") as address:
        done = subprocess.run(
            ["bash", "upload.sh", address], cwd=EXAMPLES, check=False, capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    size = (EXAMPLES / "mark.png").stat().st_size
    assert f'"a mark: {size} bytes"' in done.stdout
    assert f'"one: {size} bytes"' in done.stdout
    assert '"brightness":128.0' in done.stdout
    assert '"loc":["body","pixels"]' in done.stdout


def test_a_users_own_tests_pass() -> None:
    """The apps with auth and in Starlette are tested by the example that shows how to."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_app.py"],
        cwd=EXAMPLES,
        env=ENVIRONMENT,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_no_example_is_forgotten() -> None:
    """quickstart.py and one_model.py, which need the model, are run by tests/browser."""
    scripts = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh")}
    assert scripts == KNOWN | {"test_my_app.py"}
