"""The files of a server's processes: added up, and folded when their process has ended, without a count lost or doubled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from jina_asgi.errors import NotReady
from jina_asgi.observability import figure_file
from jina_asgi.observability.figure_file import FigureFile, remove_if_last, sums
from jina_asgi.observability.figures import Figures
from jina_asgi.observability.metrics import IN_FLIGHT, REQUEST_SECONDS, REQUESTS
from tests.doubles.rig import ROOT

ECHO = ("model", "/echo", "http")
OK = (REQUESTS.name, (*ECHO, "ok"))
SECONDS = (REQUEST_SECONDS.name, ECHO)
FLYING = (IN_FLIGHT.name, ECHO)


class Process:
    """The figures and the file of what might be a process of its own: only the lock says that it lives."""

    def __init__(self, folder: Path) -> None:
        self.figures = Figures()
        self.ok = self.figures.figure(REQUESTS, *ECHO, "ok")
        self.file = FigureFile(folder, self.figures)

    def counts(self, requests: int) -> None:
        self.ok.value += requests
        self.file.write()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name[0].isdigit())


def test_counts_and_gauges_of_living_processes_are_added(tmp_path: Path) -> None:
    one, other = Process(tmp_path / "m"), Process(tmp_path / "m")
    for process in (one, other):
        process.figures.figure(IN_FLIGHT, *ECHO).value = 2
        process.figures.histogram(REQUEST_SECONDS, *ECHO).observe(0.003)
        process.counts(3)
    total = sums(tmp_path / "m")
    assert (total[OK], total[FLYING]) == ([6], [4])
    assert [2.0 if bound == 0.005 else 0.0 for bound in (*REQUEST_SECONDS.buckets, 0)] == total[SECONDS][:-1]
    assert total[SECONDS][-1] == pytest.approx(0.006)


def test_what_ended_processes_counted_stays_and_their_gauges_go(tmp_path: Path) -> None:
    one, other = Process(tmp_path / "m"), Process(tmp_path / "m")
    one.figures.figure(IN_FLIGHT, *ECHO).value = 1
    one.counts(3)
    other.counts(4)
    one.file.close()
    for _ in range(2):
        assert {OK: [7]} == sums(tmp_path / "m")
    assert [other.file.path.name] == files(tmp_path / "m")


def test_many_processes_that_ended_leave_one_file(tmp_path: Path) -> None:
    for number in range(1, 21):
        process = Process(tmp_path / "m")
        process.counts(1)
        process.file.close()
        assert [number] == sums(tmp_path / "m")[OK]
        assert [] == files(tmp_path / "m")


def test_a_file_is_not_added_twice_if_its_reader_was_killed_before_it_removed_it(tmp_path: Path) -> None:
    process = Process(tmp_path / "m")
    process.counts(5)
    process.file.close()
    raw = process.file.path.read_bytes()
    assert [5] == sums(tmp_path / "m")[OK]
    process.file.path.write_bytes(raw)  # as if it had not been removed
    assert [5] == sums(tmp_path / "m")[OK]
    assert [] == files(tmp_path / "m")


@pytest.mark.parametrize("length", [0, 4, 8, 40])
def test_a_file_that_was_cut_short_counts_as_far_as_it_is_complete(tmp_path: Path, length: int) -> None:
    whole, cut = Process(tmp_path / "m"), Process(tmp_path / "m")
    whole.counts(1)
    cut.counts(2)
    cut.file.close()
    os.truncate(cut.file.path, length)
    assert {OK: [1]} == sums(tmp_path / "m")


def test_figures_that_appear_later_are_appended(tmp_path: Path) -> None:
    process = Process(tmp_path / "m")
    process.counts(1)
    later = process.figures.figure(REQUESTS, *ECHO, "Overloaded")
    later.value = 2
    process.counts(1)
    later.value += 1
    process.counts(1)
    assert {OK: [3], (REQUESTS.name, (*ECHO, "Overloaded")): [3]} == sums(tmp_path / "m")


def test_the_folder_goes_with_the_last_process(tmp_path: Path) -> None:
    one, other = Process(tmp_path / "m"), Process(tmp_path / "m")
    one.file.close()
    assert not remove_if_last(tmp_path / "m")
    other.file.close()
    assert remove_if_last(tmp_path / "m")
    assert [] == [*tmp_path.iterdir()]


def test_a_reader_that_has_stopped_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(tmp_path / "m")
    monkeypatch.setattr(figure_file, "_PATIENCE", 0.05)
    with figure_file._locked(tmp_path / "m"), pytest.raises(NotReady, match="has had"):
        sums(tmp_path / "m")
    process.counts(1)
    assert [1] == sums(tmp_path / "m")[OK]


def test_what_another_version_counted_in_other_buckets_is_left_out(tmp_path: Path) -> None:
    process = Process(tmp_path / "m")
    process.figures.histogram(REQUEST_SECONDS, *ECHO).observe(0.1)
    old = figure_file._Ended([], [(REQUEST_SECONDS.name, ECHO, [1.0, 2.0])])
    (tmp_path / "m" / "ended").write_bytes(msgspec.json.encode(old))
    process.counts(1)
    assert len(REQUEST_SECONDS.buckets) + 2 == len(sums(tmp_path / "m")[SECONDS])


COUNTS = """
import os, sys
from pathlib import Path
from jina_asgi.observability import writer
from jina_asgi.observability.figures import FIGURES
from jina_asgi.observability.metrics import REQUESTS
ok = FIGURES.figure(REQUESTS, "model", "/echo", "http", "ok")
ok.value = 100  # before a fork, as a server with preloaded applications has it
if child := os.fork():
    os.waitpid(child, 0)
    os._exit(0)
found = writer.WRITER
found.wake(Path(sys.argv[1]))
ok.value += 2
found.write()
if not os.fork():
    ok.value += 1000
    found.write()  # its parent's file is closed here
    os._exit(0)
os.wait()
ok.value += 3
print("counted", flush=True)
sys.stdin.read()
found.rest(removes=False)
"""


def counting(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", COUNTS, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "counted\n"
    return process


@pytest.mark.processes
def test_a_forked_process_counts_for_itself_from_zero(tmp_path: Path) -> None:
    with counting(tmp_path / "m") as process:
        process.communicate("")
    assert {OK: [5]} == sums(tmp_path / "m")


@pytest.mark.processes
def test_a_killed_process_takes_at_most_what_it_had_not_written(tmp_path: Path) -> None:
    with counting(tmp_path / "m") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        (at,) = (tmp_path / "m").glob("[0-9]*")
        os.kill(int(at.name.partition("-")[0]), signal.SIGKILL)
    assert sums(tmp_path / "m")[OK] in ([2], [5])
