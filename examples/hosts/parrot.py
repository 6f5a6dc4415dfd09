"""The Executor that the apps of this folder mount."""

from pydantic import BaseModel

from jina_asgi import Executor, requests


class Text(BaseModel):
    text: str


class Parrot(Executor):
    @requests(on="/shout")
    def shout(self, docs: list[Text]) -> list[Text]:
        return [Text(text=doc.text.upper()) for doc in docs]

    @requests(on="/repeat")
    async def repeat(self, doc: Text) -> Text:
        for word in doc.text.split():
            yield Text(text=word)
