"""From a model's vectors to those that a request asked for. Arrays in, arrays out."""

from __future__ import annotations

import numpy as np

from .documents import Precision


def finished(
    vectors: np.ndarray, *, dimensions: int | None, normalize: bool, precision: Precision
) -> tuple[np.ndarray, np.ndarray | None]:
    """The vectors as asked for, and for int8 what each is to be multiplied by.

    Args:
        vectors: float32, one a row.
        dimensions: only the first so many of each.
        normalize: of length 1, after that.
        precision: the type of their numbers. int8 spreads the greatest of a vector to 127.
    """
    vectors = vectors[:, :dimensions]
    if normalize:
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    if precision == "int8":
        scales = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), np.finfo(np.float32).tiny) / 127
        return np.rint(vectors / scales).astype(np.int8), scales[:, 0]
    return np.ascontiguousarray(vectors, np.float32 if precision == "float32" else np.float16), None
