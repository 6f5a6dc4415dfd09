"""A language model as an Executor: it goes on with each prompt."""

from docarray import BaseDoc, DocList
from jina import Executor, requests
from transformers import pipeline


class Prompt(BaseDoc):
    text: str


class Generation(BaseDoc):
    prompt: str
    text: str


class StableLM(Executor):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        model = "HuggingFaceTB/SmolLM2-135M-Instruct"
        self.generator = pipeline("text-generation", model=model, dtype="float32")  # see README.md

    @requests
    def generate(self, docs: DocList[Prompt], **kwargs) -> DocList[Generation]:
        prompts = docs.text
        answers = DocList[Generation]()
        for prompt, found in zip(prompts, self.generator(prompts, max_new_tokens=16, max_length=None), strict=True):
            answers.append(Generation(prompt=prompt, text=found[0]["generated_text"]))
        return answers
