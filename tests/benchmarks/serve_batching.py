"""This library, batching, on uvicorn; or plain FastAPI beside it. serve_batching.py PORT MODEL [BATCH] [plain]."""

import sys

import uvicorn
from batch_models import BATCH, MODELS
from fastapi import FastAPI
from pydantic import BaseModel

from jina_asgi import Deployment, Executor, JinaASGI, requests


class Text(BaseModel):
    text: str


class Work(Executor):
    @requests(on="/run")
    def run(self, docs: list[Text]) -> list[Text]:
        answers = MODELS[sys.argv[2]]([doc.text for doc in docs])
        for doc, answer in zip(docs, answers, strict=True):
            doc.text = answer
        return docs


def plain(model: str) -> FastAPI:
    """What FastAPI does by itself: a call a request, 40 threads, no bound on what waits."""
    app = FastAPI()

    @app.post("/run")
    def run(body: Text) -> dict[str, str]:
        return {"text": MODELS[model]([body.text])[0]}

    return app


if __name__ == "__main__":
    port, model, *rest = sys.argv[1:]
    size = int(rest[0]) if rest and rest[0].isdigit() else BATCH
    batching = {"/run": {"preferred_batch_size": size, "timeout": 20}}
    queue = 256 if model == "slow" else 1024
    app: JinaASGI | FastAPI = JinaASGI(Deployment(Work, uses_dynamic_batching=batching, max_queue=queue))
    if "plain" in rest:
        app = plain(model)
    uvicorn.run(app, port=int(port), log_level="warning", access_log=False)
