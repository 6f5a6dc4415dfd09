"""Why something could not be loaded, as others may know it: a client need not be one whom the reason is meant for."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Self

from jina_asgi._raised import class_of, is_ours, loggable

logger = logging.getLogger("jina_asgi")


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of loading, and the id under which the log has it; as text it says no more than its class and that id."""

    error: BaseException
    id: str

    @classmethod
    def logged(cls, error: BaseException, what: str) -> Self:
        """The failure of an error, written to the log with what comes of it: with its traceback, where that says more."""
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
