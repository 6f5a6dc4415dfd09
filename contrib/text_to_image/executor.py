"""The Executor: loads the pipeline, and draws a picture for each text, some at a time, in the Executor's thread."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from docarray import DocList
from PIL import Image

from jina_asgi import Context, Executor, ExecutorError, requests

from .documents import Drawing, Picture, Prompt
from .painter import Progress, load


class TextToImage(Executor):
    """Any text-to-image pipeline of diffusers.

    Args:
        model: the folder of a pipeline, or a name that diffusers knows.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...
        dtype: "auto", "float32", "bfloat16" or "float16".
        max_batch: how many pictures are drawn at once; of more, these first and then the next.
    """

    def __init__(
        self, *, model: str, device: str = "auto", dtype: str = "auto", max_batch: int = 4, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if max_batch < 1:
            raise ValueError(f"max_batch={max_batch}: expected at least 1")
        self.max_batch = max_batch
        self.painter = load(model, device=device, dtype=dtype)

    @requests(on=("/generate", "/default"))
    def generate(self, docs: DocList[Prompt], parameters: Drawing, context: Context) -> DocList[Picture]:
        """Draw a picture for each text. It ends between two steps where nobody waits for it any more."""
        pictures = DocList[Picture]()
        for start in range(0, len(docs), self.max_batch):
            some = list(docs[start : start + self.max_batch])
            progress = self._progress(context, f"pictures {start + 1} to {start + len(some)} of {len(docs)}")
            pictures.extend(self._drawn(some, parameters, progress))
        return pictures

    def _drawn(self, docs: Sequence[Prompt], drawing: Drawing, progress: Progress) -> list[Picture]:
        seeds = [random.getrandbits(32) if drawing.seed is None else drawing.seed for _ in docs]
        how = drawing.model_dump(exclude_none=True, exclude={"seed", "format"})
        texts, negatives = [doc.text for doc in docs], [doc.negative for doc in docs]
        made = self.painter.draw(texts, negatives, seeds, how, progress)
        return [
            Picture(prompt=text, seed=seed, **_as(drawing.format, colours))
            for text, seed, colours in zip(texts, seeds, made, strict=True)
        ]

    def _progress(self, context: Context, what: str) -> Progress:
        def after_step(step: int, steps: int) -> None:
            self.logger.info("%s: step %d of %d", what, step, steps)
            if context.cancelled:
                raise ExecutorError(f"nobody waits for {what} any more; stopped after step {step} of {steps}")

        return after_step


def _as(kind: str, colours: np.ndarray) -> dict[str, Any]:
    if kind == "tensor":
        return {"tensor": colours}
    file = io.BytesIO()
    Image.fromarray(colours).save(file, "PNG")
    return {"bytes_": file.getvalue()}
