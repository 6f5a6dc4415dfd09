"""Derives the batch kernel's bounds from an endpoint's settings."""

from __future__ import annotations

import math

from jina_asgi.runners.batching._items import Bounds, Lanes
from jina_asgi.settings import BatchingSettings


def bounds_of(settings: BatchingSettings, idempotent: bool) -> Bounds:
    """Return the kernel's bounds; with `flush_all` the size only says when a batch is full."""
    size, weighed, everything = settings.preferred_batch_size, settings.use_custom_metric, settings.flush_all
    return Bounds(
        max_items=2**31 if everything or weighed else size,
        max_cost=(math.inf if everything else float(size)) if weighed else settings.max_cost or math.inf,
        window=settings.timeout / 1000,
        gather=settings.gather,
        idempotent=idempotent,
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
