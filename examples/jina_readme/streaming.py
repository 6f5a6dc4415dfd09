"""A language model that streams: each document is the answer so far. Serve it: python -m jina_asgi.compat streaming.py"""

from docarray import BaseDoc
from jina import Deployment, Executor, requests
from transformers import AutoModelForCausalLM, AutoTokenizer

NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"


class Question(BaseDoc):
    prompt: str
    max_tokens: int


class Piece(BaseDoc):
    token_id: int
    generated_text: str


class TokenStreamer(Executor):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.tokenizer = AutoTokenizer.from_pretrained(NAME)
        self.model = AutoModelForCausalLM.from_pretrained(NAME)

    @requests(on="/stream")
    async def task(self, doc: Question, **kwargs) -> Piece:
        tokens = self.tokenizer(doc.prompt, return_tensors="pt").input_ids
        given = tokens.shape[1]
        for _ in range(doc.max_tokens):
            tokens = self.model.generate(tokens, max_new_tokens=1, do_sample=False)
            last = int(tokens[0][-1])
            if last == self.tokenizer.eos_token_id:
                break
            yield Piece(token_id=last, generated_text=self.tokenizer.decode(tokens[0][given:]))


if __name__ == "__main__":
    with Deployment(uses=TokenStreamer, port=12345) as dep:
        dep.block()
