"""When a failed request is asked again, and after how long. Pure: the drawing of a number is an argument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jina_asgi.errors import JinaASGIError, ReplicaDied


@dataclass(frozen=True, slots=True)
class Retries:
    """Jina's options: attempts in all, and seconds."""

    max_attempts: int = 1
    initial_backoff: float = 0.5
    max_backoff: float = 2.0
    backoff_multiplier: float = 1.5

    def wait(self, attempt: int, error: JinaASGIError, draw: Callable[[float, float], float]) -> float:
        """Seconds after attempt number `attempt` (from 1): as Jina counts, or when the server says to come back.

        The first wait is `initial_backoff`; the n-th is drawn from 0 to what has grown by the multiplier. None is
        longer than `max_backoff`.
        """
        grown = self.initial_backoff * self.backoff_multiplier ** (attempt - 1)
        wait = self.initial_backoff if attempt == 1 else draw(0.0, min(grown, self.max_backoff))
        asked: float = getattr(error, "retry_after", 0.0) if error.status == 503 else 0.0
        return min(max(wait, asked), self.max_backoff)


def may_repeat(error: JinaASGIError, *, idempotent: bool) -> bool:
    """Whether asking again does nothing twice: nothing ran, or the endpoint says that this does not matter."""
    return error.retriable and (idempotent or not isinstance(error, ReplicaDied))
