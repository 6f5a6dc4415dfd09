"""How an endpoint batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from jina_asgi.errors import DefinitionError
from jina_asgi.settings.base import Settings

#: Stands for a function in settings that crossed to another process.
TOLD = "(told by the caller)"


class BatchingSettings(Settings):
    """How an endpoint batches. Jina's names keep Jina's meaning, as bounds; `timeout` is in milliseconds, as there."""

    owner = "dynamic_batching"

    preferred_batch_size: int = Field(4, ge=1, description="documents in a batch at most")
    timeout: float = Field(10_000, ge=0, description='milliseconds that gather="window" waits for more')
    flush_all: bool = Field(False, description="a batch takes all that waits, however much")
    custom_metric: Callable[[Any], float] | None = Field(None, description="what a document weighs")
    use_custom_metric: bool = Field(
        False, description="preferred_batch_size bounds the weight of a batch, not its size"
    )
    use_dynamic_batching: bool = True
    gather: Literal["idle", "window"] = Field("idle", description="begin when idle; or when full, or the time is up")
    cost: Callable[[Any], float] | str | None = Field(None, description='a function, or a field: "len:text"')
    max_cost: float | None = Field(None, gt=0, description="the cost of a batch at most")
    over_budget: Literal["alone", "refuse"] = Field("alone", description="what becomes of a document over max_cost")

    prefetch: int = Field(0, ge=0, description="full batches that an async endpoint has beside the one it runs")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.use_custom_metric and self.custom_metric is None:
            raise ValueError("use_custom_metric needs a custom_metric")
        if (self.max_cost is None) != (self.cost is None):
            raise ValueError("cost and max_cost go together")
        if self.use_custom_metric and self.cost is not None:
            raise ValueError("use_custom_metric and cost are two ways of saying one thing; give one")
        self.cost_function()
        return self

    def cost_function(self) -> Callable[[Any], float] | None:
        """What a document costs; None: one each."""
        if self.use_custom_metric:
            return self.custom_metric
        if not isinstance(self.cost, str):
            return self.cost
        measure, _, path = self.cost.rpartition(":")
        names = path.split(".")
        if measure not in ("", "len") or not all(name.isidentifier() and name[0] != "_" for name in names):
            raise ValueError(f'cost={self.cost!r}: expected a field, such as "tokens", or its length, "len:text"')

        def cost(doc: Any) -> float:
            for name in names:
                doc = doc[name] if isinstance(doc, Mapping) else getattr(doc, name)
            return float(len(doc) if measure else doc)

        return cost

    def described(self) -> dict[str, Any]:
        """These settings as data; in the place of a function stands that its result will be told."""
        functions = {key for key, value in self if callable(value)}
        return {**self.model_dump(exclude=functions), **dict.fromkeys(functions, TOLD)}

    @classmethod
    def of_described(cls, options: Mapping[str, Any]) -> Self:
        """The settings that `described` wrote, for whoever is told what documents cost."""
        return cls.of({key: _told if value == TOLD else value for key, value in options.items()})

    @property
    def needs_class(self) -> bool:
        """Whether what a document costs is told by a function that these described settings do not have."""
        return _told in (self.cost, self.custom_metric)


def _told(doc: Any) -> float:
    raise DefinitionError("what a document costs is told by its caller, who has its class")
