"""Classifies a batch failure and picks each caller's error. Pure functions of an error."""

from __future__ import annotations

from collections.abc import Sequence

from jina_asgi.errors import BatchFailed, ExecutorError, InvalidDocs, JinaASGIError, ReplicaDied, interrupted_error
from jina_asgi.errors._raised import copy_error
from jina_asgi.errors._shown import class_name, safe_str
from jina_asgi.runners.batching._items import FailureKind


def classify_failure(error: BaseException, *, several: bool) -> FailureKind:
    """Classify a failure by whether, and how, its items may run again. `several`: the batch has several submissions."""
    if _out_of_memory(error):
        return FailureKind.MEMORY
    if isinstance(error, ReplicaDied):
        return FailureKind.DEATH
    if isinstance(error, InvalidDocs) and several and not _is_batch_wide(error):
        return FailureKind.REFUSED
    if not isinstance(error, Exception) or not several or _is_batch_wide(error):
        return FailureKind.FINAL  # of a single submission, one bad value fails all of it
    return FailureKind.POISON


def error_for(error: BaseException, *, several: bool, began: bool, places: Sequence[int] = ()) -> BaseException:
    """Return one submission's error of a failed batch: the batch's own, unless another submission may have caused it.

    `began`: its values had begun to run. `places` are the indexes of the batch's items in the submission, where the batch
    has no other's.
    """
    if not isinstance(error, Exception):
        stopped = interrupted_error("serving ended", begun=began)
        stopped.__cause__ = error
        return stopped
    if not several:
        return _in_request(error, places)
    if _is_batch_wide(error):
        return copy_error(error)  # each caller raises its own instance
    facts = dict(error.facts()) if isinstance(error, ExecutorError) else {"raised": class_name(error)}
    failed = BatchFailed(f"a batch of several calls failed: {safe_str(error)}", **facts)
    failed.__cause__ = error
    return failed


def _in_request(error: Exception, places: Sequence[int]) -> Exception:
    """Return a validation error with the documents' indexes in the submission instead of those in the batch."""
    if not isinstance(error, InvalidDocs) or not error.errors or list(places) == list(range(len(places))):
        return error
    entries = []
    for entry in error.errors:
        first, *rest = entry.get("loc") or [None]
        known = isinstance(first, int) and 0 <= first < len(places)
        entries.append({**entry, "loc": [places[first], *rest]} if known else entry)
    placed = InvalidDocs(error.message, entries)
    placed.__cause__ = error
    return placed


def _is_batch_wide(error: Exception) -> bool:
    """Whether each member alone would have failed alike: a wrong return value, wrong parameters, no replica."""
    if isinstance(error, ExecutorError):
        return error.retriable or bool(error.endpoint and not error.raised)  # an ExecutorError of user code has neither
    if isinstance(error, InvalidDocs):
        return [*(error.errors[0].get("loc", ()) if error.errors else ())][:1] == ["parameters"]
    return isinstance(error, JinaASGIError) and (error.retriable or error.status == 504)


def _out_of_memory(error: BaseException) -> bool:
    """Whether an error says out of memory: MemoryError, torch's OutOfMemoryError, or a RuntimeError with those words."""
    raised = error.raised if isinstance(error, ExecutorError) else class_name(error)
    return raised.endswith("MemoryError") or (
        raised.endswith("RuntimeError") and "out of memory" in safe_str(error).lower()
    )
