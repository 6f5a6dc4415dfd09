"""Decodes the large documents of a call beside the event loop."""

from __future__ import annotations

from typing import Any

from jina_asgi.concurrency.offload import LARGE, parse_in_thread
from jina_asgi.types import Docs


def is_slow_to_decode(docs: Docs) -> bool:
    """Whether reading `docs.typed` decodes so many bytes that the event loop would be held."""
    return docs.is_encoded and not docs.is_typed and sum(map(len, docs.encoded)) > LARGE


async def decoded(docs: Docs) -> list[Any]:
    """`docs.typed`, read in the codec thread; raises what that raises."""

    def read() -> list[Any]:
        return docs.typed

    return await parse_in_thread(None, read)
