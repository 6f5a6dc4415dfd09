"""The logging of processes that work for an application: its configuration is passed on, and their output is forwarded line by line.

Passes the application's logging configuration (levels and format) on to the processes that work for it.

If the application has configured nothing, those processes configure nothing either, so that an Executor's module may.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys

import msgspec

from jina_asgi.observability.logs import (
    LONGEST_LINE,
    CallFilter,
    JsonFormatter,
    LineHandler,
    WithoutTracebacks,
    printed_line,
)

_DEFAULT = "%(levelname)s %(name)s: %(message)s"
_STYLES = {logging.PercentStyle: "%", logging.StrFormatStyle: "{", logging.StringTemplateStyle: "$"}
_MOST = 1000  # the most loggers whose own levels are passed on
_ours: list[logging.Handler] = []


class LogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A logging configuration.

    Attributes:
        is_set: whether the root logger has handlers.
        least: the least level of all its handlers.
        levels: those of single loggers.
        kind: of a handler with a format of this library's: "default", "plain" or "json"; else "".
        is_quiet: the handlers of this library's own logger write nothing.
        mark: begins each line of JSON of a replica, so that no text which its code prints can pass for one.
    """

    is_set: bool = False
    level: int = logging.WARNING
    least: int = logging.WARNING
    disabled: int = 0
    levels: dict[str, int] = {}
    format: str = _DEFAULT
    dates: str | None = None
    style: str = "%"
    kind: str = ""
    is_quiet: bool = False
    without_tracebacks: bool = False
    mark: str = ""

    @classmethod
    def current(cls) -> LogConfig:
        """Reads the configuration of this process."""
        root, ours = logging.getLogger(), logging.getLogger("jina_asgi")
        known = [one for one in list(root.manager.loggerDict.values()) if isinstance(one, logging.Logger)]
        levels = {one.name: one.level for one in known if one.level}
        text, dates, style = next(filter(None, map(_format_of, root.handlers)), (_DEFAULT, None, "%"))
        kind = next(filter(None, map(_kind_of, (*root.handlers, *ours.handlers))), "")
        return cls(
            is_set=bool(root.handlers or kind),
            level=root.level,
            least=min((handler.level for handler in root.handlers), default=logging.WARNING),
            disabled=root.manager.disable,
            levels=dict(list(levels.items())[:_MOST]),
            format=text,
            dates=dates,
            style=style,
            kind=kind,
            is_quiet=any(type(handler) is logging.NullHandler for handler in ours.handlers),
            without_tracebacks=any(isinstance(found, WithoutTracebacks) for found in ours.filters),
        )

    @property
    def is_json(self) -> bool:
        """Whether each line is a JSON object."""
        return self.kind == "json"

    def apply(self, prefix: str = "") -> None:
        """Applies the configuration to this process, with output to standard error; lines of JSON have `mark` as their prefix."""
        root, ours = logging.getLogger(), logging.getLogger("jina_asgi")
        handler = LineHandler(self.kind, self.mark if self.is_json else prefix)
        if not self.kind:
            handler.setFormatter(logging.Formatter(self.format, self.dates, self.style))  # type: ignore[arg-type]  # one of three
        handler.setLevel(self.least)
        while _ours:
            root.removeHandler(_ours.pop())
        if self.is_quiet and not ours.handlers:
            ours.addHandler(logging.NullHandler())
        if self.without_tracebacks and not ours.filters:
            ours.addFilter(WithoutTracebacks())
        if self.is_set:
            root.addHandler(handler)
            _ours.append(handler)
        else:
            logging.lastResort = handler
        root.setLevel(self.level)
        for name, level in self.levels.items():
            logging.getLogger(name).setLevel(level)
        logging.disable(self.disabled)


def _kind_of(handler: logging.Handler) -> str:
    """Whether a handler writes in a format of this library's, and in which."""
    if isinstance(handler.formatter, JsonFormatter):
        return "json"
    return handler.kind if isinstance(handler, LineHandler) else ""


def _format_of(handler: logging.Handler) -> tuple[str, str | None, str] | None:
    """The format of a handler: format, date format and style; None if another process cannot use it.

    A formatter class of the application's own, and fields that its filters add, do not exist in another process.
    """
    formatter = handler.formatter
    if type(formatter) is not logging.Formatter or formatter._fmt is None:
        return None
    style = _STYLES.get(type(formatter._style))
    if style is None:
        return None
    plain = logging.makeLogRecord({})
    CallFilter().filter(plain)
    try:
        logging.Formatter(formatter._fmt, formatter.datefmt, style).format(plain)  # type: ignore[arg-type]  # one of three
    except ValueError:  # it has a field that plain records do not have
        return None
    return formatter._fmt, formatter.datefmt, style


_LONGEST = 8192  # bytes, after which a line is broken in two
_MAY_NEED_ESCAPE = re.compile(r"[^\t -~]+")  # characters that may have to be escaped


class Output(asyncio.Protocol):
    """Reads the output of one process until its end.

    Args:
        name: the replica's, which begins each line.
        mark: begins its lines of JSON, if it logs JSON; any other line is then made one.
    """

    def __init__(self, name: str, mark: str = "") -> None:
        self._name, self._mark, self._rest = name, mark.encode(), b""
        self.ended = asyncio.Event()
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    @property
    def is_connected(self) -> bool:
        """Whether reading has started, even if it has ended since."""
        return self._transport is not None

    def close(self) -> None:
        """Stops reading."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        longest = 2 * LONGEST_LINE if self._mark and self._rest.startswith(self._mark) else _LONGEST
        while len(self._rest) > longest:
            lines.append(self._rest[:longest])
            self._rest = self._rest[longest:]
        self._write(lines)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._rest:
            self._write([self._rest])
        self.ended.set()

    def _write(self, lines: list[bytes]) -> None:
        text = "".join(f"{self._written(line)}\n" for line in lines)
        if text and sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()

    def _written(self, line: bytes) -> str:
        if not self._mark:
            return f"[{self._name}] {_printable(line)}"
        if line.startswith(self._mark):
            return line[len(self._mark) :].decode("ascii", "backslashreplace")
        deployment, _, replica = self._name.rpartition("/rep-")
        return printed_line(_printable(line), deployment, int(replica))


def _printable(line: bytes) -> str:
    """Decodes a line and escapes control characters, which could forge or hide other lines."""
    return _MAY_NEED_ESCAPE.sub(_escaped, line.rstrip(b"\r").decode(errors="surrogateescape"))


def _escaped(found: re.Match[str]) -> str:
    return found[0].translate(_ESCAPES)


class _Escapes(dict[int, str]):
    """What is written for a character, by its code; remembered for those that came first."""

    def __missing__(self, code: int) -> str:
        if _BYTES <= code < _BYTES + 256:
            written = f"\\x{code - _BYTES:02x}"
        else:
            written = chr(code) if chr(code).isprintable() else chr(code).encode("unicode_escape").decode()
        if len(self) < _REMEMBERED:
            self[code] = written
        return written


_BYTES = 0xDC00  # added to a byte that is no UTF-8
_REMEMBERED = 2**12
_ESCAPES = _Escapes()
