"""The Executor in a Deployment, in process and over HTTP."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from docarray import DocList
from docarray.documents import ImageDoc, TextDoc
from PIL import Image

from jina_asgi import Client, Deployment, ExecutorInputError, InvalidDocs, JinaASGI
from jina_asgi.contrib.text_to_image import Picture, Prompt, TextToImage
from jina_asgi.contrib.text_to_image.painter import Painter
from jina_asgi.testing import client

SMALL = {"steps": 2, "width": 64, "height": 64, "seed": 1}


def deployment(folder: Path, **options: Any) -> Deployment:
    return Deployment(uses=TextToImage, uses_with={"model": str(folder), **options})


async def test_each_text_becomes_a_picture_in_order(tiny_pipeline: Path) -> None:
    prompts = [Prompt(text=text) for text in ("a cat", "a dog", "a cat")]
    async with deployment(tiny_pipeline, max_batch=2) as model:
        found = await model.call("/generate", prompts, {**SMALL, "format": "tensor"})
    assert [(doc.prompt, doc.seed, doc.bytes_) for doc in found] == [(doc.text, 1, None) for doc in prompts]
    assert all(isinstance(doc, Picture) and doc.tensor.shape == (64, 64, 3) for doc in found)
    assert all(doc.tensor.dtype == np.uint8 for doc in found)
    assert not np.array_equal(found[0].tensor, found[1].tensor)
    difference = np.abs(found[0].tensor.astype(int) - found[2].tensor.astype(int))
    assert difference.max() <= 2, "drawn in another batch, it is the same picture"


async def test_a_seed_that_was_drawn_draws_the_picture_again(tiny_pipeline: Path) -> None:
    free = {name: value for name, value in SMALL.items() if name != "seed"}
    async with deployment(tiny_pipeline) as model:
        first, second = await model.call("/generate", [Prompt(text="a cat")] * 2, free)
        assert first.seed != second.seed
        (again,) = await model.call("/generate", [Prompt(text="a cat")], {**free, "seed": first.seed})
        (alone,) = await model.call("/generate", [Prompt(text="a cat")], {**free, "seed": first.seed})
    assert again.bytes_ == alone.bytes_
    assert first.bytes_ != second.bytes_


async def test_over_http_a_picture_is_a_png_file(tiny_pipeline: Path) -> None:
    async with client(JinaASGI(deployment(tiny_pipeline), wait_ready=True)) as http:
        answer = await http.post("/default", json={"data": [{"text": "a cat"}], "parameters": {**SMALL, "width": 128}})
    assert answer.status_code == 200, answer.text
    image = Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["bytes_"])))
    assert (image.format, image.size, image.mode) == ("PNG", (128, 64), "RGB")


def test_a_client_reads_docarrays_own_documents(tiny_pipeline: Path) -> None:
    """As Jina's programs ask: a TextDoc to '/', an ImageDoc back."""
    asking = Client(app=JinaASGI(deployment(tiny_pipeline)))
    asked = {**SMALL, "format": "tensor"}
    with asking:
        (found,) = asking.post("/", TextDoc(text="a cat"), parameters=asked, return_type=DocList[ImageDoc])
    assert type(found) is ImageDoc
    assert found.tensor.shape == (64, 64, 3)


async def test_guidance_steps_and_what_is_not_wanted_change_the_picture(tiny_pipeline: Path) -> None:
    async with deployment(tiny_pipeline) as model:

        async def drawn(prompt: Prompt, **parameters: Any) -> bytes:
            (found,) = await model.call("/generate", [prompt], {**SMALL, **parameters})
            return bytes(found.bytes_)

        cat = Prompt(text="a cat")
        pictures = [
            await drawn(cat),
            await drawn(cat, guidance=1.0),
            await drawn(cat, steps=3),
            await drawn(Prompt(text="a cat", negative="a dog")),
        ]
    assert len(set(pictures)) == 4


async def test_no_texts_are_no_pictures(tiny_pipeline: Path) -> None:
    async with deployment(tiny_pipeline) as model:
        assert await model.call("/generate", []) == []


async def test_every_step_is_told_in_the_log(tiny_pipeline: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="jina_asgi.executor.TextToImage")
    async with deployment(tiny_pipeline, max_batch=1) as model:
        await model.call("/generate", [Prompt(text="a"), Prompt(text="b")], SMALL)
    told = [record.getMessage() for record in caplog.records if record.name == "jina_asgi.executor.TextToImage"]
    assert told == [f"pictures {one} to {one} of 2: step {step} of 2" for one in (1, 2) for step in (1, 2)]


async def test_a_caller_that_leaves_ends_the_drawing_between_two_steps(
    tiny_pipeline: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log, loop, stepped = (
        logging.getLogger("jina_asgi.executor.TextToImage"),
        asyncio.get_running_loop(),
        asyncio.Event(),
    )
    caplog.set_level(logging.INFO, logger=log.name)

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            loop.call_soon_threadsafe(stepped.set)

    told = Told()
    log.addHandler(told)
    try:
        async with deployment(tiny_pipeline) as model:
            asked = asyncio.create_task(model.call("/generate", [Prompt(text="a")], {**SMALL, "steps": 200}))
            await stepped.wait()
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            await model.call("/generate", [Prompt(text="b")], {**SMALL, "steps": 1})  # after the first has ended
    finally:
        log.removeHandler(told)
    assert 1 <= sum("of 200" in record.getMessage() for record in caplog.records) < 100


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"steps": 201}, {"width": 100}, {"height": 4096}, {"guidance": -1.0}, {"format": "gif"}, {"n": 2}],
    ids=str,
)
async def test_a_parameter_out_of_range_is_refused(tiny_pipeline: Path, wrong: dict[str, Any]) -> None:
    async with deployment(tiny_pipeline) as model:
        with pytest.raises(InvalidDocs, match="parameters do not match Drawing"):
            await model.call("/generate", [Prompt(text="a")], {**SMALL, **wrong})


def test_what_a_pipeline_does_not_take_is_named() -> None:
    class Plain:
        def __call__(self, prompt: list[str], output_type: str) -> None: ...

        def set_progress_bar_config(self, **_: Any) -> None: ...

    painter = Painter(Plain(), "plain")
    with pytest.raises(ExecutorInputError, match="plain takes no num_inference_steps: leave it out"):
        painter.draw(["a"], [None], [1], {"steps": 3}, lambda step, steps: None)
    with pytest.raises(ExecutorInputError, match="plain takes no negative_prompt"):
        painter.draw(["a"], ["b"], [1], {}, lambda step, steps: None)


def test_a_pipeline_without_a_prompt_is_refused_when_it_loads() -> None:
    class Upscaler:
        def __call__(self, image: Any) -> None: ...

    with pytest.raises(ValueError, match="up is a Upscaler, which takes no prompt"):
        Painter(Upscaler(), "up")


def test_a_dtype_that_does_not_exist_is_named(tiny_pipeline: Path) -> None:
    with pytest.raises(ValueError, match="'float8' is none of auto, float32, bfloat16, float16"):
        TextToImage(model=str(tiny_pipeline), dtype="float8")


def test_without_the_extra_the_import_says_what_to_install() -> None:
    code = "import sys; sys.modules['diffusers'] = None; import jina_asgi.contrib.text_to_image"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.stderr.strip().endswith(
        "text_to_image needs diffusers; install it with: pip install 'jina-asgi[image]'"
    )
