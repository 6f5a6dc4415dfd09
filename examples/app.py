"""The smallest server: `gunicorn app:asgi`, then `curl localhost:8000/shout -H 'content-type: application/json'
-d '{"data": [{"text": "hi"}]}'`."""

from docarray import BaseDoc, DocList

from jina_asgi import Executor, JinaASGI, requests


class Text(BaseDoc):
    text: str


class Shouter(Executor):
    @requests(on="/shout")
    def shout(self, docs: DocList[Text]) -> DocList[Text]:
        return DocList[Text](Text(text=doc.text.upper()) for doc in docs)


asgi = JinaASGI(Shouter)
