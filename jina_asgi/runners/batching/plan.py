"""How an endpoint batches, as data: what a process needs that has neither its class nor the functions of its settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import msgspec

from jina_asgi.runners.batching._items import Bounds, Lanes
from jina_asgi.settings import BatchingSettings


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
