"""The Executor of a Flow without Executors: it returns its documents unchanged, whatever their fields."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from jina_asgi.executors.executor import Executor, requests


class AnyDocument(BaseModel):
    """A document with any fields."""

    model_config = ConfigDict(extra="allow")


class PassThrough(Executor):
    """Returns its documents unchanged."""

    @requests
    async def hand_on(self, docs: list[AnyDocument], **kwargs: Any) -> list[AnyDocument]:
        return docs
