"""Passes the application's logging configuration (levels and format) on to the processes that work for it.

If the application has configured nothing, those processes configure nothing either, so that an Executor's module may.
"""

from __future__ import annotations

import logging

import msgspec

__all__ = ["LogConfig"]

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
