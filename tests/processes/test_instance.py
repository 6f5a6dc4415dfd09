"""Every process of one server finds the same folder, no other server does, and no other user can enter it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from jina_asgi.errors import DefinitionError, NotReady
from jina_asgi.processes import instance
from tests.doubles import read_only
from tests.doubles.rig import ROOT, Served

pytestmark = [pytest.mark.processes, pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")]

APP = """
import os
from jina_asgi.processes import instance as place

AT_IMPORT = place.instance().key

async def app(scope, receive, send):
    assert scope["type"] == "http"
    body = f"{os.getpid()} {AT_IMPORT} {place.instance().key}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture
def base(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short folder of ours, as XDG_RUNTIME_DIR."""
    made = Path(subprocess.check_output(["mktemp", "-d", "/tmp/jXXXXXX"], text=True).strip())
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(made))
    yield made
    subprocess.run(["rm", "-rf", str(made)], check=True)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def told(url: str) -> list[str]:
    """What a worker says: its pid, its instance when it was loaded, its instance now. A connection a request.

    With several workers uvicorn says that it runs before one of them listens.
    """
    with httpx.Client(transport=httpx.HTTPTransport(retries=8), timeout=30.0) as client:
        return client.get(url, headers={"connection": "close"}).text.split()


@pytest.mark.parametrize("server", ["gunicorn-asgi", "gunicorn-uvicorn", "uvicorn", "hypercorn", "granian"])
def test_the_workers_of_a_server_are_one_instance(server: str, tmp_path: Path) -> None:
    (tmp_path / "placed.py").write_text(APP)
    search = {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    with Served(server, "placed:app", "--workers", "2", cwd=tmp_path, env=search) as served:
        heard: dict[str, list[str]] = {}
        while len(heard) < 2:
            pid, *keys = told(served.url)
            heard[pid] = keys
        expected = f"{served.process.pid}-{instance.started(served.process.pid)}-"
        assert all(key.startswith(expected) for keys in heard.values() for key in keys), heard
        served.signal(signal.SIGTERM)  # killed, some leave their semaphores behind
        served.ended(within=20.0)


def test_an_application_loaded_before_the_fork_is_of_the_same_instance(tmp_path: Path) -> None:
    (tmp_path / "placed.py").write_text(APP)
    with Served("gunicorn-asgi", "placed:app", "--preload", cwd=tmp_path) as served:
        _, before, after = told(served.url)
        assert before == after
        assert before.startswith(f"{served.process.pid}-")


def test_a_process_alone_is_its_own_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JINA_ASGI_POOL", raising=False)
    found = instance.instance()
    assert (os.getpid(), instance.started(os.getpid())) == (found.pid, found.started)
    assert found == instance.instance()


def test_a_named_instance_has_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JINA_ASGI_POOL", "shared")
    assert instance.Instance("pool-shared", None, None) == instance.instance()
    monkeypatch.setenv("JINA_ASGI_POOL", "")
    assert os.getpid() == instance.instance().pid


def test_a_process_is_alive_until_it_ends(sleeper: subprocess.Popen[bytes]) -> None:
    start = instance.started(sleeper.pid)
    assert start is not None
    assert instance.alive(sleeper.pid, start)
    assert instance.alive(sleeper.pid, None)
    assert not instance.alive(sleeper.pid, start + 1), "another process that has the pid by now"
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert not instance.alive(sleeper.pid, start), "a zombie"
    sleeper.wait()
    assert not instance.alive(sleeper.pid, start)
    assert not instance.alive(sleeper.pid, None)
    assert instance.started(sleeper.pid) is None


def test_another_users_process_is_alive() -> None:
    assert instance.alive(1, None)


def test_the_folder_is_for_this_user_alone(base: Path) -> None:
    made = instance.folder("pool-x")
    assert base / f"jina-asgi-{os.geteuid()}" == made.parent
    assert [0o40700, 0o40700] == [path.stat().st_mode for path in (made, made.parent)]
    assert made == instance.folder("pool-x")
    assert made != instance.folder("pool-y")


def test_a_long_key_has_a_short_folder(base: Path) -> None:
    made = instance.folder("pool-" + "ä/.. " * 100)
    assert made.is_dir()
    assert len(os.fsencode(made / ("x" * 16))) < 100
    assert [made.name] == os.listdir(base / f"jina-asgi-{os.geteuid()}")


def test_the_longest_key_of_a_process_fits() -> None:
    assert (
        len(
            os.fsencode(
                Path("/run/user/4294967295/jina-asgi-4294967295", instance._name("4194304-99999999999-4294967295"))
            )
        )
        < 84
    )


def a_link(path: Path) -> None:
    path.symlink_to(path.parent)


def a_file(path: Path) -> None:
    path.touch()


def open_to_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("planted", "said"),
    [(a_link, "it is a link"), (a_file, "it is no folder"), (open_to_all, "its mode is 0755, not 0700")],
)
@pytest.mark.parametrize("inner", [False, True], ids=["outer", "inner"])
def test_a_folder_that_others_could_have_made_is_refused(
    planted: Callable[[Path], None], said: str, inner: bool, base: Path
) -> None:
    made = instance.folder("pool-x")
    instance.remove("pool-x")
    if not inner:
        made = made.parent
        made.rmdir()
    planted(made)
    with pytest.raises(DefinitionError) as refused:
        instance.folder("pool-x")
    assert f"{made} cannot be trusted: {said}" in refused.value.message


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user's folder")
def test_a_folder_of_another_user_is_refused(base: Path) -> None:
    made = instance.folder("pool-x")
    os.chown(made, 12345, -1)
    with pytest.raises(DefinitionError, match="it is user 12345's, not 0's"):
        instance.folder("pool-x")


def not_there(base: Path) -> None:
    base.rmdir()


def no_folder(base: Path) -> None:
    base.rmdir()
    base.touch()


def for_everyone(base: Path) -> None:
    base.chmod(0o777)


def someone_elses(base: Path) -> None:
    os.chown(base, 12345, -1)


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")


@pytest.mark.parametrize("spoil", [not_there, no_folder, for_everyone, pytest.param(someone_elses, marks=as_root)])
def test_a_base_that_will_not_do_is_passed_over(
    spoil: Callable[[Path], None], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(base)
    monkeypatch.setenv("TMPDIR", "/dev/shm")
    assert Path("/dev/shm") == instance.folder("pool-passed-over").parents[1]
    instance.remove("pool-passed-over")
    with suppress(OSError):  # somebody else's are in it
        Path("/dev/shm", f"jina-asgi-{os.geteuid()}").rmdir()


def test_a_base_with_a_long_path_is_passed_over(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = base / ("long" * 20)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    monkeypatch.setenv("TMPDIR", str(base))
    assert base == instance.folder("pool-x").parents[1]


def test_an_instance_stays_where_it_is_when_a_base_that_comes_first_will_do_again(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(base))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base / "later"))
    before = instance.folder("pool-x")
    (base / "later").mkdir()
    assert (before, base / "later") == (instance.folder("pool-x"), instance.folder("pool-y").parents[1])


FILLED = """
import os, sys
from contextlib import suppress
from pathlib import Path
from jina_asgi.errors import NotReady
from jina_asgi.processes import instance as place

full, other = map(Path, sys.argv[1:])
print(place.folder("pool-x", [full, other]) == other / f"jina-asgi-{os.geteuid()}" / place._name("pool-x"))
try:
    place.folder("pool-x", [full])
except NotReady as error:
    print(f"{full} (No space left on device)" in error.message)
(full / "filled").unlink()
made = place.folder("pool-y", [full])
place.record_pool_host(made, 1)
with suppress(OSError):
    (full / "filled").write_bytes(bytes(1 << 13))
place.record_pool_host(made, os.getpid())
print(place.pool_host_of(made) == (os.getpid(), place.started(os.getpid())))
"""


@pytest.mark.skipif(not read_only.possible(), reason="needs root, and a kernel that lets it have mounts of its own")
def test_a_base_that_is_full_is_passed_over_by_name_and_what_was_noted_there_can_be_noted_anew(
    base: Path, tmp_path: Path
) -> None:
    (tmp_path / "filled.py").write_text(FILLED)
    full, other = base / "full", base / "other"
    full.mkdir()
    other.mkdir()
    command = [sys.executable, "-m", "tests.doubles.read_only", "filled", str(full), str(other)]
    env = {**os.environ, "FULL": str(full), "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    said = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ["True", "True", "True"] == said.stdout.split(), said.stderr


def test_no_base_at_all_says_what_is_wrong_with_each(base: Path) -> None:
    for_everyone(base)
    bases = [base, base / "missing", Path("relative"), base / ("long" * 20), Path("/proc")]
    with pytest.raises(NotReady) as refused:
        instance.folder("pool-x", bases)
    for said in (
        "no sticky bit",
        "No such file",
        "not an absolute path",
        "less than 100 are allowed",
        "/proc (",
        "TMPDIR",
    ):
        assert said in refused.value.message


def test_folders_of_instances_that_are_gone_are_swept(base: Path, sleeper: subprocess.Popen[bytes]) -> None:
    mine, namespace = instance.instance().key, instance._namespace()
    gone, later, elsewhere = (
        f"{sleeper.pid}-1-{namespace}",
        f"{sleeper.pid}-{instance.started(sleeper.pid)}-{namespace}",
        f"{sleeper.pid}-1-1",
    )
    # In this base alone: this process may have a folder in another one already.
    kept = {instance.folder(key, [base]).name for key in (mine, later, elsewhere, "pool-x")}
    (instance.folder(gone, [base]) / "slot-0").touch()
    instance.sweep()
    assert kept == set(os.listdir(base / f"jina-asgi-{os.geteuid()}"))


def test_sweeping_follows_no_link(base: Path, tmp_path: Path) -> None:
    kept = tmp_path / f"v2-4194304-1-{instance._namespace()}"
    kept.mkdir()
    (base / f"jina-asgi-{os.geteuid()}").symlink_to(tmp_path)
    instance.sweep()
    assert kept.is_dir()


def test_a_server_leaves_no_folder(base: Path, tmp_path: Path) -> None:
    """Nor does one that was killed, once another has begun."""
    (tmp_path / "placed.py").write_text(APP)
    instance.remove("pool-x")
    mine = base / f"jina-asgi-{os.geteuid()}"
    with Served("gunicorn-uvicorn", "placed:app", cwd=tmp_path) as killed:
        told(killed.url)
        assert 1 == len(os.listdir(mine))
    assert 1 == len(os.listdir(mine))
    with Served("gunicorn-uvicorn", "placed:app", cwd=tmp_path) as served:
        told(served.url)
        assert [f"v2-{served.process.pid}"] == [name.rpartition("-")[0].rpartition("-")[0] for name in os.listdir(mine)]
        served.signal(signal.SIGTERM)
        assert 0 == served.ended(within=20.0)
    assert [] == os.listdir(mine)
