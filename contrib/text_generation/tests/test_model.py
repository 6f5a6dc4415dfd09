"""The real default model: SmolLM2-135M-Instruct, fetched and converted at the first run on a machine."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Iterator

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from jina_asgi.contrib.text_generation import Sampling
from jina_asgi.contrib.text_generation.engine import Engine
from jina_asgi.contrib.text_generation.loading import default_folder, load

pytestmark = pytest.mark.model

GREEDY = Sampling(temperature=0, max_new_tokens=24)
PROMPTS = ["What is the capital of France?", "Write a haiku about the sea.", "Count from one to five.", "Hi"]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(lambda: load("smollm2", device="cpu", dtype="float32", rows=4, max_context=1024), threads=1)
    engine.start()
    yield engine
    engine.close()


async def test_it_knows_the_capital_of_france(engine: Engine) -> None:
    text, end = await engine.complete("What is the capital of France?", GREEDY)
    assert "Paris" in text
    assert end.finish_reason == "stop"


async def test_simultaneous_greedy_answers_equal_generate(engine: Engine) -> None:
    found = await asyncio.gather(*(engine.complete(prompt, GREEDY) for prompt in PROMPTS))
    folder = default_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = GenerationConfig(do_sample=False, max_new_tokens=24, eos_token_id=2, pad_token_id=2)
    for prompt, (text, _) in zip(PROMPTS, found, strict=True):
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=False
        )
        answer = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)[0, ids.shape[1] :]
        assert text == tokenizer.decode(answer, skip_special_tokens=True, clean_up_tokenization_spaces=False)


async def test_the_system_prompt_is_followed(engine: Engine) -> None:
    sampling = Sampling(temperature=0, max_new_tokens=30)
    plain, _ = await engine.complete("Who are you?", sampling)
    pirate, _ = await engine.complete("Who are you?", sampling, system="You are Anna, a pirate from Genoa.")
    assert "sea" not in plain
    assert "sea" in pirate


async def test_the_two_hundredth_token_costs_about_what_the_twentieth_does(engine: Engine) -> None:
    moments = [time.perf_counter()]
    async for _ in engine.stream("Write a very long story.", Sampling(temperature=1.2, seed=3, max_new_tokens=220)):
        moments.append(time.perf_counter())
    steps = [after - before for before, after in itertools.pairwise(moments[1:])]
    assert len(steps) > 200, "the story is long enough"
    assert statistics.median(steps[190:]) < 3 * statistics.median(steps[10:40])
