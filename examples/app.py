"""The smallest server. Typed in this folder: gunicorn app:asgi

curl -s localhost:8000/default --json '{"data": {"text": "hi"}}'
"""

from collections.abc import AsyncIterator

from docarray import BaseDoc, DocList

from jina_asgi import Executor, JinaASGI, requests


class Text(BaseDoc):
    text: str


class Parrot(Executor):
    @requests
    def shout(self, docs: DocList[Text]) -> DocList[Text]:
        """Each text in capitals."""
        return DocList[Text](Text(id=doc.id, text=doc.text.upper()) for doc in docs)

    @requests(on="/stream")
    async def repeat(self, doc: Text) -> AsyncIterator[Text]:
        """The words of a text, one at a time."""
        for word in doc.text.split():
            yield Text(text=word)


asgi = JinaASGI(Parrot, title="Parrot")
