"""What the tests of the pool host serve: an application of several workers, whose model is none of theirs."""

from __future__ import annotations

import os
import sys
from typing import Any

from fastapi import FastAPI

from jina_asgi import Deployment, mount

app = FastAPI()
lm = mount(
    app,
    "/lm",
    Deployment(
        "tests.processes.pooled_model.Model",
        name="lm",
        replicas=int(os.environ.get("POOLED_REPLICAS", "2")),
        placement="pool",
        env={key: os.environ[key] for key in os.environ if key.startswith("POOLED_")},
        grace=5.0,
    ),
)


@app.get("/worker")
async def worker() -> dict[str, Any]:
    return {"pid": os.getpid(), "has_model": "tests.processes.pooled_model" in sys.modules}
