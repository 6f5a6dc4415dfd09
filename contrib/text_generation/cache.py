"""The keys and values of several requests at once, in rows of one buffer.

Row i holds one request; its token at position p lies at column p, so rows of any length stand side by side without
padding on the left, and a step copies nothing: the model is handed a view of the first columns. What lies behind a
row's length is never attended to (the mask says so) and is overwritten by its next token. No scheduling here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from transformers import Cache

#: Columns of a new buffer; it doubles when a row outgrows it.
_FIRST_COLUMNS = 128


class Aim(NamedTuple):
    """What the model needs to know of a pass.

    `positions` is (rows, width), within each row's own tokens; `mask` is (rows, 1, width, columns), to be added to the
    scores: 0 where a token attends, the lowest number elsewhere.
    """

    positions: torch.Tensor
    mask: torch.Tensor


class SlotCache:
    """`rows` rows. Before each forward pass `aim` says which rows it runs and at which column each goes on."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.columns = _FIRST_COLUMNS
        self._layers: list[_Layer] = []
        new_layer: Any = self._new_layer  # called for each layer, as a class would be
        #: What the model is given as `past_key_values`.
        self.past_key_values = Cache(layer_class_to_replicate=new_layer)
        self.first, self.starts, self.width, self.used = 0, [0], 1, 1
        self.at_rows = self.at_columns = torch.zeros(1, 1, dtype=torch.long)

    def aim(self, first: int, starts: list[int], counts: list[int], like: torch.Tensor) -> Aim:
        """The next pass appends `counts[i]` tokens from column `starts[i]` on, i counted from row `first`.

        All rows are as wide as the widest; what stands behind a shorter row's tokens is written and never seen. The
        mask has the device and the dtype of `like`.
        """
        width, device = max(counts), like.device
        #: The columns that the pass looks at.
        self.used = max(starts) + width
        self._grow(self.used)
        self.first, self.starts, self.width = first, starts, width
        columns = torch.tensor(starts, device=device)[:, None] + torch.arange(width, device=device)
        self.at_rows = torch.arange(first, first + len(starts), device=device)[:, None]
        self.at_columns = columns
        ends = torch.tensor([start + count - 1 for start, count in zip(starts, counts, strict=True)], device=device)
        unseen = torch.arange(self.used, device=device) > columns[:, None, :, None]
        mask = torch.zeros(unseen.shape, dtype=like.dtype, device=device)
        mask.masked_fill_(unseen, torch.finfo(like.dtype).min)
        return Aim(torch.minimum(columns, ends[:, None]), mask)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` columns of one row over another."""
        with torch.inference_mode():
            for buffer in self._buffers():
                buffer[target, :, :length] = buffer[source, :, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        """Exchange two rows, of which the longer has `length` columns."""
        with torch.inference_mode():
            for buffer in self._buffers():
                buffer[[one, other], :, :length] = buffer[[other, one], :, :length]

    def clear(self) -> None:
        """Give the memory back; no row may be in use."""
        self.columns = _FIRST_COLUMNS
        for layer in self._layers:
            layer.buffers = ()

    def _buffers(self) -> Iterator[torch.Tensor]:
        return (buffer for layer in self._layers for buffer in layer.buffers)

    def _grow(self, columns: int) -> None:
        if columns <= self.columns:
            return
        old = self.columns
        while self.columns < columns:
            self.columns *= 2
        for layer in self._layers:
            layer.buffers = tuple(_widened(buffer, old, self.columns) for buffer in layer.buffers)

    def _new_layer(self) -> _Layer:
        layer = _Layer(self)
        self._layers.append(layer)
        return layer


class _Layer:
    """One layer of the cache, as transformers' `CacheLayerMixin` has it, in so far as a decoder calls it."""

    is_sliding = False
    is_compileable = False
    supports_early_init = False

    def __init__(self, cache: SlotCache) -> None:
        self._cache = cache
        #: Keys and values, (rows, heads, columns, size of a head); none before the first pass.
        self.buffers: tuple[torch.Tensor, ...] = ()

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, ...]:
        """Store what the pass computed, (rows, heads, width, size); answer the rows from column 0 on."""
        cache = self._cache
        if not self.buffers:
            # Zeros, not empty memory: a NaN behind the mask would still spread.
            self.buffers = tuple(
                new.new_zeros(cache.rows, new.shape[1], cache.columns, new.shape[3]) for new in (keys, values)
            )
        rows, start = slice(cache.first, cache.first + len(cache.starts)), cache.starts[0]
        for buffer, new in zip(self.buffers, (keys, values), strict=True):
            if all(other == start for other in cache.starts):
                buffer[rows, :, start : start + cache.width] = new
            else:
                buffer[cache.at_rows, :, cache.at_columns] = new.transpose(1, 2)
        return tuple(buffer[rows, :, : cache.used] for buffer in self.buffers)

    def get_seq_length(self) -> int:
        return max(self._cache.starts)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return max(self._cache.starts) + query_length, 0

    def get_max_length(self) -> int:
        return -1


def _widened(buffer: torch.Tensor, old: int, new: int) -> torch.Tensor:
    wide = buffer.new_zeros(*buffer.shape[:2], new, buffer.shape[3])
    wide[:, :, :old] = buffer
    return wide
