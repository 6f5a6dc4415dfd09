"""What gunicorn serves in the benchmarks of the pool. POOL says how: "MODEL REPLICAS WEIGHT"; "none" is nothing of ours."""

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from jina_asgi import Deployment, JinaASGI

model, replicas, weight = os.environ["POOL"].split()


async def echo(request: Request) -> Response:
    return Response(await request.body(), media_type="application/json")


def pooled() -> JinaASGI:
    options = {"model": model, "weight": int(weight)}
    return JinaASGI(
        Deployment("pooled_work.Work", name="lm", placement="pool", replicas=int(replicas), uses_with=options)
    )


app: ASGIApp = Starlette(routes=[Route("/echo", echo, methods=["POST"])]) if model == "none" else pooled()
