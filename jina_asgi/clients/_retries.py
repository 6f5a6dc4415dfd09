"""Decides whether a failed request is retried, and after how long. Pure: random numbers come from an argument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jina_asgi.errors import JinaASGIError, ReplicaDied


@dataclass(frozen=True, slots=True)
class Retries:
    """Jina's retry options: the number of attempts, and delays in seconds."""

    max_attempts: int = 1
    initial_backoff: float = 0.5
    max_backoff: float = 2.0
    backoff_multiplier: float = 1.5

    def wait(self, attempt: int, error: JinaASGIError, draw: Callable[[float, float], float]) -> float:
        """The seconds to wait after attempt number `attempt` (from 1): as in Jina, or as the server's Retry-After says.

        The first delay is `initial_backoff`; the n-th is drawn from 0 to the delay grown by the multiplier. None is
        longer than `max_backoff`.
        """
        grown = self.initial_backoff * self.backoff_multiplier ** (attempt - 1)
        wait = self.initial_backoff if attempt == 1 else draw(0.0, min(grown, self.max_backoff))
        asked: float = getattr(error, "retry_after", 0.0) if error.status == 503 else 0.0
        return min(max(wait, asked), self.max_backoff)


def may_repeat(error: JinaASGIError, *, idempotent: bool) -> bool:
    """Whether a retry is safe: nothing ran, or the endpoint is idempotent."""
    return error.retriable and (idempotent or not isinstance(error, ReplicaDied))
