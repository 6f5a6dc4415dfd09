"""Forward passes of a causal language model for several requests at once, each with its own past.

Two ways: `BatchDecoder` runs one pass for all rows, for models whose attention is plain; `SeparateDecoder` runs one
pass a row with the cache that the model itself makes, for all others. `decoder_for` chooses by trying. No sampling,
no text, no threads here.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from transformers import DynamicCache

from .cache import SlotCache

logger = logging.getLogger(__name__)


class Decoder(Protocol):
    """Rows 0 to `len` - 1 hold a past each. A new one is the last; removing one moves others (see `remove`)."""

    rows: int
    model: Any

    def __len__(self) -> int: ...

    def add(self) -> int:
        """Open an empty row; answer its number."""
        ...

    def remove(self, row: int) -> None:
        """Close a row. The last row takes its number."""
        ...

    def swap(self, one: int, other: int) -> None:
        """Let two rows exchange their numbers."""
        ...

    def clear(self) -> None:
        """Close all rows, in whatever state an error has left them."""
        ...

    def forward(self, first: int, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        """Append tokens (at least one each) to the rows from `first` on; answer the logits after each row's last one.

        Shape (rows, vocabulary), float32, on the CPU.
        """
        ...


class BatchDecoder:
    """One pass for all rows. Fits models whose layers all attend to the whole past."""

    def __init__(self, model: Any, rows: int) -> None:
        self.rows = rows
        self.model, self._cache = model, SlotCache(rows)
        self._lengths: list[int] = []
        self._past = _name_of_the_past(model)
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters

    def __len__(self) -> int:
        return len(self._lengths)

    def add(self) -> int:
        self._lengths.append(0)
        return len(self._lengths) - 1

    def remove(self, row: int) -> None:
        length = self._lengths.pop()
        if row < len(self._lengths):
            self._cache.move(len(self._lengths), row, length)
            self._lengths[row] = length
        if not self._lengths:
            self.clear()

    def swap(self, one: int, other: int) -> None:
        lengths = self._lengths
        self._cache.swap(one, other, max(lengths[one], lengths[other]))
        lengths[one], lengths[other] = lengths[other], lengths[one]

    def clear(self) -> None:
        self._lengths.clear()
        self._cache.clear()

    def forward(self, first: int, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        counts = [len(row) for row in tokens]
        starts, width, device = self._lengths[first : first + len(tokens)], max(counts), self.model.device
        like = self.model.get_input_embeddings().weight
        with torch.inference_mode():
            positions, mask = self._cache.aim(first, starts, counts, like)
            padded = torch.tensor([[*row, *[row[-1]] * (width - len(row))] for row in tokens], device=device)
            # Where each row's last token stands; rows often share the place.
            ends = sorted({count - 1 for count in counts})
            keep = {"logits_to_keep": torch.tensor(ends, device=device)} if self._keeps_logits else {}
            logits = self.model(
                input_ids=padded,
                attention_mask=mask,
                position_ids=positions,
                use_cache=True,
                **{self._past: self._cache.past_key_values},
                **keep,
            ).logits
            if not self._keeps_logits:
                logits = logits[:, ends]
            places = torch.tensor([ends.index(count - 1) for count in counts], device=device)
            last: torch.Tensor = logits[torch.arange(len(tokens), device=device), places].float().cpu()
        for row, count in enumerate(counts, first):
            self._lengths[row] += count
        return last


class SeparateDecoder:
    """One pass a row, with the cache that the model makes for itself: right for every causal model, but no faster for
    many rows than for one after the other.
    """

    def __init__(self, model: Any, rows: int) -> None:
        self.rows = rows
        self.model = model
        self._past = _name_of_the_past(model)
        self._caches: list[Any] = []

    def __len__(self) -> int:
        return len(self._caches)

    def add(self) -> int:
        self._caches.append(DynamicCache(config=self.model.config))
        return len(self._caches) - 1

    def remove(self, row: int) -> None:
        self._caches[row] = self._caches[-1]
        self._caches.pop()

    def swap(self, one: int, other: int) -> None:
        self._caches[one], self._caches[other] = self._caches[other], self._caches[one]

    def clear(self) -> None:
        self._caches.clear()

    def forward(self, first: int, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        with torch.inference_mode():
            rows = [
                self.model(
                    input_ids=torch.tensor([list(row)], device=self.model.device),
                    use_cache=True,
                    **{self._past: self._caches[first + i]},
                ).logits[0, -1]
                for i, row in enumerate(tokens)
            ]
            return torch.stack(rows).float().cpu()


def decoder_for(model: Any, rows: int, columns: int) -> Decoder:
    """The decoder that fits: a `BatchDecoder` if it agrees with a `SeparateDecoder` on a few tokens.

    `columns` is the longest past a row may have: attention over a sliding window as long as that is plain attention.
    The comparison warms the model up as well.
    """
    separate = SeparateDecoder(model, rows)
    expected = _probe(separate)
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    if window is not None and window < columns and getattr(config, "use_sliding_window", True):
        logger.info("%s attends to a window of %s tokens: requests run one at a time", type(model).__name__, window)
        return separate
    batch = BatchDecoder(model, rows)
    try:
        found = _probe(batch)
    except Exception as error:  # whatever a model raises that does not know this cache or this mask
        logger.info("%s cannot run several requests in one pass (%s)", type(model).__name__, error)
        return separate
    tolerance = 1e-3 if model.dtype == torch.float32 else 5e-2
    if not (found - expected).abs().max() <= tolerance * expected.abs().max():  # a NaN is no agreement
        logger.info("%s answers otherwise when requests share a pass: they run one at a time", type(model).__name__)
        return separate
    return batch


def _name_of_the_past(model: Any) -> str:
    """The argument by which a model takes its past: "cache", in transformers before 5.24 "past_key_values"."""
    forwards = [vars(kind)["forward"] for kind in type(model).__mro__ if "forward" in vars(kind)]
    return (
        "cache" if any("cache" in inspect.signature(forward).parameters for forward in forwards) else "past_key_values"
    )


def _probe(decoder: Decoder) -> torch.Tensor:
    """The logits after two short rows of unequal length and one more token; leaves no row behind."""
    rows = min(2, decoder.rows)
    for _ in range(rows):
        decoder.add()
    decoder.forward(0, [[1, 2, 3], [3, 2, 1, 0, 2]][:rows])
    logits = decoder.forward(0, [[2], [1]][:rows])
    for row in reversed(range(rows)):
        decoder.remove(row)
    return logits
