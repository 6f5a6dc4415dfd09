"""The text embedder, on uvicorn. serve_embedding.py PORT passes|count.

"passes" is the Executor as it is. "count" batches as many texts, whatever their length, and pads them to the longest.
`/bare` is the model alone: transformers' own tokenizer and forward pass, mean pooling, in a loop.
"""

import sys
import time
from typing import Any

import torch
import uvicorn
from pydantic import BaseModel
from transformers import AutoModel, AutoTokenizer

from jina_asgi import Deployment, JinaASGI, requests
from jina_asgi.contrib.text_embedding import TextEmbedding
from jina_asgi.contrib.text_embedding.loading import default_folder

BATCH = 32
#: What a pass costs by itself, so that one never pays to save padding.
ONE_PASS = 1e12
COUNT = {"cost": None, "max_cost": None, "preferred_batch_size": BATCH}


class Work(BaseModel):
    texts: list[str]
    seconds: float


class Rates(BaseModel):
    """The model's forward pass alone, and with the tokenizer before each: texts a second, and CPU seconds of a text."""

    model: float
    with_tokenizer: float
    model_cpu: float


class Measured(TextEmbedding):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        folder = default_folder()
        self.reference, self.reads = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)

    @requests(on="/bare")
    def bare(self, doc: Work) -> Rates:
        def inputs() -> Any:
            return self.reads(doc.texts, padding=True, truncation=True, max_length=256, return_tensors="pt")

        ready = inputs()
        model, cpu = self.rate(doc, lambda: self.forward(ready))
        with_tokenizer, _ = self.rate(doc, lambda: self.forward(inputs()))
        return Rates(model=model, with_tokenizer=with_tokenizer, model_cpu=cpu)

    def forward(self, given: Any) -> Any:
        with torch.inference_mode():
            hidden = self.reference(**given).last_hidden_state
            mask = given["attention_mask"].unsqueeze(-1)
            mean = (hidden * mask).sum(1) / mask.sum(1)
            return torch.nn.functional.normalize(mean).numpy()

    @staticmethod
    def rate(doc: Work, run: Any) -> tuple[float, float]:
        run()
        begun, cpu, done = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - begun < doc.seconds / 2:
            run()
            done += len(doc.texts)
        return done / (time.perf_counter() - begun), (time.process_time() - cpu) / done


if __name__ == "__main__":
    port, way = sys.argv[1:]
    options: dict[str, Any] = {"uses_with": {"threads": 1}}
    if way == "count":
        options = {
            "uses_with": {"threads": 1, "pass_tokens": ONE_PASS, "max_batch_tokens": 10**9},
            "uses_dynamic_batching": {"/embed": COUNT},
        }
    app = JinaASGI(Deployment(uses=Measured, name="embedder", **options), wait_ready=True)
    uvicorn.run(app, port=int(port), log_level="warning", access_log=False)
