"""Computes batching hints while documents are typed: costs, tenant, priority, content digests.

The hints travel in the call's context, as the batcher of several processes sees only buffers.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, TypeVar

import msgspec

from jina_asgi.errors import ExecutorError, InvalidRequest
from jina_asgi.errors._raised import error_text, is_ours, sanitized
from jina_asgi.errors._shown import class_name
from jina_asgi.errors._shown import safe_str as text_of
from jina_asgi.runners.batching._items import Bounds, Lanes
from jina_asgi.runners.wrappers import Wrapper
from jina_asgi.settings import BatchingSettings
from jina_asgi.settings.base import field_of, part_of
from jina_asgi.types import Call, Endpoint, Result, Runner, resolve


class BatchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The plan that batches are formed by.

    Attributes:
        bounds: of a batch; whether it is idempotent is said by the endpoint.
        oversized_alone: a document over the cost of a batch runs alone; else it is refused.
        prefetch: full batches that an async endpoint runs beside its current one.
        target: the latency target in seconds.
        mix_tenants: a batch may hold documents of several tenants.
        single_flight: equal documents run once.
        hints: those of the settings that name a part of a call.
        functions: those that are functions, which only a process with the Executor's class has.
    """

    bounds: Bounds
    oversized_alone: bool
    prefetch: int
    target: float | None
    mix_tenants: bool
    single_flight: bool
    hints: dict[str, str]
    functions: list[str]

    @classmethod
    def of(cls, settings: BatchingSettings) -> Self:
        hints = settings.hints
        return cls(
            bounds=_bounds_of(settings),
            oversized_alone=settings.over_budget == "alone",
            prefetch=settings.prefetch,
            target=None if settings.latency_target is None else settings.latency_target / 1000,
            mix_tenants=settings.mix_tenants,
            single_flight=settings.single_flight,
            hints={option: stated for option, stated in hints.items() if isinstance(stated, str)},
            functions=[option for option, stated in hints.items() if not isinstance(stated, str)],
        )

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Self:
        """Return the plan that `data` made."""
        return msgspec.convert(data, cls)

    def data(self) -> dict[str, Any]:
        """Return this as plain data."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        return data


def _bounds_of(settings: BatchingSettings) -> Bounds:
    """Return the kernel's bounds; with `flush_all` the size only says when a batch is full."""
    size, weighed, everything = settings.preferred_batch_size, settings.use_custom_metric, settings.flush_all
    return Bounds(
        max_items=2**31 if everything or weighed else size,
        max_cost=(math.inf if everything else float(size)) if weighed else settings.max_cost or math.inf,
        window=settings.timeout / 1000,
        gather=settings.gather,
        enough=size if everything and not weighed else 0,
        enough_cost=float(size) if everything and weighed else math.inf,
        lanes=_lanes_of(settings),
    )


def _lanes_of(settings: BatchingSettings) -> Lanes | None:
    """Return what orders the queue besides deadlines; None if nothing does."""
    by_cost = settings.max_padding is not None or settings.buckets is not None
    asked = (settings.tenant, settings.priority, settings.latency_target)
    if not (by_cost or settings.padded or settings.single_flight) and asked.count(None) == len(asked):
        return None
    return Lanes(
        padded=by_cost or settings.padded,
        buckets=tuple(settings.buckets or ()),
        max_padding=settings.max_padding or math.inf,
        bucket_wait=settings.bucket_wait / 1000,
        ageing=None if settings.priority is None else settings.priority_ageing / 1000,
        weights=None if settings.tenant is None else settings.tenant_weights,
    )


Cost = Callable[[Any], float]
F = TypeVar("F")
T = TypeVar("T")
PRIORITIES = 10  #: Priorities are clamped to the range from minus this to this.


class BatchHints(NamedTuple):
    """The batching hints of one call."""

    costs: Sequence[float] | None = None
    tenant: str = ""
    priority: int = 0
    inputs: Sequence[bytes] | None = None


@dataclass(frozen=True, slots=True)
class HintReader:
    """Computes the batching hints of an endpoint's calls."""

    endpoint: str
    cost: Cost | None
    tenant: Callable[[Call], list[Any]] | None
    priority: Callable[[Call], list[Any]] | None
    single_flight: bool

    @classmethod
    def of(cls, endpoint: str, hints: Mapping[str, Callable[[Any], Any] | str], *, single_flight: bool) -> HintReader:
        """Return the reader of options as `BatchingSettings.hints` has them."""
        cost, tenant, priority = (hints.get(option) for option in ("cost", "tenant", "priority"))
        return cls(
            endpoint,
            field_of(cost, "cost") if isinstance(cost, str) else cost,
            _part(tenant, "tenant"),
            _part(priority, "priority"),
            single_flight,
        )

    def read(self, call: Call) -> BatchHints:
        """Compute the hints of a call: the first document's tenant, the highest priority of all documents.

        Raises:
            ExecutorError: a function failed, or returned a cost that is no finite number of at least 0.
            InvalidRequest: a document or a header has an invalid priority.
        """
        return BatchHints(
            None if self.cost is None else document_costs(self._cost(call), call.docs.typed, self.endpoint),
            call.context.tenant
            if self.tenant is None
            else self._evaluated("tenant", _tolerant(self.tenant, call), call, _tenant),
            call.context.priority
            if self.priority is None
            else self._evaluated("priority", _tolerant(self.priority, call), call, _priority),
            self._evaluated("content", lambda call: call, call, content_digests) if self.single_flight else None,
        )

    def _cost(self, call: Call) -> Cost:
        """Return the cost function. Without the documents' class one may lack the field or hold an invalid value: such a
        document costs 0.
        """
        assert self.cost is not None
        return self.cost if call.docs.codec.model is not None else _tolerant_cost(self.cost)

    def _evaluated(self, what: str, function: Callable[[Call], F], call: Call, read: Callable[[F], T]) -> T:
        try:
            return read(function(call))
        except BaseException as error:
            if is_ours(error):
                raise sanitized(error) from None
            raise _hint_error(f"the {what} of a call to", self.endpoint, error) from error


class HintRunner(Wrapper):
    """Writes batching hints into each call's context.

    With single flight a document's id is replaced by a digest of its content, so that equal documents are equal as
    buffers; an answer with the digest as id gets the original id back.

    Args:
        inner: the Runner that batches by these hints.
        readers: the hint readers by endpoint; called once the inner Runner has loaded.
    """

    def __init__(self, inner: Runner, readers: Callable[[], Mapping[str, HintReader]]) -> None:
        super().__init__(inner)
        self._make_readers, self._readers = readers, dict[str, HintReader]()
        self._read_endpoints: Mapping[str, Endpoint] = {}

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with self.inner.lifespan():
            self._refresh_readers()
            yield

    def _refresh_readers(self) -> None:
        endpoints = self._endpoints_source.endpoints
        if self._read_endpoints is not endpoints:
            self._read_endpoints, self._readers = endpoints, dict(self._make_readers())

    def call(self, call: Call, /) -> Coroutine[Any, Any, Result]:
        self._refresh_readers()
        endpoint = resolve(self._read_endpoints, call.endpoint) if self._readers else None
        reader = None if endpoint is None else self._readers.get(endpoint.name)
        return self.inner.call(call) if reader is None else self._call_with_hints(reader, call)

    async def _call_with_hints(self, reader: HintReader, call: Call) -> Result:
        hints = reader.read(call)
        # A new context, as the caller may use its own for other calls, too.
        context = msgspec.structs.replace(call.context, **hints._asdict())
        if hints.inputs is None:
            return await self.inner.call(msgspec.structs.replace(call, context=context))
        docs = call.docs.typed
        renamed = [_with_id(doc, name.hex()) for doc, name in zip(docs, hints.inputs, strict=True)]
        codec = call.docs.codec
        asked = msgspec.structs.replace(call, docs=codec.docs(codec.wrap(renamed)), context=context)
        result = await self.inner.call(asked)
        for answer, doc, name in zip(result.docs.typed, docs, hints.inputs, strict=True):
            if id_of(answer) == name.hex():
                set_id(answer, id_of(doc))
        return msgspec.structs.replace(result, docs=result.docs.codec.docs(result.docs.typed))


def _part(stated: Callable[[Any], Any] | str | None, option: str) -> Callable[[Call], list[Any]] | None:
    if stated is None or isinstance(stated, str):
        return None if stated is None else part_of(stated, option)
    return lambda call: [stated(call)]


def document_costs(cost: Cost, docs: Any, endpoint: str) -> list[float]:
    """Return the cost of each document.

    Raises:
        ExecutorError: the function failed, or returned a cost that is no finite number of at least 0.
    """
    try:
        return [checked_cost(cost(doc)) for doc in docs]
    except BaseException as error:
        raise _hint_error("the cost of a document of", endpoint, error) from error


def _tolerant(part: Callable[[Call], list[Any]], call: Call) -> Callable[[Call], list[Any]]:
    """Return `part`, or without the documents' class a version that returns [] for documents the class will refuse."""
    if call.docs.codec.model is not None:
        return part

    def tolerant(call: Call) -> list[Any]:
        try:
            return part(call)
        except (LookupError, AttributeError, TypeError):
            return []

    return tolerant


def _tolerant_cost(cost: Cost) -> Cost:
    def tolerant(doc: Any) -> float:
        try:
            return checked_cost(cost(doc))
        except (LookupError, AttributeError, TypeError, ValueError):
            return 0.0

    return tolerant


def checked_cost(value: Any) -> float:
    """Return a cost as a float.

    Raises:
        ValueError: it is negative, infinite or NaN.
    """
    number = float(value)
    if not 0 <= number < float("inf"):
        raise ValueError(f"expected a cost of at least 0, got {number}")
    return number


def clamp_priority(priority: int) -> int:
    """Clamp a priority to `PRIORITIES`."""
    return max(-PRIORITIES, min(PRIORITIES, priority))


def content_digests(call: Call) -> list[bytes]:
    """Return a digest of each document's content, without its id."""
    docs = [_with_id(doc, "") for doc in call.docs.typed]
    return [hashlib.blake2b(buffer, digest_size=16).digest() for buffer in call.docs.codec.encode(docs)]


def copy_answer(asked: Any, answer: Any, own: Any) -> Any:
    """Copy the answer to one document for another of equal content, replacing the document's id if the answer has it."""
    answer = copy.deepcopy(answer)
    if id_of(asked) is not None and id_of(answer) == id_of(asked):
        set_id(answer, id_of(own))
    return answer


def id_of(doc: Any) -> str | None:
    """Return the id of a document; None if it has none, or one that is no text."""
    found = doc.get("id") if isinstance(doc, Mapping) else getattr(doc, "id", None)
    return found if isinstance(found, str) else None


def set_id(doc: Any, value: str | None) -> None:
    """Set a document's id, bypassing validation and frozen classes."""
    (doc if isinstance(doc, dict) else doc.__dict__)["id"] = value


def _with_id(doc: Any, value: str) -> Any:
    """Return a copy of a document with another id; the document itself if it has none."""
    if id_of(doc) is None:
        return doc
    changed = copy.copy(doc)
    set_id(changed, value)
    return changed


def _tenant(values: list[Any]) -> str:
    return "" if not values or values[0] is None else text_of(values[0])


def _priority(values: list[Any]) -> int:
    try:
        return clamp_priority(max((int(value) for value in values if value is not None), default=0))
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidRequest(f"expected a whole number as priority: {text_of(error)}") from error


def _hint_error(what: str, endpoint: str, error: BaseException) -> ExecutorError:
    return ExecutorError(
        f"{what} {endpoint} could not be computed: {error_text(error)}",
        endpoint=endpoint,
        raised=class_name(error),
    )
