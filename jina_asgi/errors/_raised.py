"""What a user's code raised, made sound where it left that code: the rest may then read it, copy it, send it and log it. Pure.

An exception's `__init__`, `__str__`, `__class__`, `__reduce__` and attributes are code of the user's, too.
"""

from __future__ import annotations

import math
import re
import traceback
from collections.abc import Mapping, Sequence
from types import GetSetDescriptorType
from typing import Any, NoReturn, TypeVar

import orjson

from jina_asgi import errors
from jina_asgi.errors import ExecutorError, ExecutorHTTPError, JinaASGIError
from jina_asgi.errors._error_lists import is_summary, shortened
from jina_asgi.errors._shown import LONGEST, bounded, is_cheap, kind_of, said, shown

ErrorT = TypeVar("ErrorT", bound=BaseException)

_OURS = frozenset(
    found for found in vars(errors).values() if isinstance(found, type) and issubclass(found, JinaASGIError)
)
#: What an instance of each of ours has, with values of the right types.
_SET: Mapping[type[JinaASGIError], Mapping[str, Any]] = {kind: {"node": "", **vars(kind(""))} for kind in _OURS}
#: What is read of an error beside that: a class of the user's may have other values there, and no code.
_READ = frozenset({"status", "grpc_code", "retriable", "public", "facts", "add_note", "with_traceback", "args"})
#: Where a class has one of these, looking at an instance runs code.
_HOOKS = frozenset({"__getattribute__", "__class__", "__dict__", "__cause__", "__context__", "__traceback__"})
_MORE_HOOKS = frozenset({"__getattr__", "__setattr__", "__delattr__", "__new__", "__notes__"})
_CODES = frozenset(
    "CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED UNAUTHENTICATED "
    "RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS".split()
)
_MOST_ENTRIES, _MOST_LOOKED_AT, _LONGEST_ENTRIES = 10, 50, 4000
_MOST_CAUSES, _LONGEST_TRACE = 10, 50_000
_NOT_MODIFIED = 304
_MOST_HEADERS = 20
_NAME, _VALUE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}"), re.compile(r"[\t\x20-\x7e\xa0-\xff]{0,200}")
_OUR_OWN = frozenset({"content-type", "content-length", "content-encoding", "transfer-encoding", "connection"})
_mro_of = type.__dict__["__mro__"].__get__  # a metaclass may have another idea of it
_slots = BaseException.__dict__
_args_of, _cause_of, _context_of = _slots["args"].__get__, _slots["__cause__"].__get__, _slots["__context__"].__get__
_trace_of, _suppressed = _slots["__traceback__"].__get__, _slots["__suppress_context__"].__get__


def is_ours(error: BaseException) -> bool:
    """Whether an error is one of this library's, or of a class derived from one; its `__class__` is not asked."""
    return _kind(error) is not None


def is_a(error: BaseException, *kinds: type[BaseException]) -> bool:
    """As `isinstance`, which would ask for the error's `__class__`."""
    return issubclass(type(error), kinds)


def described(error: BaseException) -> str:
    """The class of an error and what it says."""
    return f"{kind_of(error)}: {said(error)}"


def public_class(error: BaseException) -> str:
    """The class of this library that an error is of, which a client knows: of one of a user's own the nearest."""
    found = (
        found
        for found in _mro_of(type(error))
        if found.__module__.partition(".")[0] == errors.__name__.partition(".")[0]
    )
    return next((cls.__name__ for cls in found), kind_of(error))


def class_of(error: BaseException) -> str:
    """The class of an error; where it tells of what an Executor raised elsewhere, of that."""
    raised = sound(error)
    return (isinstance(raised, ExecutorError) and raised.raised) or kind_of(error)


def sound(error: BaseException) -> BaseException:
    """An error that can be read: the attributes of one of ours are what its class says, and short.

    One of a user's own class is completed where its `__init__` did not call ours, and stands for itself. Where reading it
    would run code of its own another stands in its place: of the nearest class of ours, or an ExecutorError.
    """
    kind = _kind(error)
    if kind is ExecutorHTTPError:
        return http_error(error)
    if kind is None:
        if not _has_hooks(type(error), _HOOKS):
            return error
        made: JinaASGIError = ExecutorError(described(error), raised=kind_of(error))
    elif _may_be_read(type(error), kind):
        _complete(error, kind)
        return error
    else:
        made = kind(said(error))
    made.__cause__ = error
    return made


def http_error(error: Any) -> JinaASGIError:
    """What stands for an HTTPException of a user's: one of ours, which has a detail and headers that can be sent.

    A status that tells of no error, or is answered without a body, is the mistake of its Executor.
    """
    try:
        status, detail, headers = error.status_code, error.detail, error.headers
    except BaseException:  # noqa: BLE001  # whatever properties of its own raise
        status = detail = headers = None
    if type(status) is not int or not 300 <= status < 600 or status == _NOT_MODIFIED:
        made: JinaASGIError = ExecutorError(described(error), raised=kind_of(error))
    else:
        detail = _writable(detail)
        text = detail if type(detail) is str else shown(detail)
        made = ExecutorHTTPError(text, status=status, detail=detail, headers=_headers(headers))
    if type(error) is ExecutorHTTPError:
        made.node, made.__cause__ = error.node, _cause_of(error)
    else:
        made.__cause__ = error
    return made


def _writable(detail: Any) -> Any:
    """A detail as JSON has it: text, or any value that can be written and is short, else as text."""
    if issubclass(type(detail), str):
        return bounded(detail)
    try:
        raw = orjson.dumps(detail, option=orjson.OPT_PASSTHROUGH_SUBCLASS)
        return orjson.loads(raw) if len(raw) <= LONGEST else bounded(raw.decode())
    except (TypeError, ValueError, RecursionError):
        return shown(detail)


def _headers(given: Any) -> dict[str, str] | None:
    """Those of some headers that may be sent beside a JSON body, names in lower case."""
    if type(given) is not dict:
        return None
    found: dict[str, str] = {}
    for name, value in list(given.items())[:_MOST_HEADERS]:
        if type(name) is str and type(value) is str and _NAME.fullmatch(name) and _VALUE.fullmatch(value):
            found[name.lower()] = value
    return {name: value for name, value in found.items() if name not in _OUR_OWN} or None


def again(error: ErrorT) -> ErrorT:
    """Another error that says the same as a sound one, as each caller raises one of its own; made without code of the user's."""
    try:
        made = BaseException.__new__(type(error), *_args_of(error))
    except TypeError:  # a class whose instances C must make
        return error
    made.__dict__.update(error.__dict__)
    _slots["__cause__"].__set__(made, _cause_of(error))
    return made


def carried(error: BaseException) -> BaseException:
    """An error that a future may hold: StopIteration may not be, SystemExit would end the loop."""
    if issubclass(type(error), Exception) and not issubclass(type(error), StopIteration):
        return error
    held = RuntimeError(f"{kind_of(error)} raised by an Executor, its documents or a hook: {said(error)}")
    held.__cause__ = error
    return held


def leave(error: BaseException) -> NoReturn:
    """Raise what a user's code raised as others may have it: sound, and nothing that would end a loop."""
    held = carried(sound(error))
    try:
        raise held
    finally:
        del held, error  # a frame of a traceback that names its error is a cycle


class Unreadable(Exception):
    """Stands in the log for an error of a user's that cannot be written there: it says what could be read of it."""


def loggable(error: BaseException) -> BaseException:
    """An error as the log may have it: itself; or, where its traceback cannot be written or is long, what can be."""
    chain = _chain(error)
    if not any(_has_hooks(type(one), _HOOKS | _MORE_HOOKS) for one in chain):
        try:
            are_short = all(
                is_cheap(one) and len(str(one)) <= _LONGEST_TRACE and _has_short_notes(one) for one in chain
            )
            if are_short and sum(map(len, traceback.format_exception(error))) <= _LONGEST_TRACE:
                return error
        except BaseException:  # noqa: BLE001, S110  # whatever its own `str` raises: written as below
            pass
    written: BaseException | None = None
    for one in reversed(chain):
        stands = Unreadable(described(one)).with_traceback(_trace_of(one))
        stands.__cause__, written = written, stands
    assert written is not None
    return written


def raised_from(error: BaseException, kind: type[ErrorT]) -> ErrorT | None:
    """The first of this class among an error and those that it came from; None where there is none."""
    return next((one for one in _chain(error) if is_a(one, kind)), None)  # type: ignore[return-value]  # as `is_a` says


def _has_short_notes(error: BaseException) -> bool:
    notes = getattr(error, "__notes__", ())
    return sum(len(note) for note in notes if type(note) is str) <= _LONGEST_TRACE


def let_go(error: BaseException) -> None:
    """Clear the frames of an error's traceback, which hold what the code that failed had made: a model, maybe."""
    for one in _chain(error):
        traceback.clear_frames(_trace_of(one))


def _chain(error: BaseException) -> list[BaseException]:
    """An error and those that it came from, as a traceback shows them."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and len(chain) < _MOST_CAUSES:
        chain.append(link)
        link = _cause_of(link) or (None if _suppressed(link) else _context_of(link))
    return chain


def _kind(error: BaseException) -> type[JinaASGIError] | None:
    return next((found for found in _mro_of(type(error)) if found in _OURS), None)


def _own(cls: type) -> list[type]:
    """Those of a class and its bases that are neither ours nor Python's."""
    return [found for found in _mro_of(cls) if found not in _OURS and found.__flags__ & _HEAP]


_HEAP = 1 << 9  # CPython's flag of a class that was written in Python, or in C as if it were


def _has_hooks(cls: type, hooks: frozenset[str]) -> bool:
    return any(
        type(vars(found)[name]) is not GetSetDescriptorType  # Python's own, where a class brings a `__dict__`
        for found in _own(cls)
        for name in hooks & vars(found).keys()
    )


def _may_be_read(cls: type, kind: type[JinaASGIError]) -> bool:
    """Whether reading an instance of a class derived from `kind` runs no code of the user's."""
    if type(cls) is not type or cls.__new__ is not kind.__new__ or _has_hooks(cls, _HOOKS | _MORE_HOOKS):
        return False
    read = _READ | _SET[kind].keys()
    values = [(name, vars(found)[name]) for found in _own(cls) for name in read & vars(found).keys()]
    return all(_may_be(name, value, kind) for name, value in values)


def _may_be(name: str, value: Any, kind: type[JinaASGIError]) -> bool:
    """Whether an attribute that is read may have this value."""
    if name == "status":
        return type(value) is int and 400 <= value < 600
    if name == "grpc_code":
        return type(value) is str and value in _CODES
    if name == "retriable":
        return type(value) is bool
    if name == "public":
        return value is None or (type(value) is str and len(value) < 1000)
    return name in _SET[kind] and type(value) is type(_SET[kind][name])


def _complete(error: Any, kind: type[JinaASGIError]) -> None:
    own: dict[str, Any] = error.__dict__
    for name in _READ & own.keys():
        if not _may_be(name, own[name], kind):
            del own[name]
    for name, default in _SET[kind].items():
        value = getattr(error, name, None)
        if value is None and name == "message":
            value = said(error)
        own[name] = _right(value, default)
    if type(error) is kind:
        error.args = (error.message,)


def _right(value: Any, default: Any) -> Any:
    """A value of the type of `default`, itself where it has that and is short."""
    if type(default) is str:
        return default if value is None else bounded(value) if type(value) is str else said(value)
    if type(default) is list:
        return _entries(value) if type(value) is list else []
    if type(default) is float:
        return value if type(value) in (float, int) and not math.isnan(value) else default
    return value if type(value) is type(default) else default


def _entries(entries: list[Any]) -> list[Any]:
    """The list of what is wrong with documents; itself where it is short and can be written.

    Else its first entries, and one behind them that says how many there are.
    """
    try:
        if len(entries) <= _MOST_LOOKED_AT and len(orjson.dumps(entries, default=shown)) <= _LONGEST_ENTRIES:
            return entries
    except (TypeError, ValueError, RecursionError):
        pass
    listed = shortened([entry for entry in entries if type(entry) is dict], most=_MOST_ENTRIES)
    return [entry if is_summary(entry) else _entry(entry) for entry in listed]


def _entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    place: Any = entry.get("loc")
    parts: Sequence[Any] = place[:20] if type(place) in (list, tuple) else ()
    return {
        "type": bounded(said(entry.get("type", "")), 100),
        "loc": [part if type(part) is int else bounded(said(part), 100) for part in parts],
        "msg": bounded(said(entry.get("msg", "")), 200),
        "input": bounded(shown(entry.get("input")), 100),
    }
