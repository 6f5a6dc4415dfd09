"""BentoML. serve_bentoml.py PORT [MODEL]."""

import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

if __name__ == "__main__":
    os.environ["BATCHES"], os.environ["MODEL"] = str(Path.cwd()), (sys.argv[2:] or ["sleep"])[0]
    os.chdir(Path(__file__).parent)
    command = str(Path(sys.executable).parent / "bentoml")
    os.execv(command, [command, "serve", "serve_bentoml:Work", "--port", sys.argv[1], "--host", "127.0.0.1"])

import bentoml
import numpy as np
from batch_models import BATCH, MODELS
from work import TOKENS, token


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 10_000}, logging={"access": {"enabled": False}})
class Work:
    @bentoml.api(route="/echo")
    async def echo(self, text: str) -> dict:
        return {"text": text}

    @bentoml.api(route="/stream")
    async def stream(self, text: str) -> AsyncGenerator[str, None]:
        for i in range(TOKENS):
            yield f"data: {token(i)}\n\n"

    @bentoml.api(route="/double")
    async def double(self, vectors: np.ndarray) -> dict:
        return {"vectors": (vectors.astype(np.float32) * 2).tolist()}

    @bentoml.api(route="/run", batchable=True, max_batch_size=BATCH, max_latency_ms=60_000)
    def run(self, texts: list[str]) -> list[str]:
        return MODELS[os.environ["MODEL"]](texts)
