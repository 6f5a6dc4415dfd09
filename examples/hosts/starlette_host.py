"""Starlette: gunicorn -c python:jina_asgi.gunicorn starlette_host:app

curl -s localhost:8000/lm/shout --json '{"data": {"text": "hi"}}'
"""

from parrot import Parrot
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from jina_asgi import mount


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


app = Starlette(routes=[Route("/hello", hello)])
mount(app, "/lm", Parrot)
