"""Dynamic batching as users declare it: the decorator, and the options that override it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, Unpack, overload

from jina_asgi.errors import DefinitionError
from jina_asgi.executors.endpoints import Method
from jina_asgi.executors.executor import Executor
from jina_asgi.settings import BatchingSettings
from jina_asgi.settings.options import BatchingOptions

F = TypeVar("F", bound=Callable[..., Any])
_RECORD = "__jina_asgi_dynamic_batching__"


@overload
def dynamic_batching(function: F, /) -> F: ...
@overload
def dynamic_batching(**options: Unpack[BatchingOptions]) -> Callable[[F], F]: ...
def dynamic_batching(function: F | None = None, /, **options: Unpack[BatchingOptions]) -> F | Callable[[F], F]:
    """Marks an endpoint's method as batching calls together; above or below `@requests`.

    The method is called with the documents of many requests, and answers one for each, in order.

    Args:
        options: those of `BatchingSettings`: `preferred_batch_size`, `timeout` (milliseconds), `flush_all`,
            `custom_metric`, `use_custom_metric`, `use_dynamic_batching`; `gather`, `cost`, `max_cost`, `over_budget`,
            `padded`, `prefetch`; `max_padding`, `buckets`, `bucket_wait` (milliseconds); `priority`, `priority_ageing`
            (milliseconds); `tenant`, `tenant_weights`, `mix_tenants`; `single_flight`; `latency_target` (milliseconds).

    Raises:
        DefinitionError: an option that does not exist or does not fit.
    """
    BatchingSettings.of(options)

    def record(method: F) -> F:
        setattr(method, _RECORD, options)
        return method

    return record if function is None else record(function)


Options = Mapping[str, Mapping[str, Any]]


def batching_of(uses: type[Executor], methods: Mapping[str, Method], *layers: Options) -> dict[str, BatchingSettings]:
    """Collects the batching settings of every endpoint that batches.

    Args:
        uses: the Executor class, whose decorators give the defaults.
        methods: its bound endpoints.
        layers: options by endpoint or method name; a later layer overrides an earlier one, option by option. Options
            under an endpoint's name override those under its method's.

    Raises:
        DefinitionError: a key that is neither an endpoint nor a method, an invalid option, or an endpoint that cannot
            batch.
    """
    named = _merged([_by_known_name(methods, layer) for layer in layers])
    found: dict[str, BatchingSettings] = {}
    for endpoint, method in methods.items():
        recorded: Mapping[str, Any] | None = getattr(getattr(uses, method.attribute), _RECORD, None)
        said = [one for one in (recorded, named.get(method.attribute), named.get(endpoint)) if one is not None]
        options = {key: value for one in said for key, value in one.items()}
        if not said or not options.get("use_dynamic_batching", True):
            continue
        if method.endpoint.kind != "batch":
            raise DefinitionError(
                f"{uses.__name__}.{method.attribute} takes one document at a time and cannot batch: "
                "let it take `docs` and return as many, or set use_dynamic_batching=False"
            )
        found[endpoint] = BatchingSettings.of(options)
    return found


def _by_known_name(methods: Mapping[str, Method], layer: Options) -> Options:
    """A layer with every key checked to be an endpoint or a method; endpoints get their leading slash."""
    attributes = {method.attribute for method in methods.values()}
    named = {key if key in attributes or key.startswith("/") else f"/{key}": value for key, value in layer.items()}
    if unknown := [key for key in named if key not in methods and key not in attributes]:
        known = ", ".join(dict.fromkeys([*methods, *sorted(attributes)]))
        raise DefinitionError(f"there is dynamic batching for {unknown[0]!r}; known: {known}")
    return named


def _merged(layers: Sequence[Options]) -> dict[str, dict[str, Any]]:
    merged: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for name, options in layer.items():
            merged.setdefault(name, {}).update(options)
    return merged
