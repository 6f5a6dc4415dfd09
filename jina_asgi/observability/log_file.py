"""The YAML that `log_config` names. Imports PyYAML."""

from __future__ import annotations

import logging
import logging.config
import logging.handlers
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from jina_asgi.errors import DefinitionError
from jina_asgi.observability.logs import PLAIN, CallFilter, JsonFormatter, LineHandler, level_of


def apply_file(path: Path) -> int:
    """Applies a YAML: that of `logging.config.dictConfig` if it has a `version`, else Jina's; returns the level of `jina_asgi`, 0 without one.

    Raises:
        DefinitionError: it cannot be read, or has mistakes.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(found, Mapping):
            raise TypeError("expected a mapping")
        if "version" in found:
            logging.config.dictConfig({"disable_existing_loggers": False, **found})
            return 0
        level, configs = level_of(found.get("level")), found.get("configs") or {}
        for handler in [_handler(name, dict(configs.get(name) or {})) for name in found.get("handlers") or ()]:
            logging.getLogger().addHandler(handler)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError, yaml.YAMLError) as error:
        raise DefinitionError(f"log_config={str(path)!r}: {error}") from error
    return level


_FILES: Mapping[str, Callable[..., logging.Handler]] = {
    "FileHandler": logging.FileHandler,
    "RotatingFileHandler": logging.handlers.RotatingFileHandler,
    "TimedRotatingFileHandler": logging.handlers.TimedRotatingFileHandler,
}


def _handler(name: str, options: dict[str, Any]) -> logging.Handler:
    """A handler of Jina's YAML."""
    level, text = options.pop("level", None), options.pop("format", None)
    is_json = options.pop("formatter", "") == "JsonFormatter"
    handler: logging.Handler
    if name in ("StreamHandler", "RichHandler"):
        handler = LineHandler("json" if is_json else "" if text else "default")
    elif name in _FILES:
        file = Path(str(options.pop("output")).replace("{name}", "jina_asgi"))
        handler = _FILES[name](file, delay=True, **options)
    elif name == "SysLogHandler":
        host, port = options.get("host"), options.get("port")
        handler = logging.handlers.SysLogHandler((host, port) if host and port else "/dev/log")
        handler.ident = options.get("ident", "")
    else:
        raise ValueError(f"{name!r}: expected StreamHandler, RichHandler, SysLogHandler, {', '.join(_FILES)}")
    if not isinstance(handler, LineHandler):
        handler.addFilter(CallFilter())
        handler.setFormatter(JsonFormatter() if is_json else logging.Formatter(PLAIN))
    if text and not is_json:
        text = str(text).replace("{name}", "%(name)s")
        handler.setFormatter(logging.Formatter(text, style="%" if "%(" in text else "{"))
    handler.setLevel(level_of(level))
    return handler
