"""Endpoints inside a FastAPI app, behind its own dependency and in its own /docs.

gunicorn -c python:jina_asgi.gunicorn fastapi_auth:app
curl -s localhost:8000/text/count --json '{"data": {"text": "a b c"}}' -H 'Authorization: Bearer secret'
"""

import hmac
import os
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from jina_asgi import Executor, requests
from jina_asgi.fastapi import include


class Text(BaseModel):
    text: str


class Count(BaseModel):
    words: int


class Counter(Executor):
    @requests(on="/count")
    def count(self, docs: list[Text]) -> list[Count]:
        """How many words each text has."""
        return [Count(words=len(doc.text.split())) for doc in docs]


def authorized(caller: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> None:
    token = os.environ.get("TOKEN", "secret")
    if not hmac.compare_digest(caller.credentials.encode(), token.encode()):
        raise HTTPException(403, "a token that nobody gave out")


app = FastAPI(title="Words")
include(app, Counter, prefix="/text", dependencies=[Depends(authorized)])


@app.get("/")
def home() -> dict[str, str]:
    return {"see": "/docs"}
