"""FastAPI: gunicorn -c python:jina_asgi.gunicorn fastapi_host:app

curl -s localhost:8000/lm/shout --json '{"data": {"text": "hi"}}'
"""

from fastapi import FastAPI
from parrot import Parrot

from jina_asgi import mount

app = FastAPI()
mount(app, "/lm", Parrot)


@app.get("/hello")
def hello() -> str:
    return "hello"
