"""The Executor that the benchmarks of the pool serve; its module is imported by replicas alone."""

from batch_models import MODELS
from pydantic import BaseModel

from jina_asgi import Executor, dynamic_batching, requests


class Text(BaseModel):
    text: str


class Work(Executor):
    """`model`: one of `batch_models`. `weight`: megabytes that it holds."""

    def __init__(self, model: str = "sleep", weight: int = 0, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]  # what a Deployment passes
        self.model = MODELS[model]
        self.weight = bytearray(b"\1") * (weight << 20)

    @dynamic_batching(preferred_batch_size=32)
    @requests(on="/run")
    def run(self, docs: list[Text]) -> list[Text]:
        return [Text(text=answer) for answer in self.model([doc.text for doc in docs])]

    @requests(on="/echo")
    async def echo(self, docs: list[Text]) -> list[Text]:
        return docs
