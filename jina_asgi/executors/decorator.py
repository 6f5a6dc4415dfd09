"""`@requests`, which records the endpoints that an Executor's methods answer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

from jina_asgi.errors import DefinitionError

F = TypeVar("F", bound=Callable[..., Any])
_RECORD = "__jina_asgi_requests__"


@overload
def requests(function: F, /) -> F: ...
@overload
def requests(
    *,
    on: str | Sequence[str] | None = None,
    idempotent: bool = False,
    request_schema: Any = None,
    response_schema: Any = None,
) -> Callable[[F], F]: ...
def requests(
    function: F | None = None,
    /,
    *,
    on: str | Sequence[str] | None = None,
    idempotent: bool = False,
    request_schema: Any = None,
    response_schema: Any = None,
) -> F | Callable[[F], F]:
    """Marks a method of an Executor as answering endpoints.

    Bare, or without `on`, the method answers '/default': what is sent there, to `/post`, and (other than over
    HTTP) to endpoints that nothing else answers. The method itself is returned unchanged.

    Args:
        on: one endpoint or several, such as '/encode'.
        idempotent: the work may be run again when a replica died or a batch failed.
        request_schema, response_schema: the documents, in place of the annotations (as in Jina).
    """
    if function is not None and not (callable(function) or isinstance(function, classmethod)):
        raise DefinitionError(f"@requests({function!r}): expected @requests(on={function!r}), or @requests alone")
    if on is not None and (not isinstance(on, str | Sequence) or len(on) == 0):
        raise DefinitionError(f"@requests(on={on!r}): expected an endpoint such as '/encode', or a list of them")
    names = ("/default",) if on is None else (on,) if isinstance(on, str) else tuple(on)

    def record(method: F) -> F:
        if not (inspect.isfunction(method) or isinstance(method, staticmethod | classmethod)):
            raise DefinitionError(f"@requests decorates {method!r}: expected a method written with def")
        marked = getattr(method, "__func__", method)  # a static method is rejected with its class, by name
        if hasattr(marked, _RECORD):
            raise DefinitionError(
                f"@requests is used twice on {method.__qualname__}; expected one: on=['/one', '/two']"
            )
        setattr(marked, _RECORD, Record(names, idempotent, request_schema, response_schema))
        return method

    return record if function is None else record(function)


class Record:
    """The arguments of `@requests`."""

    __slots__ = ("idempotent", "names", "request_schema", "response_schema")

    def __init__(self, names: tuple[str, ...], idempotent: bool, request_schema: Any, response_schema: Any) -> None:
        self.names, self.idempotent = names, idempotent
        self.request_schema, self.response_schema = request_schema, response_schema


def recorded(method: Any) -> Record | None:
    """The recorded arguments of `@requests` of a method; None if it has no such decorator."""
    record: Record | None = getattr(getattr(method, "__func__", method), _RECORD, None)
    return record
