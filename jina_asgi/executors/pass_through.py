"""The Executor of a Flow that has none: it answers with the documents that it is given, whatever their fields."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from jina_asgi.executors.executor import Executor, requests


class AnyDocument(BaseModel):
    """A document of any fields."""

    model_config = ConfigDict(extra="allow")


class PassThrough(Executor):
    """Hands on what it is given."""

    @requests
    async def hand_on(self, docs: list[AnyDocument], **kwargs: Any) -> list[AnyDocument]:
        return docs
