"""Jina's logger: Python's own, below this library's name, with what Jina's has beside."""

from __future__ import annotations

import logging
from typing import Any, Self


class JinaLogger(logging.LoggerAdapter[logging.Logger]):
    """`logging.getLogger("jina_asgi.<context>")`. How it is shown is the program's own to say, with `logging`.

    Args:
        context: whose messages these are.
        name: told before each of them.
        _: Jina's options, which concern handlers.
    """

    def __init__(self, context: str, name: str | None = None, **_: Any) -> None:
        super().__init__(logging.getLogger(f"jina_asgi.{context}"), {})
        self._prefix = f"{name}: " if name else ""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        return f"{self._prefix}{msg}" if self._prefix else msg, kwargs

    def success(self, message: str, *arguments: Any, **options: Any) -> None:
        """As `info`."""
        self.info(message, *arguments, **options)

    @property
    def handlers(self) -> list[logging.Handler]:
        """Those of the logger itself."""
        return self.logger.handlers

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


default_logger = JinaLogger("jina")
