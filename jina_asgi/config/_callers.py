"""Finds the folder of the code that called this library."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

_OURS = str(Path(__file__).parents[1])


def folder_of_caller() -> Path | None:
    """The folder of the nearest module on the stack outside this library; None if it has no file."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if not path.is_relative_to(_OURS):
            return path.resolve().parent if path.is_file() else None
        frame = frame.f_back
    return None
