"""`Executor`, the base class of a user's Executors.

All of an Executor's endpoints are determined, and every mistake is reported, when its class is created. Nothing here
runs a call: `runners/local/runner.py` does.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Awaitable, Mapping
from contextlib import AbstractContextManager
from types import FrameType, SimpleNamespace
from typing import Any, ClassVar, Self

from jina_asgi.concurrency.process_wide import LoadLock
from jina_asgi.concurrency.task_groups import is_async, is_generator, maybe_await
from jina_asgi.errors import DefinitionError
from jina_asgi.errors._shown import safe_repr
from jina_asgi.executors.decorators import recorded, requests, timed
from jina_asgi.executors.endpoints import Method, checked_name, method_of
from jina_asgi.executors.standalone import ByItself, warn_of_unknown, workspace_of
from jina_asgi.settings.jina_options import as_jina, logger_of

__all__ = ["Executor", "requests"]

logger = logging.getLogger("jina_asgi")


class Executor(ByItself):
    """The base of a user's Executors.

    `__init__` loads the model; methods marked with `@requests` answer endpoints. `__init__`, synchronous methods
    and the steps of synchronous generators run in the Executor's own thread (one, unless `allow_concurrent`);
    asynchronous ones on the event loop.
    """

    #: The endpoints by name, in the order of the source. A class may have a method of the same name.
    methods: ClassVar[Mapping[str, Method]] = {}
    _answers: ClassVar[Mapping[str, Method]] = methods

    #: As in Jina, OpenTelemetry's objects if tracing and metrics are on; else None.
    tracer: Any = None
    meter: Any = None
    tracer_provider: Any = None
    meter_provider: Any = None

    metas: SimpleNamespace
    runtime_args: SimpleNamespace
    #: The options that it was created with, as far as they are plain data; of others, their types.
    made_with: Mapping[str, Any]
    _workspace: str | None
    _requests: Mapping[str, str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_life(cls)
        cls._answers = _methods(cls, _names_around(cls.__module__))
        owner = next(vars(one) for one in cls.__mro__ if "methods" in vars(one))
        if owner["methods"] is owner.get("_answers"):
            cls.methods = cls._answers

    def __new__(cls, *_: Any, **given: Any) -> Self:
        self = super().__new__(cls)
        self.made_with = {name: _kept(value) for name, value in given.items() if name not in _FACTS}
        _describe(self)
        return self

    def __init__(
        self,
        metas: Mapping[str, Any] | None = None,
        requests: Mapping[str, str] | None = None,
        runtime_args: Mapping[str, Any] | None = None,
        workspace: str | None = None,
        **unknown: Any,
    ) -> None:
        """The options are Jina's; a Deployment passes them, and so may code that creates an Executor itself.

        Args:
            metas: name, description, workspace, py_modules.
            requests: endpoint names mapped to method names, as `uses_requests`.
            runtime_args: name, workspace, shard_id, replicas and more, from the process that serves the Executor.
            workspace: the folder in which this Executor may store files.
        """
        if metas or runtime_args or workspace or requests:
            _describe(self, metas, runtime_args, workspace, requests)
        warn_of_unknown(type(self), unknown.keys() - {*_FACTS}, base=Executor)

    @property
    def logger(self) -> Any:
        """The logger of this Executor: `jina_asgi.executor.<name>`, unless another was set."""
        return vars(self).get("logger") or logger_of(f"executor.{self.metas.name}")

    @logger.setter
    def logger(self, logger: Any) -> None:
        vars(self)["logger"] = logger

    @property
    def requests(self) -> Mapping[str, Method]:
        """The endpoints by name."""
        return bind(type(self), self._requests) if self._requests else self._answers

    @property
    def workspace(self) -> str:
        """The folder of this Executor, created if needed: `<workspace>/<name>[/<shard_id>]`."""
        base = getattr(self.runtime_args, "workspace", None) or self.metas.workspace or self._workspace
        return str(workspace_of(base, self.metas.name, getattr(self.runtime_args, "shard_id", None)))

    def monitor(self, name: str, documentation: str | None = None) -> AbstractContextManager[None]:
        """Times its block: `with self.monitor("tokenizing_seconds"): ...`; the metrics are at `/-/status`."""
        return timed(self, name, documentation)

    def warmup(self) -> Awaitable[None] | None:
        """Called once after `__init__`, before the Executor is ready: override it to run a first, slow call.

        This method, `health` and `close` may be async: then they run on the event loop, as asynchronous endpoints do.
        If one of them answers an endpoint, it is only that, and is not called here.
        """
        return None

    def health(self) -> bool | Awaitable[bool]:
        """Checks whether this Executor can still answer; override it to check a device or a connection."""
        return True

    def close(self) -> Awaitable[None] | None:
        """Called when serving ends: override it to release what `__init__` acquired."""
        return None

    def __enter__(self) -> Self:
        if is_async(self.close):
            raise DefinitionError(f"{type(self).__name__}.close is async: expected `async with`, got `with`")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await maybe_await(self.close())


def _describe(
    executor: Executor,
    metas: Mapping[str, Any] | None = None,
    runtime_args: Mapping[str, Any] | None = None,
    workspace: str | None = None,
    requests: Mapping[str, str] | None = None,
) -> None:
    """Sets an Executor's attributes before its `__init__` runs, which may use them."""
    defaults = {"name": type(executor).__name__, "description": "", "workspace": None, "py_modules": None}
    executor.metas = SimpleNamespace(**{**defaults, **(metas or {})})
    executor.runtime_args = SimpleNamespace(**(runtime_args or {}))
    executor._workspace, executor._requests = workspace, requests or {}
    if provider := getattr(executor.runtime_args, "tracer_provider", None):
        executor.tracer_provider, executor.tracer = provider, provider.get_tracer(executor.metas.name)


#: The arguments of `__init__` besides a user's own options.
_FACTS = ("metas", "requests", "runtime_args", "workspace", "dynamic_batching")


def make(
    cls: type[Executor],
    uses_with: Mapping[str, Any],
    *,
    metas: Mapping[str, Any] | None = None,
    requests: Mapping[str, str] | None = None,
    runtime_args: Mapping[str, Any] | None = None,
    workspace: str | None = None,
    load_lock: LoadLock | None = None,
) -> Executor:
    """Creates an Executor as Jina does: its attributes are set before `__init__`, which may take them.

    Without a `load_lock` it waits for one itself.

    Raises:
        DefinitionError: `requests` names an unknown method. Any exception of `__init__`.
    """
    facts: dict[str, Any] = {"metas": metas, "runtime_args": runtime_args, "workspace": workspace, "requests": requests}
    executor = cls.__new__(cls, **uses_with)
    _describe(executor, **facts)
    takes_all = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(cls.__init__).parameters.values())
    with load_lock or LoadLock():
        loading: Any = cls.__init__(executor, **(facts if takes_all else {}), **uses_with)
    if takes_all:  # arguments that did not reach the base `__init__` either
        warn_of_unknown(cls, uses_with, base=Executor, near_only=True)
    if loading is not None:
        if inspect.iscoroutine(loading):
            loading.close()
        raise DefinitionError(f"{cls.__name__}.__init__ returned {safe_repr(loading)}; expected None")
    return executor


def _kept(value: Any) -> Any:
    """Plain data as it is; of any other value only the type, so that no model is kept alive by its option."""
    return value if value is None or isinstance(value, str | int | float | bool | list | dict) else type(value)


def bind(cls: type[Executor], uses_requests: Mapping[str, str] | None = None) -> Mapping[str, Method]:
    """The endpoints of a class after `uses_requests`, which moves a method from its endpoints to a new one.

    Raises:
        DefinitionError: an unknown method, or an endpoint that cannot be served.
    """
    methods = dict(cls._answers)
    for name, attribute in (uses_requests or {}).items():
        endpoint = checked_name(name, f"uses_requests of {cls.__name__}")
        before = [key for key, method in cls._answers.items() if method.attribute == attribute]
        if before:
            method = cls._answers[before[0]].on(endpoint)
        elif callable(getattr(cls, attribute, None)):
            method = method_of(cls, attribute, endpoint, local_names={})
        else:
            known = ", ".join(sorted({method.attribute for method in cls._answers.values()})) or "none"
            raise DefinitionError(
                f"uses_requests names {cls.__name__}.{attribute}, which is not a method; known: {known}"
            )
        for key in before:
            if methods.get(key, method).attribute == attribute and key not in (uses_requests or {}):
                methods.pop(key, None)
        methods[endpoint] = method
    return methods


def _check_life(cls: type[Executor]) -> None:
    """Rejects lifecycle methods that would never run as they are written."""
    if is_async(cls.__init__):
        raise DefinitionError(
            f"{cls.__name__}.__init__ is async, which Python does not await; expected `def __init__`, and"
            " `async def warmup(self)` for code that must be awaited before the first call"
        )
    for name in ("__init__", "warmup", "health", "close"):
        if is_generator(getattr(cls, name)) and recorded(getattr(cls, name)) is None:
            raise DefinitionError(f"{cls.__name__}.{name} yields, so its body would not run; expected no `yield`")


def _methods(cls: type[Executor], local_names: Mapping[str, Any]) -> Mapping[str, Method]:
    found: dict[str, Method] = {}
    for owner in reversed(cls.__mro__):
        seen: dict[str, str] = {}
        for attribute, value in vars(owner).items():
            record = recorded(value)
            if record is None or getattr(cls, attribute) is None:  # a subclass removes a method by setting it to None
                continue
            for name in record.names:
                endpoint = checked_name(name, f"{owner.__name__}.{attribute}")
                if seen.get(endpoint, attribute) != attribute:
                    _doubled(
                        f"{owner.__name__}.{attribute} and {owner.__name__}.{seen[endpoint]} both answer {endpoint};"
                        " give one of them another `on`"
                    )
                seen[endpoint] = attribute
                found[endpoint] = method_of(
                    cls,
                    attribute,
                    endpoint,
                    local_names=local_names,
                    idempotent=record.idempotent,
                    request_schema=record.request_schema,
                    response_schema=record.response_schema,
                )
    return found


def _doubled(mistake: str) -> None:
    """Reports that two methods answer one endpoint; in a program written for Jina the later one wins, as there.

    Raises:
        DefinitionError: in any other program.
    """
    if not as_jina():
        raise DefinitionError(mistake)
    logger.warning("%s; as in Jina, the later one answers", mistake)


def _names_around(module: str) -> Mapping[str, Any]:
    """The local names around a class statement, so that string annotations find classes defined in functions."""
    names: dict[str, Any] = {}
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_globals.get("__name__") == module and frame.f_locals is not frame.f_globals:
            names = {**frame.f_locals, **names}
        frame = frame.f_back
    return names
