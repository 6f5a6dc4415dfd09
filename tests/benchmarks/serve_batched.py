"""The `batched` library in Starlette, on uvicorn. serve_batched.py PORT MODEL."""

import sys

import uvicorn
from batch_models import BATCH, MODELS, WINDOW_MS
from batched import aio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

if __name__ == "__main__":
    port, model = sys.argv[1:]
    batch = aio.dynamically(batch_size=BATCH, timeout_ms=WINDOW_MS)(lambda texts: MODELS[model](list(texts)))

    async def run(request: Request) -> Response:
        return JSONResponse({"text": await batch((await request.json())["text"])})

    app = Starlette(routes=[Route("/run", run, methods=["POST"])])
    uvicorn.run(app, port=int(port), log_level="warning", access_log=False)
