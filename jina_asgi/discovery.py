"""Which CUDA devices this process may use, asked without touching CUDA: whoever touches it can no longer fork.

Nothing here raises: a machine where no way works has no devices.
"""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
from collections.abc import Mapping

from jina_asgi.devices import ROUND_ROBIN, VARIABLE

__all__ = ["count_devices", "visible_devices"]

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
