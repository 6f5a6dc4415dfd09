"""Slots are distinct, the lowest that are free, and free again when their process is gone; a device follows its slot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from signal import SIGHUP, SIGKILL, SIGTERM, SIGTTIN
from typing import Any, Self

import httpx
import pytest

from jina_asgi.errors import NotReady
from jina_asgi.processes import locks
from jina_asgi.processes.locks import lease
from tests.doubles.rig import ROOT, Served

pytestmark = pytest.mark.processes

HOLDER = """
import sys
from pathlib import Path
from jina_asgi.processes.locks import lease
print(lease(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""

APP = """
import json, os

from jina_asgi.processes.devices import environment_of_shared

CUDA = "CUDA_VISIBLE_DEVICES"
SEEN = {
    "pid": os.getpid(),
    "slot": os.environ.get("JINA_ASGI_SLOT"),
    "device": os.environ.get(CUDA),
    "shared": environment_of_shared(os.environ).get(CUDA),
}

async def app(scope, receive, send):
    assert scope["type"] == "http"
    body = json.dumps(SEEN).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""

TWO_DEVICES = {"CUDA_VISIBLE_DEVICES": "RR", "CUDA_TOTAL_DEVICES": "2", "PATH": "/nowhere"}


class Holder:
    """A process that holds one slot; used as `with`."""

    def __init__(self, folder: Path, program: str = HOLDER) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", program, str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def slot(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends what it started, too."""
        with self.process, suppress(ProcessLookupError):
            os.killpg(self.process.pid, SIGKILL)


def test_slots_are_distinct_and_the_lowest_that_are_free(tmp_path: Path) -> None:
    with Holder(tmp_path) as one, Holder(tmp_path) as two, Holder(tmp_path) as three:
        holders = {holder.slot(): holder for holder in (one, two, three)}
        assert {0, 1, 2} == set(holders)
        holders[1].kill()
        with Holder(tmp_path) as next_one, Holder(tmp_path) as last:
            assert {1, 3} == {next_one.slot(), last.slot()}


def test_a_race_has_no_two_winners(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from jina_asgi.processes.locks import lease

start, go = os.pipe()
for _ in range(24):
    if os.fork() == 0:
        os.close(go)
        os.read(start, 1)
        os.write(1, b"%d\\n" % lease(Path(sys.argv[1])))
        signal.pause()
os.close(go)
signal.pause()
"""
    with Holder(tmp_path, program) as racers:
        assert list(range(24)) == sorted(racers.slot() for _ in range(24))


def test_a_slot_is_free_again_after_a_kill(tmp_path: Path) -> None:
    for _ in range(3):
        with Holder(tmp_path) as holder:
            assert 0 == holder.slot()
            holder.kill()


def test_what_a_process_starts_does_not_hold_its_slot(tmp_path: Path) -> None:
    """Neither a fork that outlives it, nor a command."""
    program = HOLDER.replace(
        "sys.stdin.read()",
        "import os, signal, subprocess\n"
        "subprocess.Popen(['sleep', '60'], close_fds=False)\n"
        "if os.fork() == 0:\n    signal.pause()\n"
        "print('forked', flush=True)\nsys.stdin.read()",
    )
    with Holder(tmp_path, program) as holder:
        assert 0 == holder.slot()
        assert holder.process.stdout is not None
        assert "forked\n" == holder.process.stdout.readline()
        holder.kill()
        with Holder(tmp_path) as after:
            assert 0 == after.slot()


def test_a_process_that_leases_twice_holds_two(tmp_path: Path) -> None:
    assert [0, 1] == [lease(tmp_path), lease(tmp_path)]
    locks._close_inherited()  # as a fork of it does
    assert 0 == lease(tmp_path)
    locks._close_inherited()


def test_a_folder_that_is_gone_is_not_ready(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=r"No such file or directory: .*slot-0"):
        lease(tmp_path / "missing")


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "slot-0").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotReady, match="symbolic links"):
        lease(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


# Under gunicorn.


@pytest.fixture
def app(tmp_path: Path) -> str:
    (tmp_path / "slotted.py").write_text(APP)
    return "slotted:app"


def ask(url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(url, timeout=30.0, headers={"connection": "close"}).json()
    return found


def workers(served: Served, count: int, *, without: tuple[int, ...] = ()) -> dict[str, dict[str, Any]]:
    """What `count` workers saw when the application was loaded, by slot."""
    seen: dict[int, dict[str, Any]] = {}
    while len(seen) < count:
        try:
            one = ask(served.url)
        except httpx.TransportError:
            continue  # it was killed with this connection in its queue
        if one["pid"] not in without:
            seen[one["pid"]] = one
    return {one["slot"]: one for one in seen.values()}


def devices(seen: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {slot: one["device"] for slot, one in sorted(seen.items())}


def test_four_workers_have_distinct_slots_and_their_devices_in_turn(app: str, tmp_path: Path) -> None:
    expected = {"0": "0", "1": "1", "2": "0", "3": "1"}
    with Served("gunicorn-uvicorn", app, "--workers", "4", cwd=tmp_path, env=TWO_DEVICES) as served:
        before = workers(served, 4)
        assert expected == devices(before)
        for slot in ("2", "1"):
            os.kill(before[slot]["pid"], SIGKILL)
            after = workers(served, 4, without=(before[slot]["pid"],))
            assert expected == devices(after)
            assert [slot] == [key for key in after if after[key]["pid"] != before[key]["pid"]]
            before = after
        served.signal(SIGTTIN)
        five = workers(served, 5)
        assert {**expected, "4": "0"} == devices(five)
        assert ["RR"] * 5 == [one["shared"] for one in five.values()]


def test_a_reload_gives_the_new_workers_other_slots(app: str, tmp_path: Path) -> None:
    with Served("gunicorn-uvicorn", app, "--workers", "2", cwd=tmp_path, env=TWO_DEVICES) as served:
        old = tuple(one["pid"] for one in workers(served, 2).values())
        served.signal(SIGHUP)
        assert {"2": "0", "3": "1"} == devices(workers(served, 2, without=old))


def test_gunicorns_own_setting_of_the_variable_counts(app: str, tmp_path: Path) -> None:
    """It sets `--env` in each worker after the hook."""
    said = ("--env", "CUDA_VISIBLE_DEVICES=RR1:", "--env", "OTHER=1")
    env = {**TWO_DEVICES, "CUDA_VISIBLE_DEVICES": "0"}
    with Served("gunicorn-uvicorn", app, *said, cwd=tmp_path, env=env) as served:
        assert {"0": "1"} == devices(workers(served, 1))


def test_other_worker_classes_have_slots_too(app: str, tmp_path: Path) -> None:
    with Served("gunicorn-uvicorn", app, "-k", "asgi", cwd=tmp_path, env=TWO_DEVICES) as served:
        assert {"0": "0"} == devices(workers(served, 1))


@pytest.mark.parametrize("text", ["1", "0,1", ""])
def test_without_round_robin_the_variable_is_left_alone(text: str, app: str, tmp_path: Path) -> None:
    env = {**TWO_DEVICES, "CUDA_VISIBLE_DEVICES": text}
    with Served("gunicorn-uvicorn", app, cwd=tmp_path, env=env) as served:
        assert {"0": text} == devices(workers(served, 1))


def test_without_devices_the_text_stays_and_is_logged(app: str, tmp_path: Path) -> None:
    env = {**TWO_DEVICES, "CUDA_TOTAL_DEVICES": "0"}
    with Served("gunicorn-uvicorn", app, cwd=tmp_path, env=env) as served:
        served.logged("CUDA_VISIBLE_DEVICES=RR stays as it is: no device was found")
        assert {"0": "RR"} == devices(workers(served, 1))


def test_a_device_that_is_not_there_ends_the_server(app: str, tmp_path: Path) -> None:
    env = {**TWO_DEVICES, "CUDA_VISIBLE_DEVICES": "RR5"}
    with Served("gunicorn-uvicorn", app, cwd=tmp_path, env=env) as served:
        served.logged("this worker gets no device: .*there is no device 5; there are 2: 0 to 1")
        assert 3 == served.ended(within=20.0)
        assert "Traceback" not in served.log


def untrusted(folder: Path) -> dict[str, str]:
    """An environment in which the folder of this user is a trap."""
    (folder / f"jina-asgi-{os.geteuid()}").symlink_to(folder)
    return {"XDG_RUNTIME_DIR": str(folder)}


@pytest.fixture
def short() -> Iterator[Path]:
    made = Path(subprocess.check_output(["mktemp", "-d", "/tmp/jXXXXXX"], text=True).strip())
    yield made
    subprocess.run(["rm", "-rf", str(made)], check=True)


def test_a_worker_that_needs_no_slot_serves_without(app: str, tmp_path: Path, short: Path) -> None:
    with Served("gunicorn-uvicorn", app, cwd=tmp_path, env={"CUDA_VISIBLE_DEVICES": "0", **untrusted(short)}) as served:
        served.logged("this worker has no slot: .* cannot be trusted: it is a link")
        assert ask(served.url)["slot"] is None
        served.signal(SIGTERM)
        assert 0 == served.ended(within=20.0)
        assert "Traceback" not in served.log


def test_a_worker_that_needs_one_does_not(app: str, tmp_path: Path, short: Path) -> None:
    with Served("gunicorn-uvicorn", app, cwd=tmp_path, env={**TWO_DEVICES, **untrusted(short)}) as served:
        served.logged("this worker gets no device: .* cannot be trusted: it is a link")
        assert 3 == served.ended(within=20.0)


#: Stands for torch, as the application's import would have loaded it.
PRELOADED = """
import sys
from types import SimpleNamespace

sys.modules["torch"] = SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: {}))
"""


@pytest.mark.parametrize(
    ("touched", "text", "said"),
    [
        (True, "0", "CUDA is in use before the workers are forked"),
        (False, "RR", "CUDA_VISIBLE_DEVICES=RR gives each worker its device before torch is imported"),
    ],
)
def test_what_was_preloaded_must_not_have_settled_the_devices(
    touched: bool, text: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "slotted.py").write_text(PRELOADED.format(touched) + APP)
    env = {**TWO_DEVICES, "CUDA_VISIBLE_DEVICES": text}
    with Served("gunicorn-uvicorn", "slotted:app", "--preload", cwd=tmp_path, env=env) as served:
        served.logged(f"Reason: {said}.*; load without --preload")
        assert 4 == served.ended(within=20.0)
        assert "Booting worker" not in served.log


def test_preloading_with_a_device_of_its_own_is_fine(tmp_path: Path) -> None:
    (tmp_path / "slotted.py").write_text(PRELOADED.format(False) + APP)
    env = {**TWO_DEVICES, "CUDA_VISIBLE_DEVICES": "0"}
    with Served("gunicorn-uvicorn", "slotted:app", "--preload", cwd=tmp_path, env=env) as served:
        assert "0" == ask(served.url)["device"]


def test_importing_the_package_imports_nothing_that_needs_a_unix() -> None:
    code = (
        "import sys, docarray, starlette.applications; sys.modules['fcntl'] = None; import jina_asgi\n"
        "import json; print(json.dumps([name for name in sys.modules if name.startswith('jina_asgi.processes')]))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert [] == [name for name in json.loads(said) if name.endswith((".place", ".slots"))]
