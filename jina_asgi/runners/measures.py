"""What may measure the batches of an endpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


class BatchObserver(Protocol):
    """Measures the batches of one endpoint."""

    def began(self, waits: Sequence[float]) -> None:
        """A batch begins, whose documents have waited so many seconds."""
        ...

    def ended(self, seconds: float) -> None:
        """A batch has been answered, so many seconds after its beginning."""
        ...


#: Makes the observer of the batches of a Deployment's endpoint.
MakeBatchObserver = Callable[[str, str], BatchObserver]


class Unobserved:
    """Measures nothing."""

    def began(self, waits: Sequence[float]) -> None:
        pass

    def ended(self, seconds: float) -> None:
        pass
