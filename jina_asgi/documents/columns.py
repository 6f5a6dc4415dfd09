"""Columns: the values of each field of several documents, tensors of one dtype and shape in one array."""

from __future__ import annotations

from typing import Any

import numpy as np

from jina_asgi.documents import tensors
from jina_asgi.errors import InvalidDocs


def column_length(columns: dict[str, Any]) -> int:
    """The number of docs in columns.

    Raises:
        InvalidDocs: a column is neither a list nor a tensor, or they differ in length.
    """
    lengths = {len(c) if type(c) is list or (isinstance(c, np.ndarray) and c.ndim) else -1 for c in columns.values()}
    if -1 in lengths:
        raise InvalidDocs("expected a list or a tensor in each column")
    if len(lengths) > 1:
        raise InvalidDocs("the columns differ in length: expected one entry a doc in each")
    return lengths.pop() if lengths else 0


def stacked(values: list[Any]) -> Any:
    """Stacks tensors of one dtype and shape into one array; returns other values unchanged."""
    first = values[0]
    if not isinstance(first, np.ndarray) or first.ndim in (0, tensors.MAX_AXES):
        return values
    dtype, shape = first.dtype, first.shape
    if any(not isinstance(a, np.ndarray) or a.dtype is not dtype or a.shape != shape for a in values):
        return values
    return np.frombuffer(b"".join([a.tobytes() for a in values]), dtype).reshape(len(values), *shape)
