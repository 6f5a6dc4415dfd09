"""What the tests of the pool host serve: an application of several workers, whose model is none of theirs."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from fastapi import FastAPI

from jina_asgi import Deployment, mount
from tests.doubles.rig import note

app = FastAPI()
lm = mount(
    app,
    "/lm",
    Deployment(
        "tests.doubles.pooled_model.Model",
        name="lm",
        replicas=int(os.environ.get("POOLED_REPLICAS", "2")),
        placement="pool",
        env={key: os.environ[key] for key in os.environ if key.startswith("POOLED_")},
        grace=5.0,
        heartbeat=float(os.environ.get("POOLED_HEARTBEAT", "10")),
    ),
)


@app.get("/worker")
async def worker() -> dict[str, Any]:
    heavy = ("tests.doubles.pooled_model", "docarray", "torch", "transformers")
    return {"pid": os.getpid(), "has": [name for name in heavy if name in sys.modules]}


@app.get("/block")
async def block(seconds: float) -> None:
    """What no route should do: nothing else of its worker runs meanwhile."""
    note("blocking")
    time.sleep(seconds)
