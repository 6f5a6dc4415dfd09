"""An error as a client is told it: a safe sentence, a type, an id; the cause is in the log under that id."""

from __future__ import annotations

import logging
import math
import os
from typing import Any

from jina_asgi.errors import InvalidDocs, JinaASGIError, Unauthenticated, Unavailable

logger = logging.getLogger("jina_asgi")

Headers = list[tuple[bytes, bytes]]


def problem(error: BaseException, *, expose: bool = False) -> tuple[int, dict[str, Any], Headers]:
    """The status, JSON body and headers that tell a client of an error; what is not the client's fault is logged.

    Args:
        error: ours, or a defect of this library, which is told as an internal error.
        expose: also tell the message of an Executor's own exception (for development).
    """
    identity = os.urandom(8).hex()
    ours = error if isinstance(error, JinaASGIError) else None
    status = ours.status if ours else 500
    if status == 500:
        logger.error("error %s: %s", identity, error, exc_info=error)
    if ours is None:
        message: Any = "internal error; the log has the cause under this error's id"
    else:
        message = ours.public if ours.public is not None and not expose else ours.message
    if isinstance(error, InvalidDocs) and error.errors:
        message = error.errors
    body = {
        "detail": message,
        "error": {
            "type": type(error).__name__ if ours else "InternalError",
            "id": identity,
            "retriable": ours.retriable if ours else False,
        },
    }
    headers: Headers = []
    if isinstance(error, Unavailable):
        headers += [
            (b"retry-after", str(max(1, math.ceil(error.retry_after))).encode()),
            (b"retry-after-ms", str(math.ceil(error.retry_after * 1000)).encode()),
        ]
    if isinstance(error, Unauthenticated):
        headers.append((b"www-authenticate", b"Bearer"))
    return status, body, headers
