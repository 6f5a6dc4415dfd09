"""Which CUDA devices there are, and which of them each replica gets.

The choice is made from plain values, so that a replica that comes back gets the same device. Counting devices does not
touch CUDA: a process that touches it can no longer fork. A machine where no way of counting works has no devices.
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
WORKERS = "JINA_ASGI_WORKERS"  #: how many web workers the server has
SLOT = "JINA_ASGI_SLOT"  #: which of a server's web workers this process is
ASKED = "JINA_ASGI_CUDA_VISIBLE_DEVICES"  #: what the variable was before a slot's device took its place

Device = int | str

_NUMBER = re.compile(r"[+-]?\d+")
_NAMED = re.compile(r"(GPU|MIG)-[\w./-]+")


def round_robin(text: str | None, visible: Sequence[str]) -> list[str] | None:
    """The devices that replicas take in turn, as `CUDA_VISIBLE_DEVICES="RR..."` says it in Jina.

    `RR` is all of them, `RR1:3` a slice, `RR3` one, `RR1,3` these (also in brackets), `RRGPU-a,GPU-b` these by name.
    Numbers count `visible`, the names of the devices that this process may use. None: `text` is no such text, or no
    device is visible, and then the text stays as it is.

    Raises:
        DefinitionError: it cannot be read, or selects what is not there.
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
    """The device of one replica, counted from 0: they take turns."""
    return selected[replica % len(selected)]


def environment_of(
    replica: int,
    env: Mapping[str, str],
    devices: Sequence[Device | Sequence[Device]] | None,
    visible: Sequence[str],
    *,
    inherited: str | None = None,
) -> dict[str, str]:
    """The variables to set for the process of one replica: `env`, with `CUDA_VISIBLE_DEVICES` made out.

    `devices` has an entry a replica, taken in turns: a number, a UUID (`"GPU-..."`, `"MIG-..."`), or a list of these
    for several devices. Numbers count `visible`; where nothing is visible they are taken as they are. Without
    `devices`, round robin counts in `env`, else in `inherited`: what the process that starts the replica has in that
    variable. `devices` comes before `inherited`.

    Raises:
        DefinitionError: a device that is not there, no device at all, or devices given in both ways.
    """
    if devices is not None:
        if VARIABLE in env:
            raise DefinitionError(
                f"devices={devices!r} and {VARIABLE}={env[VARIABLE]!r} in env are two ways of saying one thing; give one"
            )
        return {**env, VARIABLE: device_of(replica, _given(devices, visible))}
    selected = round_robin(env.get(VARIABLE, inherited), visible)
    return dict(env) if selected is None else {**env, VARIABLE: device_of(replica, selected)}


def environment_of_worker(slot: int, environ: Mapping[str, str], visible: Sequence[str]) -> dict[str, str]:
    """The variables to set in a web worker, by its slot: where round robin is asked for it gets one device.

    Raises:
        DefinitionError: as `round_robin`.
    """
    asked, named = environ.get(VARIABLE), {SLOT: str(slot)}
    selected = round_robin(asked, visible)
    return named if selected is None else {**named, VARIABLE: device_of(slot, selected), ASKED: str(asked)}


def environment_of_shared(environ: Mapping[str, str]) -> dict[str, str]:
    """The whole environment for a process that one web worker starts for all: as it was before the slot was known."""
    shared = {name: value for name, value in environ.items() if name not in (SLOT, ASKED)}
    return {**shared, VARIABLE: environ[ASKED]} if ASKED in environ else shared


def _given(devices: Sequence[Device | Sequence[Device]], visible: Sequence[str]) -> list[str]:
    """What `devices=` says, an entry a replica."""
    where = f"devices={devices!r}"
    if isinstance(devices, str) or not devices:
        raise DefinitionError(f"{where}: expected a list with at least one entry, such as [0, 1] or [[0, 1], [2, 3]]")
    found: list[str] = []
    for entry in devices:
        group = list(entry) if isinstance(entry, Sequence) and not isinstance(entry, str) else [entry]
        names = [_named(device, visible, where) for device in group]
        if not names:
            raise DefinitionError(f"{where}: an entry names no device; to run on the CPU, leave `devices` out")
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
_PATIENCE = 30.0  # seconds for nvidia-smi: where no process keeps the driver loaded, it loads it


def visible_devices(environ: Mapping[str, str] | None = None) -> list[str]:
    """The names of the devices that this process may use, as `CUDA_VISIBLE_DEVICES` has them.

    Where that variable is set for the process it is the list, and is never widened: under `2,3` there are two devices,
    and number 0 is `2`, as it is for CUDA. Where it is not set, or asks for round robin, they are `0` to n - 1.
    """
    environ = os.environ if environ is None else environ
    text = environ.get(VARIABLE)
    if text is None or text.startswith(ROUND_ROBIN):
        return [str(number) for number in range(count_devices(environ))]
    entries = [entry.strip() for entry in text.split(",")]
    return entries[: next((at for at, entry in enumerate(entries) if entry in _NONE), None)]


def count_devices(environ: Mapping[str, str] | None = None) -> int:
    """How many CUDA devices the machine has: by nvidia-ml-py, else nvidia-smi, else `CUDA_TOTAL_DEVICES`, else 0."""
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
    except Exception as error:  # noqa: BLE001  # its errors are its own, and a broken driver may raise anything
        logger.debug("nvidia-ml-py does not count the devices: %r", error)
        return 0


def _by_command(environ: Mapping[str, str]) -> int:
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"],  # noqa: S607  # where it lies differs
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
        logger.debug("CUDA_TOTAL_DEVICES=%r is no number", text)
        return 0
