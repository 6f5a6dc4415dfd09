"""A diffusers pipeline as the Executor uses it: what it takes is read from its signature, once.

The only module that knows diffusers. It downloads nothing but what `from_pretrained` does for a name that is no folder,
as the settings of Hugging Face (HF_HUB_OFFLINE, HF_HOME) let it.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers

from jina_asgi import ExecutorInputError

logger = logging.getLogger(__name__)

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
#: Our parameters, and what pipelines call them.
_NAMES = {"steps": "num_inference_steps", "guidance": "guidance_scale", "width": "width", "height": "height"}
_CALLBACK = "callback_on_step_end"

#: Told after each step, counted from 1, and of how many; raises to end the drawing.
Progress = Callable[[int, int], None]


class Painter:
    """One pipeline, which draws for one caller at a time.

    Raises:
        ValueError: it is no pipeline that draws from a text.
    """

    def __init__(self, pipeline: Any, name: str) -> None:
        self.name, self._pipeline, self._lock = name, pipeline, threading.Lock()
        self._takes = set(inspect.signature(type(pipeline).__call__).parameters)
        if "prompt" not in self._takes:
            raise ValueError(f"{name} is a {type(pipeline).__name__}, which takes no prompt; expected one that does")
        if _CALLBACK not in self._takes:
            logger.warning("%s tells nothing between its steps: a drawing ends with its last", name)
        pipeline.set_progress_bar_config(disable=True)

    def draw(
        self,
        texts: Sequence[str],
        negatives: Sequence[str | None],
        seeds: Sequence[int],
        how: Mapping[str, Any],
        progress: Progress,
    ) -> list[np.ndarray]:
        """A picture for each text, as height x width x 3 bytes.

        Args:
            texts, negatives, seeds: what is drawn, what is not, and where each begins.
            how: of `_NAMES` those that somebody asked for.
            progress: told of every step.

        Raises:
            ExecutorInputError: the pipeline takes no such parameter. Whatever `progress` raises.
        """
        options: dict[str, Any] = {_NAMES[name]: value for name, value in how.items()}
        if any(negatives):
            options["negative_prompt"] = [negative or "" for negative in negatives]
        for name in options:
            if name not in self._takes:
                raise ExecutorInputError(f"{self.name} takes no {name}: leave it out")
        if "generator" in self._takes:
            options["generator"] = [torch.Generator().manual_seed(seed) for seed in seeds]
        if _CALLBACK in self._takes:
            options[_CALLBACK] = _told(progress, how.get("steps"))
        with self._lock, torch.inference_mode():
            found = self._pipeline(prompt=list(texts), output_type="pil", **options)
        return [np.asarray(image.convert("RGB")) for image in found.images]


def _told(progress: Progress, steps: int | None) -> Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]:
    def after_step(pipeline: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        progress(step + 1, getattr(pipeline, "num_timesteps", None) or steps or 0)
        return values

    return after_step


def load(model: str, *, device: str, dtype: str) -> Painter:
    """Read a pipeline: a folder, or a name that diffusers knows.

    Raises:
        ValueError: a dtype that is none; or as `Painter`. Whatever diffusers raises.
    """
    target = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    is_folder = Path(model).is_dir()
    read: Any = diffusers.DiffusionPipeline.from_pretrained
    with _quiet():
        pipeline = read(model, dtype=_dtype(dtype, target), local_files_only=is_folder)
    name = Path(model).name if is_folder else model
    painter = Painter(pipeline.to(target), name)
    logger.info("%s is loaded: %s on %s", name, type(pipeline).__name__, target)
    return painter


def _dtype(dtype: str, device: torch.device) -> torch.dtype:
    """ "auto": float16 on a GPU; on a CPU, which hardly multiplies that, float32."""
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.float16
    try:
        return _DTYPES[dtype]
    except KeyError:
        raise ValueError(f"dtype {dtype!r} is none of auto, {', '.join(_DTYPES)}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' progress bars: a server's log is no place for them."""
    shown = [bars for bars in (diffusers.utils.logging, transformers.utils.logging) if bars.is_progress_bar_enabled()]
    for bars in shown:
        bars.disable_progress_bar()
    try:
        yield
    finally:
        for bars in shown:
            bars.enable_progress_bar()
