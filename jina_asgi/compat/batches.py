"""The functions of `jina.helper` and `jina_commons` for data in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from jina_asgi.settings.jina_logger import JinaLogger

#: A step of a traversal path, and the documents that it leads to.
_STEPS = {"c": "chunks", "m": "matches"}
#: Fields that count as missing when they are empty.
_TEXTS = ("text", "uri", "buffer", "url", "blob")


def batch_iterator(data: Any, batch_size: int, axis: int = 0) -> Iterator[Any]:
    """Yields data in batches: an array along an axis, a sequence in slices, any iterable in tuples.

    Raises:
        TypeError: the data cannot be iterated.
    """
    if not batch_size or batch_size <= 0:
        yield data
    elif isinstance(data, np.ndarray):
        before = (slice(None),) * (axis % data.ndim)
        for start in range(0, data.shape[axis], batch_size):
            yield data[(*before, slice(start, start + batch_size))]
    elif isinstance(data, Sequence):
        for start in range(0, len(data), batch_size):
            yield data[start : start + batch_size]
    elif isinstance(data, Iterable):
        items = iter(data)
        while batch := tuple(islice(items, batch_size)):
            yield batch
    else:
        raise TypeError(f"expected something to go through in batches, got {type(data).__name__}")


def get_docs_batch_generator(
    docs: Any = None,
    traversal_path: Sequence[str] | None = None,
    batch_size: int = 32,
    needs_attr: str | None = None,
) -> Iterator[Any]:
    """Yields documents in batches.

    Args:
        docs: the documents; None: no documents.
        traversal_path: the documents to visit: "r" the roots themselves, "c" their chunks, "m" their matches, "cc" etc.
        batch_size: the most documents in a batch.
        needs_attr: visit only documents that have this attribute.

    Raises:
        ValueError: an invalid path or size.
    """
    if batch_size <= 0:
        raise ValueError(f"batch_size={batch_size}: expected a number above zero")
    found = [doc for path in traversal_path or ["r"] for doc in _below(docs or (), path)]
    chosen = [doc for doc in found if doc is not None and (needs_attr is None or _has(doc, needs_attr))]
    whole = type(docs)(chosen) if isinstance(docs, list) else chosen
    return batch_iterator(whole, batch_size)


def _below(docs: Iterable[Any], path: str) -> list[Any]:
    found = list(docs)
    for step in path.removeprefix("r"):
        if step not in _STEPS:
            raise ValueError(f"traversal path {path!r}: expected 'r', or steps of 'c' (chunks) and 'm' (matches)")
        found = [inner for doc in found for inner in getattr(doc, _STEPS[step], None) or ()]
    return found


def _has(doc: Any, attribute: str) -> bool:
    value = getattr(doc, attribute, None)
    return bool(value) if attribute in _TEXTS else value is not None


def get_logger(self: Any) -> JinaLogger:
    """The logger of Executors."""
    return JinaLogger(getattr(self.metas, "name", type(self).__name__))
