"""Carries a traceback from another process as text, for this process's log. Pure."""

from __future__ import annotations

import traceback

from jina_asgi.errors._raised import loggable

#: The longest traceback in characters; of a longer one only the end, where the error was raised, is kept.
TRACE_LIMIT = 1 << 13


class RemoteTraceback(Exception):
    """The traceback of an error in another process, as its cause here."""


def cause_traceback(error: BaseException) -> str:
    """Return the traceback of an error's cause as text; '' if it has no cause."""
    cause = error.__cause__
    if cause is None:
        return ""
    text: str = (
        cause.args[0] if type(cause) is RemoteTraceback else "".join(traceback.format_exception(loggable(cause)))
    )
    text = text if len(text) <= TRACE_LIMIT else f"... {text[4 - TRACE_LIMIT :]}"
    return text.encode(errors="backslashreplace").decode()  # a lone surrogate cannot be sent


def remote_cause(trace: str) -> RemoteTraceback | None:
    """Return the cause that a traceback's text stands for; None for ''."""
    return RemoteTraceback(trace) if trace else None
