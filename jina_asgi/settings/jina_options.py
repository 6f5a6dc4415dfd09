"""Jina's options that have no effect here, each with the reason; they are accepted, and logged once.

Options that have an effect are in `settings`; any other is an error, except in a program written for Jina.
"""

from __future__ import annotations

import difflib
import logging
import math
import sys
from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any, Self

_MARK = "__jina_asgi__"


def mark(module: ModuleType) -> None:
    """Marks a module `jina` as this library."""
    setattr(module, _MARK, True)


def as_jina() -> bool:
    """Whether this process runs a program written for Jina."""
    return getattr(sys.modules.get("jina"), _MARK, False)


def logger_of(name: str) -> Any:
    """A logger below this library's; in a program written for Jina it has Jina's `success` too."""
    if not as_jina():
        return logging.getLogger(f"jina_asgi.{name}")

    return JinaLogger(name)


class JinaLogger(logging.LoggerAdapter[logging.Logger]):
    """`logging.getLogger("jina_asgi.<context>")`. The program configures its output, with `logging`.

    Args:
        context: the name of the component that logs.
        name: the prefix of each message.
        _: Jina's options, which concern handlers.
    """

    def __init__(self, context: str, name: str | None = None, **_: Any) -> None:
        super().__init__(logging.getLogger(f"jina_asgi.{context}"), {})
        self._prefix = f"{name}: " if name else ""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        return f"{self._prefix}{msg}" if self._prefix else msg, kwargs

    def success(self, message: str, *arguments: Any, **options: Any) -> None:
        """As `info`."""
        self.info(message, *arguments, **options)

    @property
    def handlers(self) -> list[logging.Handler]:
        """The handlers of the underlying logger."""
        return self.logger.handlers

    def close(self) -> None:
        """Does nothing: there is nothing to close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


default_logger = JinaLogger("jina")


logger = logging.getLogger("jina_asgi")

_IMAGES = "containers are started outside of the application, not by it"
_HUB = "a hub is not part of this version"
_FIGURES = "metrics are read by Prometheus, with the option `metrics`"
_STATE = "replicated state is not offered: keep state in a database"
_CLOUDS = "no cloud's own protocol is served"
_INNER = "there is no process between a client and the Executors that would need it"

#: Options of a Deployment, of `Flow.add` and of a Flow.
CHANGES_NOTHING: Mapping[str, str] = {
    **dict.fromkeys(
        ("disable_auto_volume", "docker_kwargs", "entrypoint", "gpus", "volumes", "force_network_mode", "native"),
        _IMAGES,
    ),
    **dict.fromkeys(("env_from_secret", "image_pull_secrets"), "it matters to an export to Kubernetes alone"),
    **dict.fromkeys(("force_update", "install_requirements", "prefer_platform"), _HUB),
    **dict.fromkeys(("metrics_exporter_host", "metrics_exporter_port"), _FIGURES),
    **dict.fromkeys(("stateful", "raft_configuration", "peer_ports"), _STATE),
    **dict.fromkeys(("provider", "provider_endpoint"), _CLOUDS),
    **dict.fromkeys(
        ("connection_list", "timeout_ctrl", "retries", "prefetch", "include_gateway", "runtime_cls", "pod_role"), _INNER
    ),
    **dict.fromkeys(("uses_before_address", "uses_after_address"), _INNER),
    "exit_on_exceptions": "a process that is no use any more is replaced; an Executor may end its own",
    "output_array_type": "documents have the types that their classes say, as with docarray's own from 0.30 on",
    "reload": "changed code is loaded by a server: uvicorn --reload, or HUP to gunicorn",
    "inspect": "what inspects is a floating node: it sees what another does, and no answer waits for it",
    "no_debug_endpoints": "there are none; management is under /-/",
    "no_crud_endpoints": "an Executor's own endpoints are all there are",
    "expose_endpoints": "every endpoint of an Executor is exposed",
    "expose_graphql_endpoint": "GraphQL is not offered, as in Jina with docarray 0.30 and later",
    "jcloud": "that cloud takes no new users, and nothing else reads it",
    "proxy": "it is a Client's",
    "reuse_session": "it is a Client's, which keeps its connections until close()",
}
#: Jina's other names of options.
ALIASES: Mapping[str, str] = {"disable_reduce": "no_reduce", "ports": "port", "protocols": "protocol"}

_logged: set[str] = set()


def translated(options: Mapping[str, Any], owner: str, known: Collection[str]) -> dict[str, Any]:
    """Translates Jina's names of options, and `timeout_ready` (milliseconds; -1: no limit); drops those without effect.

    In a program written for Jina, options that are not `known` are dropped too, with a warning in the log.
    """
    found = without_those_of_jina(options, owner)
    for name in found.keys() & ALIASES.keys():
        found.setdefault(ALIASES[name], found.pop(name))
    found = without_unknown(found, owner, {*known, "timeout_ready"})
    if "timeout_ready" in found:
        milliseconds = found.pop("timeout_ready")
        is_number = isinstance(milliseconds, int | float) and not isinstance(milliseconds, bool)
        found.setdefault(
            "startup_timeout", (math.inf if milliseconds < 0 else milliseconds / 1000) if is_number else milliseconds
        )
    return found


def without_those_of_jina(options: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Drops the options without effect, and logs once why each has none."""
    for name in options.keys() & CHANGES_NOTHING.keys():
        if name not in _logged and options[name] not in (None, False):  # Jina's defaults
            _logged.add(name)
            logger.warning("%s: the option %r changes nothing here: %s", owner, name, CHANGES_NOTHING[name])
    return {name: value for name, value in options.items() if name not in CHANGES_NOTHING}


def without_unknown(options: Mapping[str, Any], owner: str, known: Collection[str]) -> dict[str, Any]:
    """Drops unknown options in a program written for Jina, with a warning in the log; else keeps all options."""
    if not as_jina():
        return dict(options)
    for name in sorted(options.keys() - {*known}):
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        logger.warning("%s has no option %r, which is ignored, as in Jina%s", owner, name, hint)
    return {name: value for name, value in options.items() if name in known}
