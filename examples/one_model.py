"""One language model behind all workers of an app: the web workers have neither torch nor the model (Linux).

    gunicorn -c python:jina_asgi.gunicorn -w 2 --chdir examples one_model:app
    curl -N localhost:8000/lm/stream -H 'content-type: application/json' -d '{"data": {"text": "Hello!"}}'

Needs the extra `demo`. `jina-asgi pool` shows what runs.
"""

import os
import sys

from fastapi import FastAPI

from jina_asgi import Deployment, mount

app = FastAPI(title="One model")
mount(app, "/lm", Deployment("jina_asgi.contrib.text_generation.TextGeneration", name="lm", replicas=1))


@app.get("/worker")
async def worker() -> dict[str, object]:
    """Which web worker answers, and which heavy modules it has imported: none."""
    heavy = ("torch", "transformers", "docarray")
    return {"pid": os.getpid(), "imported": [name for name in heavy if name in sys.modules]}
