"""How an endpoint batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from jina_asgi.concurrency.hooks import is_async
from jina_asgi.errors import DefinitionError
from jina_asgi.settings.base import Settings
from jina_asgi.settings.fields import field_of, part_of

#: Stands for a function in settings that crossed to another process.
TOLD = "(told by the caller)"

Positive = Annotated[float, Field(gt=0)]


class BatchingSettings(Settings):
    """How an endpoint batches. Jina's names keep Jina's meaning, as bounds; times are in milliseconds, as there.

    `priority` and `tenant` are read from the place that is named and nowhere else: "context:identity" is what `auth` answered,
    "header:x-tenant" what the client writes.
    """

    owner = "dynamic_batching"

    preferred_batch_size: int = Field(4, ge=1, description="documents in a batch at most")
    timeout: float = Field(10_000, ge=0, description='milliseconds that gather="window" waits for more')
    flush_all: bool = Field(False, description="a batch takes all that waits, however much")
    custom_metric: Callable[[Any], float] | None = Field(None, description="what a document weighs")
    use_custom_metric: bool = Field(
        False, description="preferred_batch_size bounds the weight of a batch, not its size"
    )
    use_dynamic_batching: bool = Field(True, description="False: the endpoint is not batched")
    gather: Literal["idle", "window"] = Field("idle", description="begin when idle; or when full, or the time is up")
    cost: Callable[[Any], float] | str | None = Field(None, description='a function, or a field: "len:text"')
    max_cost: float | None = Field(None, gt=0, description="the cost of a batch at most")
    over_budget: Literal["alone", "refuse"] = Field("alone", description="what becomes of a document over max_cost")
    padded: bool = Field(False, description="max_cost bounds the dearest document times their number")
    max_padding: float | None = Field(None, ge=1, description="the padded over the real cost of a batch at most")
    buckets: list[Positive] | None = Field(None, min_length=1, description="greatest costs of what shares a batch")
    bucket_wait: float = Field(100, ge=0, description="milliseconds until a document's bucket goes before fuller ones")
    priority: Callable[[Any], int] | str | None = Field(
        None, description='the higher goes first: a function of the call, "context:identity.level", "header:x", a field'
    )
    priority_ageing: float = Field(1000, gt=0, description="milliseconds of waiting that a step of priority is worth")
    tenant: Callable[[Any], str] | str | None = Field(
        None, description='whose share a call takes: a function of it, "context:identity", "header:x", a field'
    )
    tenant_weights: dict[str, Positive] = Field(default_factory=dict, description="shares; 1 for who is not named")
    mix_tenants: bool = Field(False, description="documents of several tenants may share a batch")
    single_flight: bool = Field(False, description="what is equal but for its id, and asked at once, is run once")
    latency_target: float | None = Field(
        None, gt=0, description="milliseconds for 99 of 100 answers; what cannot keep it is refused"
    )

    prefetch: int = Field(0, ge=0, description="full batches that an async endpoint has beside the one it runs")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.use_custom_metric and self.custom_metric is None:
            raise ValueError("use_custom_metric needs a custom_metric")
        self._weighed()
        if self.max_padding is not None and self.buckets is not None:
            raise ValueError("max_padding and buckets are two ways of saying one thing; give one")
        if self.buckets is not None and self.buckets != sorted(set(self.buckets)):
            raise ValueError("buckets must rise")
        if self.use_custom_metric and self.cost is not None:
            raise ValueError("use_custom_metric and cost are two ways of saying one thing; give one")
        if self.tenant is None and (self.tenant_weights or self.mix_tenants):
            raise ValueError("tenant_weights and mix_tenants need a tenant")
        for option in ("custom_metric", "cost", "tenant", "priority"):
            if is_async(getattr(self, option)):
                raise ValueError(f"{option} is async; expected a function that answers at once")
        self.cost_function()
        self.call_part("tenant")
        self.call_part("priority")
        return self

    def _weighed(self) -> None:
        """What counts by cost has one."""
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

    def cost_function(self) -> Callable[[Any], float] | None:
        """What a document costs; None: one each."""
        if self.use_custom_metric:
            return self.custom_metric
        return field_of(self.cost, "cost") if isinstance(self.cost, str) else self.cost

    def call_part(self, option: Literal["tenant", "priority"]) -> Callable[[Any], list[Any]] | None:
        """What reads an option's values in a call; None where the option is not given."""
        said = self.tenant if option == "tenant" else self.priority
        if said is None or isinstance(said, str):
            return None if said is None else part_of(said, option)
        function = said
        return lambda call: [function(call)]

    @property
    def tells(self) -> bool:
        """Whether anything of a call must be told where its documents are objects."""
        return self.single_flight or any(
            said is not None for said in (self.cost_function(), self.tenant, self.priority)
        )

    def described(self) -> dict[str, Any]:
        """These settings as data; in the place of a function stands that its result will be told."""
        functions = {key for key, value in self if callable(value)}
        return {**self.model_dump(exclude=functions), **dict.fromkeys(functions, TOLD)}

    @classmethod
    def of_described(cls, options: Mapping[str, Any]) -> Self:
        """The settings that `described` wrote, for whoever is told what the functions in them would say."""
        return cls.of({key: _told if value == TOLD else value for key, value in options.items()})

    @property
    def needs_class(self) -> bool:
        """Whether something is told by a function that these described settings do not have."""
        return _told in (self.cost, self.custom_metric, self.tenant, self.priority)


def _told(doc: Any) -> float:
    raise DefinitionError("what a call costs, and whose it is, is told by its caller, who has the class")
