"""The Executor of `soaked`: only replicas import it."""

from __future__ import annotations

import os
import time
from typing import Any

from pydantic import BaseModel

from jina_asgi import Executor, dynamic_batching, requests
from tests.doubles.rig import note


class Order(BaseModel):
    """A nonce that the answer must hold in capitals, and how long the work takes."""

    nonce: str
    pause: float = 0.0


class Model(Executor):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        note(f"loaded {os.getpid()}")

    @dynamic_batching(preferred_batch_size=8)
    @requests(on="/again", idempotent=True)
    def again(self, docs: list[Order]) -> list[Order]:
        time.sleep(max(doc.pause for doc in docs))
        return [Order(nonce=doc.nonce.upper()) for doc in docs]

    @requests(on="/once")
    def once(self, docs: list[Order]) -> list[Order]:
        time.sleep(max(doc.pause for doc in docs))
        return [Order(nonce=doc.nonce.upper()) for doc in docs]
