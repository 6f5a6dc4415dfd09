"""Who is to blame for a batch that failed, and what its members are told. Pure functions of an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jina_asgi.errors import BatchFailed, ExecutorError, InvalidDocs, JinaASGIError, ReplicaDied, cut_short
from jina_asgi.errors._raised import again
from jina_asgi.errors._shown import kind_of, said
from jina_asgi.runners.batching._items import Fault

_PLAIN = (list, tuple)


def fault_of(error: BaseException, *, several: bool) -> Fault:
    """What a failure says about running its items again. `several`: they came with more than one request."""
    if _out_of_memory(error):
        return Fault.MEMORY
    if isinstance(error, ReplicaDied):
        return Fault.DEATH
    if isinstance(error, InvalidDocs) and several and not _everybodys(error):
        return Fault.REFUSED
    if not isinstance(error, Exception) or not several or _everybodys(error):
        return Fault.FINAL  # of one request, one poisoned value fails all the same
    return Fault.POISON


def told(error: BaseException, *, several: bool, began: bool, places: Sequence[int] = ()) -> BaseException:
    """What one request is told of a batch that failed with it: its own error, unless the blame may be another's.

    `began`: its values had been taken to be run. `places` are those that the batch's items have in the request, where it
    has no others.
    """
    if not isinstance(error, Exception):
        stopped = cut_short("serving ended", begun=began)
        stopped.__cause__ = error
        return stopped
    if not several:
        return _in_request(error, places)
    if _everybodys(error):
        return again(error)  # each raises one of its own
    facts = dict(error.facts()) if isinstance(error, ExecutorError) else {"raised": kind_of(error)}
    failed = BatchFailed(f"a batch of several calls failed: {said(error)}", **facts)
    failed.__cause__ = error
    return failed


def _in_request(error: Exception, places: Sequence[int]) -> Exception:
    """An error of a batch's documents, each with its place in the request."""
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


def checked(answers: Any, count: int, name: str) -> Sequence[Any]:
    """The answers of whatever goes by `name`, which are an ordered collection, as many as there were values.

    Raises:
        ExecutorError: they are not; it names what was expected and what came.
    """
    ordered = hasattr(answers, "__len__") and hasattr(answers, "__getitem__")
    if not ordered or isinstance(answers, Mapping | str | bytes):
        got = kind_of(answers)
    elif len(answers) != count:
        got = f"{len(answers)}"
    elif type(answers) in _PLAIN:
        return answers  # type: ignore[no-any-return]  # a list or a tuple
    else:
        return [answers[index] for index in range(count)]  # looked at here, where it may fail
    raise ExecutorError(f"{name}: expected {count} answers for a batch of {count}, one each, got {got}", endpoint=name)


def _everybodys(error: Exception) -> bool:
    """Whether every member would have met this error alone: a promise broken, parameters unfit, nobody there to run."""
    if isinstance(error, ExecutorError):
        return error.retriable or bool(error.endpoint and not error.raised)  # one that a user made names neither
    if isinstance(error, InvalidDocs):
        return [*(error.errors[0].get("loc", ()) if error.errors else ())][:1] == ["parameters"]
    return isinstance(error, JinaASGIError) and (error.retriable or error.status == 504)


def _out_of_memory(error: BaseException) -> bool:
    """Python's MemoryError, numpy's, torch's OutOfMemoryError; and RuntimeErrors of those who have no name for it."""
    raised = error.raised if isinstance(error, ExecutorError) else kind_of(error)
    return raised.endswith("MemoryError") or (
        raised.endswith("RuntimeError") and "out of memory" in said(error).lower()
    )
