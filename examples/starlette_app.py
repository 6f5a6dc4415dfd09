"""An Executor mounted in a Starlette app, called from one of the app's own routes too.

uvicorn starlette_app:app
curl -s 'localhost:8000/mean?numbers=1&numbers=2&numbers=6'
"""

from typing import Annotated

import numpy as np
from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from jina_asgi import Deployment, Executor, mount, requests


class Numbers(BaseDoc):
    values: Annotated[NdArray, np.float32]


class Mean(BaseDoc):
    value: float


class Statistics(Executor):
    @requests(on="/mean")
    def mean(self, docs: DocList[Numbers]) -> DocList[Mean]:
        return DocList[Mean](Mean(id=doc.id, value=float(doc.values.mean())) for doc in docs)


statistics = Deployment(uses=Statistics)


async def mean(request: Request) -> JSONResponse:
    """The app's own route: the same Executor, called with no HTTP between."""
    numbers = [float(number) for number in request.query_params.getlist("numbers")]
    [answer] = await statistics.call("/mean", [Numbers(values=np.array(numbers, np.float32))])
    return JSONResponse({"mean": answer.value})


app = Starlette(routes=[Route("/mean", mean)])
mount(app, "/statistics", statistics)
