"""Decodes the large documents of a call beside the event loop."""

from __future__ import annotations

from typing import Any

from jina_asgi.concurrency.offload import LARGE, parse_in_thread
from jina_asgi.types import Docs


async def decoded(docs: Docs) -> list[Any]:
    """`docs.typed`, read in the codec thread if decoding so many bytes would hold the event loop; raises what that raises."""
    if sum(map(len, docs.encoded)) <= LARGE:
        return docs.typed
    return await parse_in_thread(None, lambda: docs.typed)
