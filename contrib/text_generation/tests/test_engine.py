"""Many generations at once: each as if alone, and each gone when its reader is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from jina_asgi import ExecutorInputError, NotReady, Overloaded
from jina_asgi.contrib.text_generation import Sampling
from jina_asgi.contrib.text_generation.engine import Engine
from jina_asgi.contrib.text_generation.progress import Delta
from jina_asgi.contrib.text_generation.tests import doubles

GREEDY = Sampling(temperature=0, max_new_tokens=40)
PROMPTS = ["a", "the quick brown fox", "jumps over the lazy dog, again and again", "zwölf Boxkämpfer", "0123456789"]


def generated(folder: Path, prompt: str, tokens: int) -> str:
    """What `model.generate` answers, greedily."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), doubles.byte_tokenizer()
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    config = GenerationConfig(do_sample=False, max_new_tokens=tokens, eos_token_id=doubles.END, pad_token_id=0)
    found = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)[0, ids.shape[1] :]
    return str(tokenizer.decode(found, skip_special_tokens=True, clean_up_tokenization_spaces=False))


async def until(true: Callable[[], bool]) -> None:
    """Wait in steps of the loop for what the engine's thread does."""
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.005)


async def first(stream: AsyncGenerator[Delta, None]) -> Delta:
    return await anext(stream)


async def test_greedy_answers_equal_generate_for_simultaneous_prompts(watched: Any, tiny_folder: Path) -> None:
    engine, _ = watched(rows=3)
    found = await asyncio.gather(*(engine.complete(prompt, GREEDY) for prompt in PROMPTS))
    assert [text for text, _ in found] == [generated(tiny_folder, prompt, 40) for prompt in PROMPTS]


async def test_each_step_after_the_prompt_runs_one_token_of_each_request(watched: Any) -> None:
    """The cost of a step does not grow with what was generated: the past is never run again."""
    engine, decoder = watched()
    prompt = "x" * 20
    _, end = await engine.complete(prompt, Sampling(temperature=0, max_new_tokens=200))
    assert end.tokens == 200
    assert decoder.passes == [[20]] + [[1]] * 199


async def test_requests_share_their_steps(watched: Any) -> None:
    engine, decoder = watched()
    decoder.open.clear()
    work = [asyncio.create_task(engine.complete(prompt, GREEDY)) for prompt in PROMPTS[:4]]
    await until(lambda: engine.waiting + engine.running == 4)
    decoder.open.set()
    await asyncio.gather(*work)
    assert [1, 1, 1, 1] in decoder.passes
    assert len(decoder.passes) < 2 * 40


async def test_sampling_is_each_requests_own(watched: Any) -> None:
    engine, _ = watched()
    kinds = [
        GREEDY,
        Sampling(temperature=1.0, seed=1, max_new_tokens=30),
        Sampling(temperature=1.5, seed=2, top_k=20, max_new_tokens=25),
        Sampling(temperature=0, repetition_penalty=1.5, max_new_tokens=35),
    ]
    alone = [await engine.complete("go", kind) for kind in kinds]
    together = await asyncio.gather(*(engine.complete("go", kind) for kind in kinds))
    assert [text for text, _ in together] == [text for text, _ in alone]
    assert len({text for text, _ in alone}) == 4
    assert [end.tokens for _, end in together] == [40, 30, 25, 35]


async def test_without_a_seed_answers_vary(watched: Any) -> None:
    engine, _ = watched()
    texts = {(await engine.complete("go", Sampling(temperature=1.0, max_new_tokens=20)))[0] for _ in range(3)}
    assert len(texts) == 3


async def test_a_long_prompt_is_read_in_pieces_between_the_tokens_of_others(watched: Any) -> None:
    engine, decoder = watched(prompt_step=50)
    stream = engine.stream("short", Sampling(temperature=0, max_new_tokens=100))
    await first(stream)
    await engine.complete("y" * 200, Sampling(temperature=0, max_new_tokens=1))
    pieces = [at for at, widths in enumerate(decoder.passes) if widths == [50]]
    assert len(pieces) == 4
    assert [decoder.passes[at + 1] for at in pieces[:3]] == [[1]] * 3
    await stream.aclose()


async def test_prompts_that_come_together_share_the_reading(watched: Any) -> None:
    engine, decoder = watched()
    decoder.open.clear()
    held = asyncio.create_task(engine.complete("held", GREEDY))
    await until(decoder.entered.is_set)
    others = [asyncio.create_task(engine.complete(prompt, GREEDY)) for prompt in ("four", "three letters", "z")]
    await until(lambda: engine.waiting == 3)
    decoder.open.set()
    await asyncio.gather(held, *others)
    assert [4, 13, 1] in decoder.passes


async def test_leaving_a_stream_frees_its_slot_before_the_next_step(watched: Any) -> None:
    engine, decoder = watched(rows=2)
    stay = engine.stream("stay", Sampling(temperature=0, max_new_tokens=200))
    leave = engine.stream("leave", Sampling(temperature=0, max_new_tokens=200))
    await first(stay)
    await first(leave)
    await until(lambda: [1, 1] in decoder.passes)
    decoder.entered.clear()
    decoder.open.clear()
    await until(decoder.entered.is_set)
    await leave.aclose()
    known = len(decoder.passes)
    decoder.open.set()
    await until(lambda: len(decoder.passes) > known)
    assert decoder.passes[known] == [1], "the pass after the running one is without it"
    assert engine.running == 1
    await stay.aclose()
    await until(lambda: engine.running == 0)


async def test_a_cancelled_task_frees_its_slot(watched: Any) -> None:
    engine, decoder = watched()
    task = asyncio.create_task(engine.complete("gone soon", Sampling(temperature=0, max_new_tokens=200)))
    await until(lambda: [1] in decoder.passes)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: engine.running == 0)


async def test_who_waits_gets_the_first_free_slot_and_who_leaves_the_queue_does_not(watched: Any) -> None:
    engine, decoder = watched(rows=1)
    decoder.open.clear()
    running = asyncio.create_task(engine.complete("running", GREEDY))
    await until(decoder.entered.is_set)
    leaving = asyncio.create_task(engine.complete("leaving", GREEDY))
    waiting = asyncio.create_task(engine.complete("waiting", GREEDY))
    await until(lambda: engine.waiting == 2)
    leaving.cancel()
    await until(lambda: engine.waiting == 1)
    decoder.open.set()
    await asyncio.gather(running, waiting)
    assert decoder.passes.count([7]) == 2


async def test_a_full_queue_refuses(watched: Any) -> None:
    engine, decoder = watched(rows=1, max_waiting=1)
    decoder.open.clear()
    tasks = [asyncio.create_task(engine.complete("running", GREEDY))]
    await until(decoder.entered.is_set)
    tasks.append(asyncio.create_task(engine.complete("waiting", GREEDY)))
    await until(lambda: engine.waiting == 1)
    with pytest.raises(Overloaded, match="1 requests wait"):
        await engine.complete("refused", GREEDY)
    decoder.open.set()
    await asyncio.gather(*tasks)


async def test_the_loop_is_free_while_a_step_runs(watched: Any) -> None:
    engine, decoder = watched()
    decoder.open.clear()
    task = asyncio.create_task(engine.complete("held", GREEDY))
    await until(decoder.entered.is_set)
    for _ in range(100):
        await asyncio.sleep(0)
    assert not task.done()
    decoder.open.set()
    assert (await task)[1].finish_reason is not None


@pytest.mark.parametrize("temperature", [0.0, 0.5])
async def test_it_ends_with_the_models_end_token(tmp_path: Path, temperature: float) -> None:
    """A model that prefers the end to everything after the byte 'q', and 'q' to everything else."""
    model, q = doubles.llama(), doubles.byte_tokenizer()("q").input_ids[0]
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.zero_()
        model.model.embed_tokens.weight[:, 0] = 1
        model.model.embed_tokens.weight[q] = torch.eye(32)[1]
        model.lm_head.weight.zero_()
        model.lm_head.weight[q, 0] = model.lm_head.weight[doubles.END, 1] = 9
    engine, _ = doubles.watched_engine(doubles.save(model, tmp_path))
    try:
        found = await engine.complete("abc", Sampling(temperature=temperature, max_new_tokens=50, seed=4))
    finally:
        engine.close()
    assert found == ("q", Delta("", 2, 3, "stop"))


async def test_it_ends_before_a_stop_string(watched: Any) -> None:
    engine, _ = watched()
    whole, _ = await engine.complete("go", GREEDY)
    stop = whole[8:11]
    text, end = await engine.complete("go", GREEDY.model_copy(update={"stop": [stop]}))
    assert text == whole[: whole.index(stop)]
    assert end.finish_reason == "stop"


async def test_it_ends_where_the_context_does(watched: Any) -> None:
    engine, _ = watched()
    _, end = await engine.complete("x" * 200, Sampling(temperature=0, max_new_tokens=4096))
    assert end.finish_reason == "length"
    assert end.tokens == doubles.CONTEXT - 200
    assert end.prompt_tokens == 200


@pytest.mark.parametrize(
    ("prompt", "message"), [("x" * doubles.CONTEXT, "has 256 tokens; with the answer at most 256"), ("", "is empty")]
)
async def test_a_prompt_that_does_not_fit_is_the_callers_error(watched: Any, prompt: str, message: str) -> None:
    engine, decoder = watched()
    with pytest.raises(ExecutorInputError, match=message):
        await engine.complete(prompt, GREEDY)
    assert decoder.passes == []
    assert (await engine.complete("fine", GREEDY))[1].tokens > 0


async def test_a_failed_step_fails_those_in_it_and_the_engine_goes_on(watched: Any, tiny_folder: Path) -> None:
    engine, decoder = watched()
    decoder.open.clear()
    tasks = [asyncio.create_task(engine.complete(prompt, GREEDY)) for prompt in ("one", "two")]
    await until(decoder.entered.is_set)
    decoder.error = MemoryError("no room")
    decoder.open.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    failed = [error for error in found if isinstance(error, BaseException)]
    assert failed
    assert {(type(error), str(error.__cause__)) for error in failed} == {(RuntimeError, "no room")}
    assert (await engine.complete("a", GREEDY))[0] == generated(tiny_folder, "a", 40)


async def test_a_request_whose_token_cannot_be_chosen_fails_alone(watched: Any, tiny_folder: Path) -> None:
    engine, decoder = watched()
    forward = decoder.decoder.forward

    def spoilt(first: int, tokens: Any) -> torch.Tensor:
        logits: torch.Tensor = forward(first, tokens).clone()
        logits[[len(row) == 7 for row in tokens]] = float("nan")
        return logits

    decoder.decoder.forward = spoilt
    found = await asyncio.gather(
        engine.complete("a", GREEDY),
        engine.complete("7 bytes", Sampling(temperature=1)),
        return_exceptions=True,
    )
    assert found[0][0] == generated(tiny_folder, "a", 40)
    assert isinstance(found[1], RuntimeError)
    assert engine.running == 0


async def test_a_prompt_that_is_far_too_long_is_not_even_tokenized(watched: Any) -> None:
    engine, _ = watched()
    with pytest.raises(ExecutorInputError, match="has 1000000 characters; at most 16384 are read"):
        await engine.complete("x" * 10**6, GREEDY)


async def test_closing_ends_what_runs_and_what_waits(watched: Any) -> None:
    engine, decoder = watched(rows=1)
    decoder.open.clear()
    tasks = [asyncio.create_task(engine.complete(prompt, GREEDY)) for prompt in ("running", "waiting")]
    await until(lambda: decoder.entered.is_set() and engine.waiting == 1)
    closing = threading.Thread(target=engine.close)
    closing.start()
    decoder.open.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    closing.join()
    assert [type(error) for error in found] == [NotReady, NotReady]
    assert not engine._thread.is_alive()
    with pytest.raises(NotReady):
        await engine.complete("late", GREEDY)


def test_loops_that_come_and_go_may_use_one_engine(watched: Any) -> None:
    engine, _ = watched()
    one, other = (asyncio.run(engine.complete("go", GREEDY)) for _ in range(2))
    assert one == other


def test_a_loop_that_is_gone_leaves_no_request_behind(watched: Any) -> None:
    engine, decoder = watched()
    decoder.open.clear()
    loop = asyncio.new_event_loop()
    stream = engine.stream("orphan", GREEDY)
    task = loop.create_task(anext(stream))  # type: ignore[arg-type]  # any awaitable of the loop's
    loop.run_until_complete(until(decoder.entered.is_set))
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    decoder.open.set()
    doubles.wait_until(lambda: engine.running == 0)
    assert engine.waiting == 0


def test_what_loading_raises_comes_out_of_start() -> None:
    def fail() -> Any:
        raise ValueError("no such weights")

    engine = Engine(fail)
    with pytest.raises(ValueError, match="no such weights"):
        engine.start()
    engine.close()
    assert not engine._thread.is_alive()
