"""Sanitizes exceptions of user code, so that they can be read, copied, sent and logged safely. Pure.

An exception's `__init__`, `__str__`, `__class__`, `__reduce__` and attributes are user code, too.
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
from jina_asgi.errors._shown import LONGEST, class_name, is_cheap, is_summary, safe_repr, safe_str, shortened, truncated

ErrorT = TypeVar("ErrorT", bound=BaseException)

_OURS = frozenset(
    found for found in vars(errors).values() if isinstance(found, type) and issubclass(found, JinaASGIError)
)
#: The attributes of an instance of each of our classes, with defaults of the right types.
_SET: Mapping[type[JinaASGIError], Mapping[str, Any]] = {kind: {"node": "", **vars(kind(""))} for kind in _OURS}
#: Other attributes that are read of an error: a user's class may override them with values, not with code.
_READ = frozenset({"status", "grpc_code", "retriable", "public", "facts", "add_note", "with_traceback", "args"})
#: Where a class defines one of these, reading an instance runs user code.
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
    """Whether an error is an instance of one of our classes; does not read its `__class__`."""
    return _our_class(error) is not None


def is_a(error: BaseException, *kinds: type[BaseException]) -> bool:
    """As `isinstance`, without reading the error's `__class__`."""
    return issubclass(type(error), kinds)


def error_text(error: BaseException) -> str:
    """Return "Class: message" of an error."""
    return f"{class_name(error)}: {safe_str(error)}"


def public_class(error: BaseException) -> str:
    """Return the name of the nearest class of this library in the error's bases, which clients know."""
    found = (
        found
        for found in _mro_of(type(error))
        if found.__module__.partition(".")[0] == errors.__name__.partition(".")[0]
    )
    return next((cls.__name__ for cls in found), class_name(error))


def raised_class(error: BaseException) -> str:
    """Return an error's class name; of an ExecutorError that of what the Executor raised."""
    raised = sanitized(error)
    return (isinstance(raised, ExecutorError) and raised.raised) or class_name(error)


def sanitized(error: BaseException) -> BaseException:
    """Return an error that is safe to read: attributes of our classes have valid types and are short.

    An instance of a user's subclass is completed where its `__init__` did not call ours. Where reading it would run user
    code it is replaced: by one of our nearest class, or by an ExecutorError.
    """
    kind = _our_class(error)
    if kind is ExecutorHTTPError:
        return http_error(error)
    if kind is None:
        if not _has_hooks(type(error), _HOOKS):
            return error
        made: JinaASGIError = ExecutorError(error_text(error), raised=class_name(error))
    elif _is_safe_to_read(type(error), kind):
        _complete(error, kind)
        return error
    else:
        made = kind(safe_str(error))
    made.__cause__ = error
    return made


def http_error(error: Any) -> JinaASGIError:
    """Convert a user's HTTPException to an ExecutorHTTPError whose detail and headers can be sent.

    A status below 300, above 599 or 304 is the Executor's mistake and becomes an ExecutorError.
    """
    try:
        status, detail, headers = error.status_code, error.detail, error.headers
    except BaseException:  # noqa: BLE001  # a user's properties may raise anything
        status = detail = headers = None
    if type(status) is not int or not 300 <= status < 600 or status == _NOT_MODIFIED:
        made: JinaASGIError = ExecutorError(error_text(error), raised=class_name(error))
    else:
        detail = _writable(detail)
        text = detail if type(detail) is str else safe_repr(detail)
        made = ExecutorHTTPError(text, status=status, detail=detail, headers=_headers(headers))
    if type(error) is ExecutorHTTPError:
        made.node, made.__cause__ = error.node, _cause_of(error)
    else:
        made.__cause__ = error
    return made


def _writable(detail: Any) -> Any:
    """Return a detail as a JSON value if it is short and serializable, else as text."""
    if issubclass(type(detail), str):
        return truncated(detail)
    try:
        raw = orjson.dumps(detail, option=orjson.OPT_PASSTHROUGH_SUBCLASS)
        return orjson.loads(raw) if len(raw) <= LONGEST else truncated(raw.decode())
    except (TypeError, ValueError, RecursionError):
        return safe_repr(detail)


def _headers(given: Any) -> dict[str, str] | None:
    """Return the headers that may be sent with a JSON body, with names in lower case."""
    if type(given) is not dict:
        return None
    found: dict[str, str] = {}
    for name, value in list(given.items())[:_MOST_HEADERS]:
        if type(name) is str and type(value) is str and _NAME.fullmatch(name) and _VALUE.fullmatch(value):
            found[name.lower()] = value
    return {name: value for name, value in found.items() if name not in _OUR_OWN} or None


def copy_error(error: ErrorT) -> ErrorT:
    """Copy a sanitized error without running user code, as each caller must raise an instance of its own."""
    try:
        made = BaseException.__new__(type(error), *_args_of(error))
    except TypeError:  # a class with a constructor in C
        return error
    made.__dict__.update(error.__dict__)
    _slots["__cause__"].__set__(made, _cause_of(error))
    return made


def future_safe(error: BaseException) -> BaseException:
    """Return an error that a future can hold: StopIteration and SystemExit are wrapped in RuntimeError."""
    if issubclass(type(error), Exception) and not issubclass(type(error), StopIteration):
        return error
    held = RuntimeError(f"{class_name(error)} raised by an Executor, its documents or a hook: {safe_str(error)}")
    held.__cause__ = error
    return held


def raise_sanitized(error: BaseException) -> NoReturn:
    """Raise an error of user code sanitized, and wrapped if it would end the event loop."""
    held = future_safe(sanitized(error))
    try:
        raise held
    finally:
        del held, error  # a traceback's frame that references its error is a cycle


class Unreadable(Exception):
    """Replaces an error of user code that cannot be logged; has its class and message."""


def loggable(error: BaseException) -> BaseException:
    """Return an error for the log: itself, or a summary where its traceback is long or cannot be formatted."""
    chain = _chain(error)
    if not any(_has_hooks(type(one), _HOOKS | _MORE_HOOKS) for one in chain):
        try:
            are_short = all(
                is_cheap(one) and len(str(one)) <= _LONGEST_TRACE and _has_short_notes(one) for one in chain
            )
            if are_short and sum(map(len, traceback.format_exception(error))) <= _LONGEST_TRACE:
                return error
        except BaseException:  # noqa: BLE001, S110  # a user's `str` may raise anything: summarized below
            pass
    written: BaseException | None = None
    for one in reversed(chain):
        stands = Unreadable(error_text(one)).with_traceback(_trace_of(one))
        stands.__cause__, written = written, stands
    assert written is not None
    return written


def raised_from(error: BaseException, kind: type[ErrorT]) -> ErrorT | None:
    """The first of this class among an error and those that it came from; None where there is none."""
    return next((one for one in _chain(error) if is_a(one, kind)), None)  # type: ignore[return-value]  # as `is_a` says


def _has_short_notes(error: BaseException) -> bool:
    notes = getattr(error, "__notes__", ())
    return sum(len(note) for note in notes if type(note) is str) <= _LONGEST_TRACE


def clear_frames(error: BaseException) -> None:
    """Clear the frames of an error's traceback, which may hold large objects such as a model."""
    for one in _chain(error):
        traceback.clear_frames(_trace_of(one))


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and its causes, as a traceback shows them."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and len(chain) < _MOST_CAUSES:
        chain.append(link)
        link = _cause_of(link) or (None if _suppressed(link) else _context_of(link))
    return chain


def _our_class(error: BaseException) -> type[JinaASGIError] | None:
    return next((found for found in _mro_of(type(error)) if found in _OURS), None)


def _foreign_classes(cls: type) -> list[type]:
    """Return a class and its bases without ours and Python's built-in ones."""
    return [found for found in _mro_of(cls) if found not in _OURS and found.__flags__ & _HEAP]


_HEAP = 1 << 9  # CPython's flag of heap types: classes written in Python


def _has_hooks(cls: type, hooks: frozenset[str]) -> bool:
    return any(
        type(vars(found)[name]) is not GetSetDescriptorType  # Python's own descriptor of `__dict__`
        for found in _foreign_classes(cls)
        for name in hooks & vars(found).keys()
    )


def _is_safe_to_read(cls: type, kind: type[JinaASGIError]) -> bool:
    """Whether reading an instance of a class derived from `kind` runs no user code."""
    if type(cls) is not type or cls.__new__ is not kind.__new__ or _has_hooks(cls, _HOOKS | _MORE_HOOKS):
        return False
    read = _READ | _SET[kind].keys()
    values = [(name, vars(found)[name]) for found in _foreign_classes(cls) for name in read & vars(found).keys()]
    return all(_is_valid_attribute(name, value, kind) for name, value in values)


def _is_valid_attribute(name: str, value: Any, kind: type[JinaASGIError]) -> bool:
    """Whether a value is valid for an attribute that is read."""
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
        if not _is_valid_attribute(name, own[name], kind):
            del own[name]
    for name, default in _SET[kind].items():
        value = getattr(error, name, None)
        if value is None and name == "message":
            value = safe_str(error)
        own[name] = _typed_value(value, default)
    if type(error) is kind:
        error.args = (error.message,)


def _typed_value(value: Any, default: Any) -> Any:
    """Return the value if it has the type of `default` and is short, else a converted value or the default."""
    if type(default) is str:
        return default if value is None else truncated(value) if type(value) is str else safe_str(value)
    if type(default) is list:
        return _entries(value) if type(value) is list else []
    if type(default) is float:
        return value if type(value) in (float, int) and not math.isnan(value) else default
    return value if type(value) is type(default) else default


def _entries(entries: list[Any]) -> list[Any]:
    """Return a list of validation errors if it is short and serializable.

    Else its first entries, and a summary that counts the rest.
    """
    try:
        if len(entries) <= _MOST_LOOKED_AT and len(orjson.dumps(entries, default=safe_repr)) <= _LONGEST_ENTRIES:
            return entries
    except (TypeError, ValueError, RecursionError):
        pass
    listed = shortened([entry for entry in entries if type(entry) is dict], most=_MOST_ENTRIES)
    return [entry if is_summary(entry) else _entry(entry) for entry in listed]


def _entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    place: Any = entry.get("loc")
    parts: Sequence[Any] = place[:20] if type(place) in (list, tuple) else ()
    return {
        "type": truncated(safe_str(entry.get("type", "")), 100),
        "loc": [part if type(part) is int else truncated(safe_str(part), 100) for part in parts],
        "msg": truncated(safe_str(entry.get("msg", "")), 200),
        "input": truncated(safe_repr(entry.get("input")), 100),
    }
