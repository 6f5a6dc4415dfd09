"""What reading any model of transformers needs: its device, its dtype, and no progress bars in a server's log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def device_named(device: str) -> torch.device:
    """The device of a name; "auto": a GPU if there is one."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)


def dtype_named(dtype: str) -> torch.dtype:
    """The dtype of a name that is not "auto".

    Raises:
        ValueError: there is none.
    """
    try:
        return _DTYPES[dtype]
    except KeyError:
        raise ValueError(f"dtype {dtype!r} is none of auto, {', '.join(_DTYPES)}") from None


@contextmanager
def without_bars() -> Iterator[None]:
    """Without transformers' progress bars: a server's log is no place for them."""
    bars: Any = transformers.utils.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()
