"""Describes a failed load for clients: the class and an error id, while the log has the reason."""

from __future__ import annotations

import logging
import os
import traceback
from dataclasses import dataclass
from typing import Self

from jina_asgi.errors import DefinitionError
from jina_asgi.errors._raised import error_text, is_ours, loggable, raised_class

logger = logging.getLogger("jina_asgi")

#: Errors of the code or its installation, which a retry meets as well.
_BROKEN_CODE = frozenset({"ImportError", "IndentationError", "ModuleNotFoundError", "SyntaxError", "TabError"})


def is_permanent(error: BaseException) -> bool:
    """Whether a retry cannot succeed: a class, an option, or the code itself is wrong."""
    return isinstance(error, DefinitionError) or raised_class(error) in {*_BROKEN_CODE, DefinitionError.__name__}


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """A load error and its id in the log; its text has only the class and the id."""

    error: BaseException
    id: str

    @classmethod
    def logged(cls, error: BaseException, what: str, *, before: Self | None = None) -> Self:
        """Log an error with the consequence `what`, and its traceback if useful; return the failure.

        An error equal to that of `before` keeps its id and is logged in one line.
        """
        if before is not None and error_text(before.error) == error_text(error):
            made = cls(error, before.id)
            logger.error("error %s again: %s", made.id, what)
            return made
        made = cls(error, os.urandom(8).hex())
        if is_ours(error) and error.__cause__ is None:
            logger.error("error %s: %s: %s", made.id, what, error)
        else:
            logger.error("error %s: %s", made.id, what, exc_info=loggable(error))
        return made

    def __str__(self) -> str:
        return f"({raised_class(self.error)}); the log has the cause under error {self.id}"

    def status(self) -> dict[str, str]:
        """Return the failure for `/-/status`."""
        return {"type": raised_class(self.error), "id": self.id}


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
