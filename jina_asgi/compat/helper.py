"""The names of `jina.helper`, `jina.logging.profile` and `jina_commons`: batches, ports, identifiers, times."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Self

import numpy as np

from jina_asgi.settings.jina_options import JinaLogger

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


def random_port() -> int:
    """A port that is free at the moment; port=0, or none, lets a server choose one without a race."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def random_uuid(use_uuid1: bool = False) -> uuid.UUID:
    """A random UUID; one made from the clock with `use_uuid1`."""
    return uuid.uuid1() if use_uuid1 else uuid.uuid4()


def random_identity(use_uuid1: bool = False) -> str:
    """A random identifier of 32 hexadecimal digits, as documents and requests have."""
    return random_uuid(use_uuid1).hex


class TimeContext:
    """Times its block, and prints it: `with TimeContext("indexing", logger): ...`.

    Attributes:
        duration: seconds, once the block has ended.
        readable_duration: the same, as text.
    """

    def __init__(self, task_name: str, logger: Any = None) -> None:
        self.task_name, self._logger = task_name, logger
        self.duration, self.readable_duration = 0.0, ""

    def now(self) -> float:
        """Seconds since the block began."""
        return time.perf_counter() - self.start

    def __enter__(self) -> Self:
        self.start = time.perf_counter()
        self._print(f"{self.task_name} ...")
        return self

    def __exit__(self, *_: object) -> None:
        self.duration = self.now()
        self.readable_duration = readable(self.duration)
        self._print(f"{self.task_name} takes {self.readable_duration} ({self.duration:.2f}s)")

    def _print(self, text: str) -> None:
        if self._logger is None:
            print(text, flush=True)  # noqa: T201  # as in Jina
        else:
            self._logger.info(text)


def readable(seconds: float) -> str:
    """Seconds in words: "1 hour and 2 seconds"."""
    left, parts = int(seconds), []
    for name, length in (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1)):
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count} {name}{'s' if count > 1 else ''}")
    return " and ".join(parts) or "0 seconds"
