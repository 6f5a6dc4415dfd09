"""Quart: hypercorn quart_host:app

curl -s localhost:8000/lm/shout --json '{"data": {"text": "hi"}}'
"""

from typing import Any

from hypercorn.middleware import DispatcherMiddleware  # Quart brings hypercorn
from parrot import Parrot
from quart import Quart

from jina_asgi import JinaASGI

quart = Quart(__name__)


@quart.get("/hello")
async def hello() -> str:
    return "hello"


lm: Any = JinaASGI(Parrot)
app = DispatcherMiddleware({"/lm": lm, "": quart})  # each gets the lifespan
