"""The Executor whose calls are counted."""

from pydantic import BaseModel

from jina_asgi import Executor, requests


class Text(BaseModel):
    text: str


class Echo(Executor):
    @requests(on="/echo")
    async def echo(self, docs: list[Text]) -> list[Text]:
        return docs
