"""Why something could not be loaded, as others may know it: a client need not be one whom the reason is meant for."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Self

from jina_asgi.errors import DefinitionError
from jina_asgi.errors._raised import class_of, described, is_ours, loggable

logger = logging.getLogger("jina_asgi")

#: Errors of code, or of how it is installed, which the next try meets as well.
_BROKEN_CODE = frozenset({"ImportError", "IndentationError", "ModuleNotFoundError", "SyntaxError", "TabError"})


def is_permanent(error: BaseException) -> bool:
    """Whether loading again mends nothing: a class, an option, or the code itself is wrong."""
    return isinstance(error, DefinitionError) or class_of(error) in {*_BROKEN_CODE, DefinitionError.__name__}


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of loading, and the id under which the log has it; as text it says no more than its class and that id."""

    error: BaseException
    id: str

    @classmethod
    def logged(cls, error: BaseException, what: str, *, before: Self | None = None) -> Self:
        """The failure of an error, written to the log with what comes of it: with its traceback, where that says more.

        The same error as that of the failure `before` keeps its id, and is one line.
        """
        if before is not None and described(before.error) == described(error):
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
        return f"({class_of(self.error)}); the log has the cause under error {self.id}"

    def status(self) -> dict[str, str]:
        """As `/-/status` has it."""
        return {"type": class_of(self.error), "id": self.id}
