"""The model: tokens in, one vector a text out. One thread runs it; padding, passes and pooling are here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from .passes import split
from .recipe import Pooling

#: What is timed to tell the cost of a pass from that of its tokens: rows, tokens in each.
_SMALL, _LARGE = (1, 8), (16, 32)
_TRIES = 3


class Encoder:
    """An encoder of transformers.

    Args:
        model: gives `last_hidden_state` for `input_ids` and `attention_mask`.
        pooling: from its last layer to a vector.
        padding: the token that fills up.
        max_tokens: tokens in a pass at most, padding among them.
        pass_tokens: what a pass costs by itself, as so many tokens; None: `measure` will tell.
    """

    def __init__(
        self, model: Any, *, pooling: Pooling, padding: int, max_tokens: int, pass_tokens: float | None = None
    ) -> None:
        self._model, self._pooling, self._padding = model, pooling, padding
        self._max_tokens, self._pass_tokens = max_tokens, pass_tokens
        self._device = next(model.parameters()).device
        self.dimensions = int(model.config.get_text_config().hidden_size)
        self.passes = self.tokens = self.padded_tokens = self.texts = 0

    def measure(self) -> None:
        """Find out what a pass costs by itself: so much padding is worth a pass less."""
        if self._pass_tokens is not None:
            return
        self._timed(*_LARGE)  # warm
        small, large = (min(self._timed(*shape) for _ in range(_TRIES)) for shape in (_SMALL, _LARGE))
        few, many = (rows * width for rows, width in (_SMALL, _LARGE))
        token = max((large - small) / (many - few), 1e-9)
        self._pass_tokens = max(0.0, small / token - few)

    def vectors(self, texts: Sequence[Sequence[int]], go_on: Callable[[], bool] = lambda: True) -> np.ndarray | None:
        """One vector a row, in float32; None where, before a pass, `go_on` said that nobody waits any more."""
        found = np.zeros((len(texts), self.dimensions), np.float32)
        lengths = [len(ids) for ids in texts]
        for places in split(lengths, pass_tokens=self._pass_tokens or 0.0, max_tokens=self._max_tokens):
            if not go_on():
                return None
            found[places] = self._pass([texts[place] for place in places])
        self.texts += len(texts)
        return found

    def _pass(self, texts: Sequence[Sequence[int]]) -> np.ndarray:
        lengths = np.array([len(ids) for ids in texts])
        width = max(1, int(lengths.max()))
        ids = np.full((len(texts), width), self._padding, np.int64)
        mask = np.arange(width) < lengths[:, None]
        for row, given in zip(ids, texts, strict=True):
            row[: len(given)] = given
        self.passes += 1
        self.tokens += int(lengths.sum())
        self.padded_tokens += ids.size
        return self._run(torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64)))

    def _run(self, ids: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            mask = mask.to(self._device)
            hidden = self._model(input_ids=ids.to(self._device), attention_mask=mask).last_hidden_state
            found: np.ndarray = pooled(hidden.float(), mask, self._pooling).cpu().numpy()
        return found

    def _timed(self, rows: int, width: int) -> float:
        ids = torch.full((rows, width), self._padding)
        begun = time.perf_counter()
        self._run(ids, torch.ones_like(ids))
        return time.perf_counter() - begun


def pooled(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """One vector a text from its tokens' vectors (texts x tokens x dimensions) and its mask (texts x tokens)."""
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "lasttoken":
        last = (mask.sum(1) - 1).clamp(min=0)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    if pooling == "max":
        return hidden.masked_fill(weights == 0, -torch.inf).amax(1)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
