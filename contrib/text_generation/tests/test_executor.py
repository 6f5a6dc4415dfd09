"""The Executor in a Deployment, in process and over HTTP."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from docarray import DocList

from jina_asgi import Deployment, ExecutorInputError, JinaASGI
from jina_asgi.contrib.text_generation import Generation, Prompt, TextGeneration, Token
from jina_asgi.contrib.text_generation.tests import doubles
from jina_asgi.testing import client, events

GREEDY = {"temperature": 0, "max_new_tokens": 12}


def deployment(folder: Path, **options: Any) -> Deployment:
    return Deployment(uses=TextGeneration, uses_with={"model": str(folder), "max_context": 200, **options})


@pytest.fixture
async def http(tiny_folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with client(JinaASGI(deployment(tiny_folder), wait_ready=True)) as http:
        yield http


async def test_a_batch_is_answered_in_order(tiny_folder: Path) -> None:
    prompts = [Prompt(text=text) for text in ("one", "two", "three", "one")]
    async with deployment(tiny_folder, max_concurrent=2) as model:
        found = await model.call("/generate", prompts, GREEDY)
        default = await model.call("/default", prompts[:1], GREEDY)
    assert isinstance(found[0], Generation)
    assert found[0].text == found[3].text == default[0].text
    assert len({doc.text for doc in found}) == 3
    assert [(doc.tokens, doc.finish_reason) for doc in found] == [(12, "length")] * 4


async def test_a_stream_joined_is_the_complete_answer(tiny_folder: Path) -> None:
    async with deployment(tiny_folder) as model:
        tokens: list[Token] = [doc async for doc in model.stream("/stream", Prompt(text="go"), GREEDY)]
        (whole,) = await model.call("/generate", [Prompt(text="go")], GREEDY)
    assert "".join(token.text for token in tokens) == whole.text
    assert [token.tokens for token in tokens] == list(range(1, 13))
    assert [token.finish_reason for token in tokens] == [None] * 11 + ["length"]
    assert tokens[-1].prompt_tokens == whole.prompt_tokens == 2


async def test_the_system_prompt_is_part_of_the_prompt(tiny_folder: Path) -> None:
    async with deployment(tiny_folder) as model:
        (found,) = await model.call("/generate", [Prompt(text="go", system="be brief")], GREEDY)
    assert found.prompt_tokens == len("be brief\n\ngo")


async def test_parameters_may_be_left_out(http: httpx.AsyncClient) -> None:
    answer = await http.post("/generate", json={"data": [{"text": "go"}]})
    assert answer.status_code == 200
    assert answer.json()["data"][0]["tokens"] <= 256


async def test_a_stream_over_http(http: httpx.AsyncClient) -> None:
    async with http.stream("POST", "/stream", json={"data": {"text": "go"}, "parameters": GREEDY}) as response:
        assert response.status_code == 200
        found = [event async for event in events(response)]
    assert [event.name for event in found] == ["update"] * 12 + ["end"]
    assert found[11].data["finish_reason"] == "length"


async def test_a_parameter_out_of_range_is_422(http: httpx.AsyncClient) -> None:
    body = {"data": {"text": "go"}, "parameters": {"max_new_tokens": 10**6}}
    answer = await http.post("/stream", json=body)
    assert answer.status_code == 422
    assert "max_new_tokens" in str(answer.json()["detail"])


async def test_a_prompt_that_does_not_fit_is_422_and_says_why(http: httpx.AsyncClient) -> None:
    answer = await http.post("/stream", json={"data": {"text": "x" * 300}, "parameters": GREEDY})
    assert answer.status_code == 422
    assert answer.json()["detail"] == "the prompt has 300 tokens; with the answer at most 200 fit"


async def test_one_prompt_that_does_not_fit_stops_its_batch(tiny_folder: Path) -> None:
    async with deployment(tiny_folder) as model:
        with pytest.raises(ExecutorInputError, match="300 tokens"):
            await model.call("/generate", DocList[Prompt]([Prompt(text="ok"), Prompt(text="x" * 300)]), GREEDY)
        (state,) = await model.call("/state", {})
    assert state.slots == 8


async def test_a_client_that_leaves_frees_the_slot(http: httpx.AsyncClient) -> None:
    async def running() -> int:
        return int((await http.post("/state", json={"data": {}})).json()["data"][0]["running"])

    endless = {"temperature": 0, "max_new_tokens": 190}
    async with http.stream("POST", "/stream", json={"data": {"text": "go"}, "parameters": endless}) as response:
        async for _ in events(response):
            assert await running() == 1
            break
    async with asyncio.timeout(10):
        while await running():
            await asyncio.sleep(0.005)


async def test_nothing_is_left_after_the_deployments_life(tiny_folder: Path) -> None:
    before = set(threading.enumerate())
    model = deployment(tiny_folder)
    for _ in range(2):  # it may be entered again
        async with model:
            stream = model.stream("/stream", Prompt(text="go"), GREEDY)
            await anext(stream)
            await stream.aclose()
    left = [thread.name for thread in set(threading.enumerate()) - before if "text-generation" in thread.name]
    assert left == []


def test_without_the_extra_the_import_says_what_to_install() -> None:
    code = "import sys; sys.modules['transformers'] = None; import jina_asgi.contrib.text_generation"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.stderr.strip().endswith(
        "text_generation needs transformers; install it with: pip install 'jina-asgi[text]'"
    )


def test_a_dtype_that_does_not_exist_is_named(tiny_folder: Path) -> None:
    with pytest.raises(ValueError, match="'float8' is none of auto, float32, bfloat16, float16"):
        TextGeneration(model=str(tiny_folder), dtype="float8")


def test_the_executor_can_be_made_by_hand(tiny_folder: Path) -> None:
    with TextGeneration(model=str(tiny_folder), dtype="float32") as executor:
        assert executor.engine.model.name == tiny_folder.name
    doubles.wait_until(lambda: not executor.engine._thread.is_alive())
