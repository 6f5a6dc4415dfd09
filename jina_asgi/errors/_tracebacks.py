"""The traceback of what was raised in another process, as text: for the log of the one that tells a client. Pure."""

from __future__ import annotations

import traceback

from jina_asgi.errors._raised import loggable

#: The longest that is carried, in characters; of a longer one the end, where it was raised.
TRACE_LIMIT = 1 << 13


class Elsewhere(Exception):
    """The cause of an error that came from another process: its traceback there."""


def trace_of(error: BaseException) -> str:
    """What is to be told of the cause of an error; nothing where it has none."""
    cause = error.__cause__
    if cause is None:
        return ""
    text: str = cause.args[0] if type(cause) is Elsewhere else "".join(traceback.format_exception(loggable(cause)))
    text = text if len(text) <= TRACE_LIMIT else f"... {text[4 - TRACE_LIMIT :]}"
    return text.encode(errors="backslashreplace").decode()  # half of a surrogate pair cannot be sent


def traced(trace: str) -> Elsewhere | None:
    """The cause that such a text stands for."""
    return Elsewhere(trace) if trace else None
