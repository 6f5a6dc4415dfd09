"""The options of dynamic batching."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from jina_asgi.concurrency.task_groups import is_async
from jina_asgi.settings.base import Settings, field_of, part_of

Positive = Annotated[float, Field(gt=0)]


class BatchingSettings(Settings):
    """The options of dynamic batching. Jina's names keep Jina's meaning, as upper bounds; times are in milliseconds.

    `priority` and `tenant` are read from the named place only: "context:identity" is the result of `auth`,
    "header:x-tenant" is whatever the client sent.
    """

    owner = "dynamic_batching"

    preferred_batch_size: int = Field(4, ge=1, description="most documents in a batch")
    timeout: float = Field(10_000, ge=0, description='milliseconds that gather="window" waits for a batch to fill')
    flush_all: bool = Field(False, description="a batch takes everything in the queue, however much")
    custom_metric: Callable[[Any], float] | None = Field(
        None, description="a function that returns the weight of a document"
    )
    use_custom_metric: bool = Field(
        False, description="preferred_batch_size bounds the weight of a batch, not its size"
    )
    use_dynamic_batching: bool = Field(True, description="False: the endpoint is not batched")
    gather: Literal["idle", "window"] = Field(
        "idle", description="a batch starts when the Executor is idle; or when it is full or `timeout` has passed"
    )
    cost: Callable[[Any], float] | str | None = Field(
        None, description='the cost of a document: a function, or a field such as "len:text"'
    )
    max_cost: float | None = Field(None, gt=0, description="greatest cost of a batch")
    over_budget: Literal["alone", "refuse"] = Field(
        "alone", description="a document over max_cost runs alone, or is refused"
    )
    padded: bool = Field(
        False, description="the cost of a batch is its greatest document cost times the number of documents"
    )
    max_padding: float | None = Field(
        None, ge=1, description="greatest ratio of a batch's padded cost to its real cost"
    )
    buckets: list[Positive] | None = Field(
        None, min_length=1, description="documents share a batch within cost ranges; these are the upper ends"
    )
    bucket_wait: float = Field(
        100, ge=0, description="milliseconds of waiting after which a document's bucket goes before fuller buckets"
    )
    priority: Callable[[Any], int] | str | None = Field(
        None, description='higher goes first: a function of the call, "context:identity.level", "header:x", or a field'
    )
    priority_ageing: float = Field(
        1000, gt=0, description="milliseconds of waiting that count as much as one step of priority"
    )
    tenant: Callable[[Any], str] | str | None = Field(
        None,
        description='the tenant whose share a call uses: a function of the call, "context:identity", "header:x", or a field',
    )
    tenant_weights: dict[str, Positive] = Field(
        default_factory=dict, description="the shares of tenants; 1 for a tenant that is not listed"
    )
    mix_tenants: bool = Field(False, description="a batch may hold documents of several tenants")
    single_flight: bool = Field(
        False, description="documents that are equal but for their id, and requested at the same time, are run once"
    )
    latency_target: float | None = Field(
        None, gt=0, description="milliseconds for 99 of 100 answers; calls that cannot meet it are refused"
    )

    prefetch: int = Field(
        0, ge=0, description="full batches that an async endpoint runs concurrently with its current batch"
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.use_custom_metric and self.custom_metric is None:
            raise ValueError("use_custom_metric needs a custom_metric")
        self._check_cost()
        if self.max_padding is not None and self.buckets is not None:
            raise ValueError("max_padding and buckets exclude each other; give one of them")
        if self.buckets is not None and self.buckets != sorted(set(self.buckets)):
            raise ValueError("buckets must be in ascending order")
        if self.use_custom_metric and self.cost is not None:
            raise ValueError("use_custom_metric and cost exclude each other; give one of them")
        if self.tenant is None and (self.tenant_weights or self.mix_tenants):
            raise ValueError("tenant_weights and mix_tenants need a tenant")
        for option in ("custom_metric", "cost", "tenant", "priority"):
            if is_async(getattr(self, option)):
                raise ValueError(f"{option} is async; expected a function that answers at once")
        for option, stated in self.hints.items():
            if isinstance(stated, str):
                (field_of if option == "cost" else part_of)(stated, option)
        return self

    def _check_cost(self) -> None:
        """Raises unless the options that count by cost have one."""
        if self.max_cost is not None and self.cost is None:
            raise ValueError("cost and max_cost go together")
        if self.cost is None and not self.use_custom_metric and (self.max_padding or self.buckets):
            raise ValueError("max_padding and buckets need a cost")
        used = (self.max_cost, self.max_padding, self.buckets, self.tenant, self.latency_target)
        if self.cost is not None and used.count(None) == len(used):
            raise ValueError(
                "cost and max_cost go together; or cost and max_padding, buckets, tenant or latency_target"
            )
        if self.padded and self.max_cost is None and not self.use_custom_metric:
            raise ValueError("padded says how max_cost counts; give max_cost")

    @property
    def hints(self) -> dict[str, Callable[[Any], Any] | str]:
        """What is read of a call while its documents are objects, by "cost", "tenant" and "priority": a function or a part."""
        cost = self.custom_metric if self.use_custom_metric else self.cost
        stated = {"cost": cost, "tenant": self.tenant, "priority": self.priority}
        return {option: of for option, of in stated.items() if of is not None}
