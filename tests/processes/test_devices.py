"""Which device each replica gets, and how the devices are counted. The first tables are JINA.md 1.9 and Jina's own."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jina_asgi.errors import DefinitionError
from jina_asgi.processes.devices import (
    count_devices,
    device_of,
    environment_of,
    environment_of_shared,
    environment_of_worker,
    round_robin,
    visible_devices,
)

CUDA = "CUDA_VISIBLE_DEVICES"


def machine(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def assigned(text: str, replicas: int, visible: list[str]) -> list[str | None]:
    """What each replica sees of a Deployment's `env={"CUDA_VISIBLE_DEVICES": text}`."""
    return [environment_of(replica, {CUDA: text}, None, visible).get(CUDA) for replica in range(replicas)]


@pytest.mark.parametrize(
    ("text", "devices", "expected"),
    [
        ("RR", 4, "0 1 2 3 0"),
        ("RR1:3", 4, "1 2 1 2 1"),
        ("RR0:2", 4, "0 1 0 1 0"),
        ("RR1,3", 4, "1 3 1 3 1"),
        ("RR(1,3)", 4, "1 3 1 3 1"),
        ("RRGPU-a,GPU-b", 4, "GPU-a GPU-b GPU-a GPU-b GPU-a"),
        ("RR3", 4, "3 3 3 3 3"),
        ("RR", 3, "0 1 2 0 1"),
        ("RR1:", 3, "1 2 1 2 1"),
        ("RR0:2", 3, "0 1 0 1 0"),
        ("RR1:2", 3, "1 1"),
        ("RR:", 3, "0 1 2"),
        ("RR::2", 4, "0 2 0"),
        ("RR::-1", 3, "2 1 0 2"),
        ("RR-2:", 4, "2 3 2"),
        ("RR2:9", 4, "2 3 2"),
        ("RR[1:3]", 4, "1 2 1"),
        ("RR()", 2, "0 1 0"),
        ("RR 1, 0", 2, "1 0 1"),
        ("RR1,1,0", 2, "1 1 0 1"),
        ("RRGPU-a", 1, "GPU-a GPU-a"),
        ("RRMIG-GPU-a/1/0,GPU-b", 1, "MIG-GPU-a/1/0 GPU-b"),
        ("1", 3, "1 1"),
        ("1,2", 3, "1,2 1,2"),
        ("", 3, " "),
        ("NoDevFiles", 3, "NoDevFiles"),
    ],
)
def test_replicas_take_the_devices_in_turn(text: str, devices: int, expected: str) -> None:
    wanted = expected.split(" ")
    assert wanted == assigned(text, len(wanted), machine(devices))


@pytest.mark.parametrize("text", ["RR", "RR1:3", "RR7", "RRGPU-a,GPU-b", "RR?"])
def test_without_devices_the_text_stays(text: str) -> None:
    assert round_robin(text, []) is None
    assert [text, text] == assigned(text, 2, [])


@pytest.mark.parametrize("text", ["1", "0,1", "GPU-a", "", None, "rr"])
def test_other_text_is_no_round_robin(text: str | None) -> None:
    assert round_robin(text, machine(2)) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("RR4", "there is no device 4; there are 4: 0 to 3"),
        ("RR0,7", "there is no device 7; there are 4: 0 to 3"),
        ("RR-1", "there is no device -1; there are 4: 0 to 3"),
        ("RR2:2", "selects no device"),
        ("RR4:", "selects no device"),
        ("RR0:4:0", "expected a slice"),
        ("RR0:1:2:3", "expected a slice"),
        ("RRa:b", "expected a number, got 'a'"),
        ("RR0,GPU-a", "expected a number, got 'GPU-a'"),
        ("RR0:2,3", "a slice stands alone"),
        ("RR0,", "has an empty entry"),
    ],
)
def test_what_cannot_be_is_refused_with_the_text_and_the_range(text: str, said: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        round_robin(text, machine(4))
    assert said in refused.value.message
    assert repr(text) in refused.value.message


def test_numbers_count_what_the_process_may_use() -> None:
    assert ["5", "7"] == round_robin("RR1:", ["2", "5", "7"])
    assert ["GPU-x"] == round_robin("RR1", ["GPU-w", "GPU-x"])


def test_a_restarted_replica_gets_its_device_again() -> None:
    selected = round_robin("RR", machine(2)) or []
    assert [device_of(3, selected)] * 50 == [device_of(3, selected) for _ in range(50)]


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ([1, 0], "1 0 1"),
        ([[0, 1], [2, 3]], "0,1 2,3 0,1"),
        ([[0, 1], 2], "0,1 2 0,1"),
        (("GPU-6f1a", "MIG-0b2c"), "GPU-6f1a MIG-0b2c GPU-6f1a"),
        ([("GPU-6f1a", 0)], "GPU-6f1a,0 GPU-6f1a,0 GPU-6f1a,0"),
        (["3", " 2 "], "3 2 3"),
        ([0, 0, 1], "0 0 1"),
    ],
)
def test_devices_has_an_entry_a_replica(devices: Any, expected: str) -> None:
    given = [environment_of(replica, {}, devices, machine(4))[CUDA] for replica in range(3)]
    assert expected.split() == given


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        ([4], "there is no device 4; there are 4: 0 to 3"),
        ([[0, -1]], "there is no device -1"),
        ([], "at least one entry"),
        ([[]], "an entry is empty"),
        ("0,1", "expected a list"),
        (["0,1"], "expected a number or a UUID"),
        (["cuda:0"], "got 'cuda:0'"),
        ([True], "got True"),
        ([1.5], "got 1.5"),
        ([[0, "0"]], "names a device twice"),
    ],
)
def test_devices_that_make_no_sense_are_refused(devices: Any, said: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        environment_of(0, {}, devices, machine(4))
    assert said in refused.value.message


def test_one_device_is_named_as_one() -> None:
    with pytest.raises(DefinitionError, match="there is no device 1; there is one: 0"):
        environment_of(0, {}, [1], ["0"])


def test_devices_are_taken_as_they_are_where_none_is_known() -> None:
    assert {CUDA: "5"} == environment_of(0, {}, [5], [])
    with pytest.raises(DefinitionError, match="they count from 0"):
        environment_of(0, {}, [-1], [])


@pytest.mark.parametrize("text", ["RR", "0", ""])
def test_devices_and_the_variable_in_env_are_one_too_many(text: str) -> None:
    with pytest.raises(DefinitionError, match="exclude each other"):
        environment_of(0, {CUDA: text}, [0], machine(1))


@pytest.mark.parametrize(
    ("env", "devices", "inherited", "expected"),
    [
        ({}, None, None, {}),
        ({"A": "1"}, None, "RR", {"A": "1", CUDA: "1"}),
        ({"A": "1"}, None, "0", {"A": "1"}),
        ({CUDA: "RR0"}, None, "RR", {CUDA: "0"}),
        ({CUDA: ""}, None, "RR", {CUDA: ""}),
        ({}, [[0, 1]], "RR", {CUDA: "0,1"}),
    ],
)
def test_env_comes_before_what_is_inherited(
    env: Mapping[str, str], devices: Any, inherited: str | None, expected: dict[str, str]
) -> None:
    given = dict(env)
    assert expected == environment_of(1, env, devices, machine(2), inherited=inherited)
    assert given == env


@pytest.mark.parametrize(
    ("before", "device"),
    [({CUDA: "RR", "A": "1"}, "1"), ({CUDA: "0,1"}, "0,1"), ({CUDA: ""}, ""), ({}, None)],
)
def test_what_a_worker_starts_for_all_is_as_before_its_slot(before: dict[str, str], device: str | None) -> None:
    worker = {**before, **environment_of_worker(3, before, machine(2))}
    assert ("3", device) == (worker["JINA_ASGI_SLOT"], worker.get(CUDA))
    assert before == environment_of_shared(worker)


# What devices there are.


def smi(folder: Path, script: str) -> dict[str, str]:
    """An environment in which `nvidia-smi` is a script."""
    command = folder / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    return {"PATH": str(folder)}


LISTED = 'echo "GPU 0: NVIDIA A (UUID: GPU-1)"; echo "GPU 1: NVIDIA A (UUID: GPU-2)"'


class Library(SimpleNamespace):
    """nvidia-ml-py on a machine with `count` devices."""

    closed = 0

    def nvmlInit(self) -> None:
        if self.count is None:
            raise RuntimeError("NVML Shared Library Not Found")

    def nvmlDeviceGetCount(self) -> int:
        return int(self.count)

    def nvmlShutdown(self) -> None:
        self.closed += 1


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    """One that does not work, whatever is installed."""
    library = Library(count=None)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    return library


def test_the_library_is_asked_first(library: Library, tmp_path: Path) -> None:
    library.count = 3
    assert 3 == count_devices(smi(tmp_path, LISTED))
    assert 1 == library.closed


@pytest.mark.processes
def test_then_the_command_is(library: Library, tmp_path: Path) -> None:
    assert 2 == count_devices({**smi(tmp_path, LISTED), "CUDA_TOTAL_DEVICES": "5"})


@pytest.mark.processes
@pytest.mark.parametrize("script", [f"{LISTED}; exit 9", "exit 0"])
def test_then_the_variable_is(library: Library, tmp_path: Path, script: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "jina_asgi"):
        assert 5 == count_devices({**smi(tmp_path, script), "CUDA_TOTAL_DEVICES": "5"})
    assert "NVML Shared Library Not Found" in caplog.text


@pytest.mark.processes
def test_a_missing_library_is_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with caplog.at_level(logging.DEBUG, "jina_asgi"):
        assert 0 == count_devices({"PATH": str(tmp_path)})
    assert ["nvidia-ml-py", "nvidia-smi"] == [record.getMessage().split()[0] for record in caplog.records]


@pytest.mark.processes
@pytest.mark.parametrize("text", ["", "two", "-2", "0"])
def test_a_variable_that_counts_nothing_is_none(library: Library, tmp_path: Path, text: str) -> None:
    assert 0 == count_devices({"PATH": str(tmp_path), "CUDA_TOTAL_DEVICES": text})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, ["0", "1", "2"]),
        ("RR", ["0", "1", "2"]),
        ("RR0:1", ["0", "1", "2"]),
        ("2,3", ["2", "3"]),
        ("GPU-a, GPU-b", ["GPU-a", "GPU-b"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1,-1,0", ["1"]),
    ],
)
def test_a_restriction_of_the_process_is_not_widened(library: Library, text: str | None, expected: list[str]) -> None:
    library.count = 3
    assert expected == visible_devices({} if text is None else {CUDA: text})
