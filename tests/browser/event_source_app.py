"""A page whose EventSource reads one stream, and the model behind it, which counts how often it ran."""

from __future__ import annotations

from collections.abc import AsyncIterator

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from jina_asgi import Deployment, Executor, ExecutorInputError, mount, requests

PAGE = """<!doctype html><title>A stream</title><script>
window.heard = [];
const source = new EventSource("/lm/words" + location.search);
source.addEventListener("update", (event) => heard.push(["update", JSON.parse(event.data).text]));
for (const last of ["end", "error"])
  source.addEventListener(last, (event) => {
    const data = event.data && JSON.parse(event.data);
    heard.push([last, data && data.detail]);
    source.close();
  });
</script>"""


class Text(BaseModel):
    text: str = ""


class Words(Executor):
    runs = 0

    @requests(on="/words")
    async def words(self, doc: Text) -> AsyncIterator[Text]:
        self.runs += 1
        for word in doc.text.split():
            if word == "bad":
                raise ExecutorInputError("a bad word")
            yield Text(text=word)

    @requests(on="/runs")
    async def count(self, doc: Text) -> Text:
        return Text(text=str(self.runs))


async def page(request: Request) -> HTMLResponse:
    return HTMLResponse(PAGE)


app = Starlette(routes=[Route("/", page)])
mount(app, "/lm", Deployment(uses=Words))
