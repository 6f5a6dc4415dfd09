"""The options of the log: `log_config`, `quiet`, `quiet_error` and Jina's environment variables.

They are applied when serving begins, and only where the application has configured neither the root logger nor
`jina_asgi`: no handler or level that it has set is changed.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from jina_asgi.errors import DefinitionError
from jina_asgi.observability.logs import LineHandler, WithoutTracebacks, level_of
from jina_asgi.settings import ServingSettings
from jina_asgi.settings.serving import known_log_config

logger = logging.getLogger("jina_asgi")
#: The logger of the access lines.
access = logging.getLogger("jina_asgi.access")

CONFIG, LEVEL = "JINA_LOG_CONFIG", "JINA_LOG_LEVEL"

_lock = threading.Lock()
_ours: list[logging.Handler] = []
_levels = {logging.NOTSET}  # of `jina_asgi`, as Python or this module has set it


def configure(settings: ServingSettings, *, with_access: bool = False) -> None:
    """Applies the options to this process, in place of those applied before; without any, nothing is changed.

    With access lines and no other choice the log is as with "default", so that they are seen.

    Raises:
        DefinitionError: a file that cannot be read, or has mistakes; an unknown level.
    """
    with _lock:
        if settings.quiet_error and not any(isinstance(found, WithoutTracebacks) for found in logger.filters):
            logger.addFilter(WithoutTracebacks())
        if with_access and access.level == logging.NOTSET:
            access.setLevel(logging.INFO)
        level = level_of(os.environ.get(LEVEL))
        chosen = _chosen(settings)
        if chosen is None and (level or with_access):
            chosen = "default"
        if chosen is None:
            return
        if any(handler not in _ours for handler in _handlers()):
            logger.debug("the application has configured logging: log_config=%r is not applied", chosen)
            return
        _apply(chosen, level)


def _chosen(settings: ServingSettings) -> str | None:
    """One of the named configurations or the path of a YAML, by the environment first; None: neither says so."""
    if settings.quiet:
        return "quiet"
    try:
        return known_log_config(os.environ.get(CONFIG) or settings.log_config)
    except ValueError as error:
        raise DefinitionError(f"{CONFIG}={os.environ[CONFIG]!r}: {error}") from None


def _apply(chosen: str, level: int) -> None:
    root = logging.getLogger()
    for handler in _ours:
        root.removeHandler(handler)
        logger.removeHandler(handler)
    if chosen == "quiet":
        logger.addHandler(logging.NullHandler())
    elif chosen.endswith((".yml", ".yaml")):
        from jina_asgi.observability.log_file import apply_file  # with PyYAML

        of_file = apply_file(Path(chosen))
        level = level or of_file
    else:
        root.addHandler(LineHandler(chosen))
        level = level or logging.INFO
    _ours[:] = _handlers()
    if level and logger.level in _levels:
        logger.setLevel(level)
        _levels.add(level)


def _handlers() -> list[logging.Handler]:
    return [*logging.getLogger().handlers, *logger.handlers]
