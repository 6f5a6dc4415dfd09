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

_DEFAULT = "%(levelname)s %(name)s: %(message)s"
_STYLES = {logging.PercentStyle: "%", logging.StrFormatStyle: "{", logging.StringTemplateStyle: "$"}
_MOST = 1000  # the most loggers whose own levels are passed on
_ours: list[logging.Handler] = []


class LogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A logging configuration: `levels` of single loggers, `least` of all handlers; `is_set` if there are handlers."""

    is_set: bool = False
    level: int = logging.WARNING
    least: int = logging.WARNING
    disabled: int = 0
    levels: dict[str, int] = {}
    format: str = _DEFAULT
    dates: str | None = None
    style: str = "%"

    @classmethod
    def current(cls) -> LogConfig:
        """Reads the configuration of this process."""
        root = logging.getLogger()
        known = [one for one in list(root.manager.loggerDict.values()) if isinstance(one, logging.Logger)]
        levels = {one.name: one.level for one in known if one.level}
        text, dates, style = next(filter(None, map(_format_of, root.handlers)), (_DEFAULT, None, "%"))
        return cls(
            is_set=bool(root.handlers),
            level=root.level,
            least=min((handler.level for handler in root.handlers), default=logging.WARNING),
            disabled=root.manager.disable,
            levels=dict(list(levels.items())[:_MOST]),
            format=text,
            dates=dates,
            style=style,
        )

    def apply(self, prefix: str = "") -> None:
        """Applies the configuration to this process, with output to standard error."""
        root = logging.getLogger()
        handler = _Prefixed(prefix)
        handler.setFormatter(logging.Formatter(self.format, self.dates, self.style))  # type: ignore[arg-type]  # one of three
        handler.setLevel(self.least)
        while _ours:
            root.removeHandler(_ours.pop())
        if self.is_set:
            root.addHandler(handler)
            _ours.append(handler)
        else:
            logging.lastResort = handler
        root.setLevel(self.level)
        for name, level in self.levels.items():
            logging.getLogger(name).setLevel(level)
        logging.disable(self.disabled)


class _Prefixed(logging.StreamHandler):  # type: ignore[type-arg]  # of standard error
    """Writes a prefix before each record."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self._prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        return self._prefix + super().format(record)


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
    try:
        logging.Formatter(formatter._fmt, formatter.datefmt, style).format(logging.makeLogRecord({}))  # type: ignore[arg-type]  # one of three
    except ValueError:  # it has a field that plain records do not have
        return None
    return formatter._fmt, formatter.datefmt, style


_LONGEST = 8192  # bytes, after which a line is broken in two
_MAY_NEED_ESCAPE = re.compile(r"[^\t -~]+")  # characters that may have to be escaped


class Output(asyncio.Protocol):
    """Reads the output of one process until its end."""

    def __init__(self, name: str) -> None:
        self._name, self._rest = name, b""
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
        while len(self._rest) > _LONGEST:
            lines.append(self._rest[:_LONGEST])
            self._rest = self._rest[_LONGEST:]
        self._write(lines)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._rest:
            self._write([self._rest])
        self.ended.set()

    def _write(self, lines: list[bytes]) -> None:
        text = "".join(f"[{self._name}] {_printable(line)}\n" for line in lines)
        if text and sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()


def _printable(line: bytes) -> str:
    """Decodes a line and escapes control characters, which could forge or hide other lines."""
    return _MAY_NEED_ESCAPE.sub(_escaped, line.rstrip(b"\r").decode(errors="backslashreplace"))


def _escaped(found: re.Match[str]) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in found[0])
