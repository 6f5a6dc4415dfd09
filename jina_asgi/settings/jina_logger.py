"""Jina's logger: a standard logger below this library's name, with the methods that Jina adds."""

from __future__ import annotations

import logging
from typing import Any, Self


class JinaLogger(logging.LoggerAdapter[logging.Logger]):
    """`logging.getLogger("jina_asgi.<context>")`. The program configures its output, with `logging`.

    Args:
        context: the name of the component that logs.
        name: the prefix of each message.
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
        """The handlers of the underlying logger."""
        return self.logger.handlers

    def close(self) -> None:
        """Does nothing: there is nothing to close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


default_logger = JinaLogger("jina")
