"""One method of one Executor instance: prepares its arguments, calls it and checks its answers."""

from __future__ import annotations

import contextvars
import inspect
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, NoReturn

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from jina_asgi.documents import field_plans, upload_files
from jina_asgi.documents.codec import Codec, codec
from jina_asgi.documents.readers import check_depth, errors_of
from jina_asgi.documents.return_type import refitted
from jina_asgi.documents.writers import finite
from jina_asgi.errors import DefinitionError, ExecutorError, InvalidDocs, Overloaded
from jina_asgi.errors._raised import error_text, http_error, is_a, is_ours, loggable, sanitized
from jina_asgi.errors._shown import class_name, safe_str
from jina_asgi.executors.endpoints import Method
from jina_asgi.executors.executor import Executor
from jina_asgi.runners.local.threads import ExecutorThreads, LeftBehind
from jina_asgi.types import Call, Context


def _given_trace(call: Call) -> Any:
    return call.context.trace


class BoundMethod:
    """An Executor's bound method. `docs` below are typed; its return values are checked.

    `trace_of` returns what a method that has the argument `tracing_context` gets. `takes_docs_only`: it takes all documents
    of a call at once, and nothing else.
    """

    __slots__ = (
        "_accepts",
        "_batch",
        "_files",
        "_in_place",
        "_name",
        "_own",
        "_trace_of",
        "codec",
        "function",
        "has_parameters",
        "is_async",
        "kind",
        "method",
        "takes_docs_only",
    )

    def __init__(self, executor: Executor, method: Method, trace_of: Callable[[Call], Any] = _given_trace) -> None:
        self._trace_of = trace_of
        self.method, self.function = method, _bound(executor, method.attribute)
        self._own = getattr(executor.metas, "name", "")
        self.kind, self.is_async = method.endpoint.kind, method.is_async
        self.codec: Codec = codec(method.endpoint.output)
        self._name = f"{type(executor).__name__}.{method.attribute}"
        self._batch = self.kind == "batch"
        self._in_place = method.endpoint.input.model is method.endpoint.output.model
        self._accepts = method.arguments
        self.has_parameters = method.endpoint.parameters is not None
        self._files = field_plans.takes_paths(method.endpoint.input)
        self.takes_docs_only = self._batch and not self._files and set(method.arguments) == {"docs"}

    def parameters(self, call: Call) -> Any:
        """Return the parameters as the method takes them: its model, or a dict with whole numbers as ints.

        Raises:
            InvalidDocs: they do not fit the model.
        """
        schema, given = self.method.endpoint.parameters, call.parameters
        own = given.get(self._own) if given else None
        if type(own) is dict:  # as in Jina: parameters under this Executor's name override those for all
            given = {**given, **own}
        if schema is None:
            return integral(given) if given else {}
        values = {k: v for k, v in given.items() if k != "__results__" and (v is not own or own is None)}
        try:
            return schema.model.validate_python(values)
        except ValidationError as error:
            entries = [{**e, "loc": ["parameters", *e["loc"]]} for e in errors_of(error)]
            raise InvalidDocs(f"the parameters do not match {schema.name}", entries) from None

    def arguments(self, docs: Any, parameters: Any, call: Call) -> dict[str, Any]:
        """Return the keyword arguments of one call; `docs` is one document for a single or stream endpoint."""
        accepts, given = self._accepts, {}
        if self._batch:
            if "docs" in accepts:
                given["docs"] = docs
        else:
            given["doc"] = docs
        if "parameters" in accepts:
            given["parameters"] = parameters
        if "context" in accepts:
            given["context"] = call.context
        if "tracing_context" in accepts:
            given["tracing_context"] = self._trace_of(call)
        if "docs_matrix" in accepts:
            matrix = [docs] if self._batch else []
            if call.sources:
                matrix = [source.typed for _, source in call.sources]
            given["docs_matrix"] = matrix if any(matrix) else None
        if "docs_map" in accepts:
            one = {call.giver: docs} if self._batch and call.giver else {}
            given["docs_map"] = {name: source.typed for name, source in call.sources} if call.sources else one
        return given

    def run(self, parameters: Any, call: Call) -> Any:
        """Call a synchronous batch or single method; return its checked answer. Errors are wrapped here, in its thread.

        The call begins only now, as that settles the members of a batch.
        """
        try:
            docs = call.begin().typed
            if self.takes_docs_only:
                return self.checked_answer(self.function(docs=docs), docs)
            if not self._files:
                return self._call(docs, parameters, call)
            with upload_files.in_use(docs):
                return self._call(docs, parameters, call)
        except BaseException as error:
            raise self.wrap_error(error) from error

    def _call(self, docs: Any, parameters: Any, call: Call) -> Any:
        if self._batch:
            return self.checked_answer(self.function(**self.arguments(docs, parameters, call)), docs)
        return self._each(docs, parameters, call)

    def step(self, made: Generator[Any, None, None], end: Any) -> Any:
        """Return the next item of a synchronous generator, or `end`; raises as `run` does."""
        try:
            return next(made, end)
        except BaseException as error:
            raise self.wrap_error(error) from error

    def _each(self, docs: list[Any], parameters: Any, call: Call) -> Any:
        made = []
        for doc in docs:
            if call.context.cancelled:
                break
            made.append(self.checked_document(self.function(**self.arguments(doc, parameters, call)), doc))
        return self.codec.wrap(made)

    async def run_async(self, docs: list[Any], parameters: Any, call: Call) -> Any:
        """As `run`, for an asynchronous method."""
        if self._files:
            with upload_files.in_use(docs):
                return await self._call_async(docs, parameters, call)
        return await self._call_async(docs, parameters, call)

    async def _call_async(self, docs: list[Any], parameters: Any, call: Call) -> Any:
        if self._batch:
            return self.checked_answer(await self.function(**self.arguments(docs, parameters, call)), docs)
        function, arguments = self.function, self.arguments
        made = [self.checked_document(await function(**arguments(doc, parameters, call)), doc) for doc in docs]
        return self.codec.wrap(made)

    def checked_answer(self, value: Any, docs: list[Any]) -> Any:
        """Check a batch method's return value: documents of its output class, None (changed in place) or a dict.

        Raises:
            ExecutorError: anything else.
        """
        kind = type(value)
        if value is None:
            value = docs
        elif kind is not list:
            if issubclass(kind, dict):
                return finite(value)
            if not issubclass(kind, list):
                self._wrong(f"returned {_kind(value)}; expected {self._expected}, a dict, or None")
            if not _may_be_walked(kind):
                value = [*list.__iter__(value)]
        model = self.codec.model
        for doc in value:
            if type(doc) is not model and not isinstance(doc, model):  # type: ignore[arg-type]  # typed here
                return self.codec.wrap([self._fitted(each, "returned a list with {} in it") for each in value])
        return value

    def checked_document(self, value: Any, doc: Any = None) -> Any:
        """Check a single method's return value, or a yielded item: a document; None means changed in place.

        Raises:
            ExecutorError: anything else.
        """
        if value is None and doc is not None:
            value = doc
        model = self.codec.model
        if type(value) is not model and not isinstance(value, model):  # type: ignore[arg-type]  # typed here
            return self._fitted(value, f"{'yielded' if self.kind == 'stream' else 'returned'} {{}}")
        return value

    def _fitted(self, value: Any, did: str) -> Any:
        """Return a document of the output class, made from another document's fields if necessary, as Jina does.

        Raises:
            ExecutorError: it is no document, or its fields do not fit the output class.
        """
        if isinstance(value, self.codec.model):  # type: ignore[arg-type]  # typed here
            return value
        why = ""
        if isinstance(value, BaseModel):
            try:
                return refitted(value, self.codec)
            except (InvalidDocs, DefinitionError) as error:
                why = f": {safe_str(error)}"
        raise self.failed(f"{self._name} {did.format(_kind(value))}; expected {self._expected}{why}")

    @property
    def _expected(self) -> str:
        name = self.codec.schema.name
        return f"documents of {name}" if self._batch else f"a {name}"

    def _wrong(self, what: str) -> NoReturn:
        raise self.failed(f"{self._name} {what}")

    def failed(self, message: str, raised: str = "") -> ExecutorError:
        """Return the error for a wrong return value of this method, or for what it raised."""
        executor = self._name.partition(".")[0]
        return ExecutorError(message, executor=executor, endpoint=self.method.endpoint.name, raised=raised)

    def wrap_error(self, error: BaseException) -> BaseException:
        """Wrap an error of user code once; our own errors are only sanitized."""
        if is_ours(error):
            error = sanitized(error)
            if isinstance(error, Overloaded):
                error.server_wide = False  # the Executor refuses this call, and no queue is full
            return error
        if is_a(error, HTTPException):
            return http_error(error)
        return self.failed(f"{self._name} raised {error_text(error)}", class_name(error))


def _bound(executor: Executor, attribute: str) -> Any:
    """Return the method of the class, bound: an instance attribute may have the same name, such as `self.encode`."""
    return inspect.getattr_static(type(executor), attribute).__get__(executor, type(executor))


@lru_cache(maxsize=256)
def _may_be_walked(kind: type[list[Any]]) -> bool:
    """Whether a list class iterates as `list` does: a user's own may be endless, or raise."""
    before = kind.__mro__[: kind.__mro__.index(list)]
    return all(found.__module__.partition(".")[0] == "docarray" or not _WALKS & vars(found).keys() for found in before)


_WALKS = frozenset({"__iter__", "__len__", "__getitem__", "__getattribute__", "__bool__", "__class__"})


def integral(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters with every whole number as an int, on all protocols alike.

    Raises:
        InvalidDocs: nested too deep.
    """
    try:
        check_depth(parameters if type(parameters) is dict else dict(parameters))
    except ValueError as error:
        raise InvalidDocs(f"the parameters are {error}", [{"loc": ["parameters"], "msg": str(error)}]) from None
    return {key: _integral(value) for key, value in parameters.items()}


def _integral(value: Any) -> Any:
    if type(value) is float and value.is_integer():
        return int(value)
    if type(value) is dict:
        return {key: _integral(item) for key, item in value.items()}
    if type(value) is list:
        return [_integral(item) for item in value]
    return value


def _kind(value: Any) -> str:
    name = class_name(value)
    return "None" if value is None else f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


logger = logging.getLogger("jina_asgi")

_END: Any = object()


async def steps_in_thread(
    threads: ExecutorThreads,
    bound: BoundMethod,
    made: Generator[Any, None, None],
    context: Context,
    stopped: Callable[[], bool],
    on_left: Callable[[], object],
) -> AsyncGenerator[Any, None]:
    """Yield what `made` yields; close it at the end, and if the reader leaves.

    Leaving waits until a step that runs has returned. If serving has ended, as `stopped` says, the reader need not
    wait: the generator is closed once the step has returned.
    """
    running = threading.Lock()  # held by a step, or by what closes the generator
    kept = contextvars.copy_context()  # contextvars that one step sets are there in the next

    def step() -> Any:
        try:
            with running:
                return kept.run(bound.step, made, _END)
        finally:
            if stopped():
                close_unwaited()

    def close() -> None:
        if running.acquire(blocking=False):  # else the step that runs closes it
            try:
                kept.run(made.close)
            finally:
                running.release()

    def close_unwaited() -> None:
        try:
            close()
        except BaseException as error:  # no caller waits
            logger.error("a generator could not be closed", exc_info=loggable(error))

    try:
        while (item := await threads.run(step, context, waits=lambda: not stopped(), on_left=on_left)) is not _END:
            yield item
    finally:
        if stopped():
            threads.run_unwaited(close_unwaited)
        else:
            with suppress(LeftBehind):  # then the generator never runs again
                await threads.finish(close)
