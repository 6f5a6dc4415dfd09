"""A language model inside an ordinary FastAPI app, with a page to try it.

    gunicorn -c python:jina_asgi.gunicorn --chdir examples quickstart:app

Needs the extra `demo`. The model is fetched and converted at the first start (about 100 MB, half a minute).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from jina_asgi import Deployment, mount
from jina_asgi.contrib.text_generation import TextGeneration

PAGE = Path(__file__).parent / "quickstart_page"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The app's own life: the mounted model's begins after it and ends before it."""
    app.state.greetings = 0
    yield


app = FastAPI(title="Quickstart", lifespan=lifespan)


@app.get("/hello")
async def hello(name: str = "world") -> dict[str, str | int]:
    """A route of the app's own, which answers also while the model loads or computes."""
    app.state.greetings += 1
    return {"hello": name, "greetings": app.state.greetings}


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """The page: it streams from POST /lm/stream."""
    return FileResponse(PAGE / "index.html")


app.mount("/page", StaticFiles(directory=PAGE))
mount(app, "/lm", Deployment(uses=TextGeneration))
