"""Finds the CUDA devices of the machine, and assigns them to replicas.

The assignment depends on plain values only, so that a restarted replica gets the same device. Counting devices does
not touch CUDA: a process that has touched it can no longer fork. Where no way of counting works there are no devices.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import subprocess
from collections.abc import Mapping, Sequence

from jina_asgi.errors import DefinitionError

VARIABLE = "CUDA_VISIBLE_DEVICES"
ROUND_ROBIN = "RR"
WORKERS = "JINA_ASGI_WORKERS"  #: the number of the server's web workers
SLOT = "JINA_ASGI_SLOT"  #: the number of this web worker among the server's
ORIGINAL_DEVICES = "JINA_ASGI_CUDA_VISIBLE_DEVICES"  #: the variable's value before it was set to the slot's device

Device = int | str

_NUMBER = re.compile(r"[+-]?\d+")
_NAMED = re.compile(r"(GPU|MIG)-[\w./-]+")


def round_robin(text: str | None, visible: Sequence[str]) -> list[str] | None:
    """Parses Jina's `CUDA_VISIBLE_DEVICES="RR..."` into the devices that replicas take in turn.

    `RR` is all of them, `RR1:3` a slice, `RR3` one, `RR1,3` these (also in brackets), `RRGPU-a,GPU-b` these by name.
    Numbers index `visible`, the devices that this process may use. Returns None if `text` does not start with "RR", or
    if no device is visible: the text then stays as it is.

    Raises:
        DefinitionError: the text cannot be parsed, or selects a device that does not exist.
    """
    if text is None or not text.startswith(ROUND_ROBIN) or not visible:
        return None
    inner = text.removeprefix(ROUND_ROBIN).strip()
    if inner[:1] + inner[-1:] in ("()", "[]"):
        inner = inner[1:-1]
    entries = [entry.strip() for entry in inner.split(",")]
    where = f"{VARIABLE}={text!r}"
    if entries == [""]:
        return list(visible)
    if len(entries) == 1 and ":" in inner:
        return _sliced(inner, visible, where)
    if not all(entries):
        raise DefinitionError(f"{where} has an empty entry; write it as 'RR0,2'")
    if any(":" in entry for entry in entries):
        raise DefinitionError(f"{where}: a slice stands alone; write 'RR1:3' or 'RR1,2'")
    if not _NUMBER.fullmatch(entries[0]):
        return entries
    return [_at(_number(entry, where), visible, where) for entry in entries]


def device_of(replica: int, selected: Sequence[str]) -> str:
    """The device of one replica, counted from 0: replicas take turns."""
    return selected[replica % len(selected)]


def environment_of(
    replica: int,
    env: Mapping[str, str],
    devices: Sequence[Device | Sequence[Device]] | None,
    visible: Sequence[str],
    *,
    inherited: str | None = None,
) -> dict[str, str]:
    """The environment variables to set for one replica: `env`, with `CUDA_VISIBLE_DEVICES` resolved.

    `devices` has one entry for each replica, taken in turn: a number, a UUID (`"GPU-..."`, `"MIG-..."`), or a list of
    these for several devices. Numbers index `visible`; if nothing is visible they are used as they are. Without
    `devices`, a round robin in `env` counts, else one in `inherited`: the variable's value in the process that starts
    the replica. `devices` takes precedence over `inherited`.

    Raises:
        DefinitionError: a device that does not exist, an empty entry, or devices given in both `devices` and `env`.
    """
    if devices is not None:
        if VARIABLE in env:
            raise DefinitionError(
                f"devices={devices!r} and {VARIABLE}={env[VARIABLE]!r} in env exclude each other; give one of them"
            )
        return {**env, VARIABLE: device_of(replica, _given(devices, visible))}
    selected = round_robin(env.get(VARIABLE, inherited), visible)
    return dict(env) if selected is None else {**env, VARIABLE: device_of(replica, selected)}


def environment_of_worker(slot: int, environ: Mapping[str, str], visible: Sequence[str]) -> dict[str, str]:
    """The environment variables to set in a web worker, by its slot: with round robin it gets one device.

    Raises:
        DefinitionError: as `round_robin`.
    """
    requested, named = environ.get(VARIABLE), {SLOT: str(slot)}
    selected = round_robin(requested, visible)
    return (
        named if selected is None else {**named, VARIABLE: device_of(slot, selected), ORIGINAL_DEVICES: str(requested)}
    )


def environment_of_shared(environ: Mapping[str, str]) -> dict[str, str]:
    """The whole environment for a process that one web worker starts for all: without that worker's slot and device."""
    shared = {name: value for name, value in environ.items() if name not in (SLOT, ORIGINAL_DEVICES)}
    return {**shared, VARIABLE: environ[ORIGINAL_DEVICES]} if ORIGINAL_DEVICES in environ else shared


def _given(devices: Sequence[Device | Sequence[Device]], visible: Sequence[str]) -> list[str]:
    """The devices of each replica, from `devices=`."""
    where = f"devices={devices!r}"
    if isinstance(devices, str) or not devices:
        raise DefinitionError(f"{where}: expected a list with at least one entry, such as [0, 1] or [[0, 1], [2, 3]]")
    found: list[str] = []
    for entry in devices:
        group = list(entry) if isinstance(entry, Sequence) and not isinstance(entry, str) else [entry]
        names = [_named(device, visible, where) for device in group]
        if not names:
            raise DefinitionError(f"{where}: an entry is empty; to run on the CPU, leave `devices` out")
        if len(set(names)) < len(names):
            raise DefinitionError(f"{where}: {entry!r} names a device twice")
        found.append(",".join(names))
    return found


def _named(device: Device, visible: Sequence[str], where: str) -> str:
    text = str(device).strip()
    if isinstance(device, int | str) and not isinstance(device, bool):
        if _NUMBER.fullmatch(text):
            return _at(int(text), visible, where) if visible or int(text) < 0 else text
        if _NAMED.fullmatch(text):
            return text
    raise DefinitionError(f"{where}: expected a number or a UUID ('GPU-...', 'MIG-...'), got {device!r}")


def _sliced(text: str, visible: Sequence[str], where: str) -> list[str]:
    parts = [_number(part, where) if part.strip() else None for part in text.split(":")]
    if len(parts) > 3 or parts[2:] == [0]:
        raise DefinitionError(f"{where}: expected a slice as Python has it, start:stop or start:stop:step")
    selected = list(visible[slice(*parts)])
    if not selected:
        raise DefinitionError(f"{where} selects no device; {_range(visible)}")
    return selected


def _number(text: str, where: str) -> int:
    if not _NUMBER.fullmatch(text.strip()):
        raise DefinitionError(f"{where}: expected a number, got {text.strip()!r}")
    return int(text)


def _at(number: int, visible: Sequence[str], where: str) -> str:
    if not 0 <= number < len(visible):
        raise DefinitionError(f"{where}: there is no device {number}; {_range(visible)}")
    return visible[number]


def _range(visible: Sequence[str]) -> str:
    known = {0: "they count from 0", 1: "there is one: 0"}
    return known.get(len(visible), f"there are {len(visible)}: 0 to {len(visible) - 1}")


logger = logging.getLogger("jina_asgi")

_NONE = ("", "-1", "NoDevFiles")  # CUDA reads its list up to the first entry that is no device
_PATIENCE = 30.0  # seconds for nvidia-smi: where no process keeps the driver loaded, it has to load it


def visible_devices(environ: Mapping[str, str] | None = None) -> list[str]:
    """The names of the devices that this process may use, from `CUDA_VISIBLE_DEVICES`.

    If the variable lists devices, that list is used and never widened: under `2,3` there are two devices, and number 0
    is `2`, as in CUDA. If it is not set, or asks for round robin, the devices are `0` to n - 1.
    """
    environ = os.environ if environ is None else environ
    text = environ.get(VARIABLE)
    if text is None or text.startswith(ROUND_ROBIN):
        return [str(number) for number in range(count_devices(environ))]
    entries = [entry.strip() for entry in text.split(",")]
    return entries[: next((at for at, entry in enumerate(entries) if entry in _NONE), None)]


def count_devices(environ: Mapping[str, str] | None = None) -> int:
    """Counts the machine's CUDA devices: by nvidia-ml-py, else nvidia-smi, else `CUDA_TOTAL_DEVICES`, else 0."""
    environ = os.environ if environ is None else environ
    return _by_library() or _by_command(environ) or _by_variable(environ)


def _by_library() -> int:
    try:
        library = importlib.import_module("pynvml")
        library.nvmlInit()
        try:
            return int(library.nvmlDeviceGetCount())
        finally:
            library.nvmlShutdown()
    except Exception as error:  # noqa: BLE001  # it has its own error classes, and a broken driver may raise anything
        logger.debug("nvidia-ml-py does not count the devices: %r", error)
        return 0


def _by_command(environ: Mapping[str, str]) -> int:
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"],  # noqa: S607  # its location differs between systems
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=_PATIENCE,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        logger.debug("nvidia-smi does not count the devices: %r", error)
        return 0
    return listed.stdout.count(b"UUID")


def _by_variable(environ: Mapping[str, str]) -> int:
    text = environ.get("CUDA_TOTAL_DEVICES", "0")
    try:
        return max(0, int(text))
    except ValueError:
        logger.debug("CUDA_TOTAL_DEVICES=%r is not a number", text)
        return 0
