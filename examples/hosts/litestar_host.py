"""Litestar: gunicorn -c python:jina_asgi.gunicorn litestar_host:app

curl -s localhost:8000/lm/shout --json '{"data": {"text": "hi"}}'
"""

from typing import Any

from litestar import Litestar, asgi, get
from parrot import Parrot

from jina_asgi import JinaASGI

lm = JinaASGI(Parrot)


@get("/hello")
async def hello() -> str:
    return "hello"


@asgi("/lm", is_mount=True)
async def mounted(scope: Any, receive: Any, send: Any) -> None:
    below = {"path": scope["path"].rstrip("/") or "/", "root_path": scope["root_path"] + "/lm"}  # Litestar adds a slash
    await lm({**scope, **below}, receive, send)


app = Litestar([hello, mounted], lifespan=[lm.lifespan])
