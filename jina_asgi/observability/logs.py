"""Log lines with the process and the request that they belong to, as text or as one JSON object each.

Nothing is configured here. `CallFilter` and `JsonFormatter` are also for an application's own handlers, by
`logging.config`: `{"()": "jina_asgi.observability.logs.JsonFormatter"}`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jina_asgi.errors import DefinitionError
from jina_asgi.errors._shown import safe_repr
from jina_asgi.observability.current_call import CURRENT, WATCH
from jina_asgi.types import Context

#: The format of text: `of_request` is " [id]" while a request runs, else "".
PLAIN = "%(asctime)s %(levelname)s %(name)s%(of_request)s: %(message)s"
#: The most characters of a line of JSON.
LONGEST_LINE = 1 << 17
_LONGEST_TEXT = 8192  # characters of a message, and of a traceback
_LONGEST_FIELD = 1024
_MOST_REQUESTS = 256  # of a batch, that a line names
_TRACE_PARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}.*")


@dataclass(slots=True)
class Process:
    """What this process is: "worker" (a web worker, or any program), "pool" (the pool host) or "replica"."""

    kind: str = "worker"
    deployment: str = ""
    replica: int | None = None


PROCESS = Process()


class CallFilter(logging.Filter):
    """Adds to each record, for a handler's format: `request_id` ("" outside of a request; those of a batch joined by commas),
    `trace_id`, `span_id`, `deployment`, `replica`, `process_kind`, and `of_request`.
    """

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        WATCH.on = True

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every record."""
        known: Any = record
        context, deployment = CURRENT.get() or (None, "")
        known.request_id = "" if context is None else _request_id(context)
        known.trace_id, known.span_id = _trace_of(context)
        known.deployment = deployment or PROCESS.deployment
        known.replica, known.process_kind = PROCESS.replica, PROCESS.kind
        known.of_request = f" [{known.request_id}]" if known.request_id else ""
        return True


def _request_id(context: Context) -> str:
    """The id of a request, or those of a batch that has begun."""
    if not context.request_ids:
        return context.request_id
    named, more = context.request_ids[:_MOST_REQUESTS], len(context.request_ids) - _MOST_REQUESTS
    return ",".join(named) + (f",+{more}" if more > 0 else "")


def _trace_of(context: Context | None) -> tuple[str, str]:
    """The ids of the trace and the span: of the current span, else those that the caller sent."""
    api: Any = sys.modules.get("opentelemetry.trace")
    current = getattr(api, "get_current_span", None)  # None while it is being imported
    if current is not None:
        span = current().get_span_context()
        if span.is_valid:
            return f"{span.trace_id:032x}", f"{span.span_id:016x}"
    sent = "" if context is None else context.headers.get("traceparent", "")
    found = _TRACE_PARENT.fullmatch(sent)
    return (found[1], found[2]) if found else ("", "")


_SUCCESS = 25  # a level of Jina's own
_adding = CallFilter()
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
_OURS = {"request_id", "trace_id", "span_id", "deployment", "replica", "process_kind", "of_request"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII: time, level, logger, message, process, pid; where they are known deployment, replica,
    request_id, trace_id, span_id, error (its type) and traceback; and the fields of `extra=`.
    """

    def format(self, record: logging.LogRecord) -> str:
        if not hasattr(record, "process_kind"):
            _adding.filter(record)
        known: Any = record
        fields: dict[str, Any] = {
            **_head(record.levelname, record.name, record.getMessage(), record.created),
            "process": known.process_kind,
            "pid": record.process,
            "deployment": known.deployment,
            "replica": known.replica,
            "request_id": known.request_id,
            "trace_id": known.trace_id,
            "span_id": known.span_id,
        }
        if record.exc_info and record.exc_info[0] is not None:
            fields["error"] = record.exc_info[0].__name__
            fields["traceback"] = (record.exc_text or self.formatException(record.exc_info))[-_LONGEST_TEXT:]
        if record.stack_info:
            fields["stack"] = record.stack_info[-_LONGEST_TEXT:]
        known_names = _STANDARD | _OURS | fields.keys()
        extra = {name: _plain(value) for name, value in vars(record).items() if name not in known_names}
        line = _line({**fields, **extra})
        return line if len(line) <= LONGEST_LINE else _line(fields)


def printed_line(text: str, deployment: str, replica: int) -> str:
    """A line that a replica's code printed, as JSON."""
    fields = {"process": "replica", "deployment": deployment, "replica": replica}
    return _line({**_head("INFO", "print", text, datetime.now(UTC).timestamp()), **fields})


def _head(level: str, logger: str, message: str, created: float) -> dict[str, Any]:
    time = datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds")
    return {"time": time, "level": level, "logger": logger, "message": message[:_LONGEST_TEXT]}


def _line(fields: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in fields.items() if value is not None and value != ""})


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    return (value if type(value) is str else safe_repr(value))[:_LONGEST_FIELD]


class LineHandler(logging.StreamHandler):  # type: ignore[type-arg]  # of standard error
    """Writes lines to standard error, each after a prefix.

    Args:
        kind: "default" (with colours at a terminal), "plain" or "json"; "" if the format is set later.
        prefix: written before each line.
    """

    def __init__(self, kind: str, prefix: str = "") -> None:
        super().__init__()
        self.kind, self._prefix = kind, prefix
        self.setFormatter(JsonFormatter() if kind == "json" else logging.Formatter(PLAIN))
        self.addFilter(CallFilter())

    def format(self, record: logging.LogRecord) -> str:
        line = self._prefix + super().format(record)
        if self.kind == "default" and self._has_colours():
            return next((f"{colour}{line}\033[0m" for least, colour in _COLOURS if record.levelno >= least), line)
        return line

    def _has_colours(self) -> bool:
        return self.stream.isatty() and not os.environ.keys() & {"NO_COLOR", "JINA_LOG_NO_COLOR"}


_COLOURS = ((logging.ERROR, "\033[31m"), (logging.WARNING, "\033[33m"))


class WithoutTracebacks(logging.Filter):
    """Drops the tracebacks of a logger's own records; its messages still name the errors."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every record."""
        record.exc_info = record.exc_text = None
        return True


def level_of(name: Any) -> int:
    """The level of a name; 0 without one.

    Raises:
        DefinitionError: it is unknown.
    """
    if not name:
        return 0
    known = {**logging.getLevelNamesMapping(), "SUCCESS": _SUCCESS}
    try:
        return known[str(name).upper()]
    except KeyError:
        raise DefinitionError(f"the level of the log {name!r}: expected one of {', '.join(known)}") from None
