"""The real default model, all-MiniLM-L6-v2, against transformers' own forward pass; fetched at the first run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import torch
from transformers import AutoModel, AutoTokenizer

from jina_asgi import Deployment
from jina_asgi.contrib.text_embedding import Text, TextEmbedding
from jina_asgi.contrib.text_embedding.loading import default_folder

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

TEXTS = [
    "A cat sits on the mat.",
    "A kitten rests on a rug.",
    "The stock market fell sharply on Tuesday.",
    "",
    "Grüße aus München, 東京タワー и Москва! 👩‍👩‍👧‍👦",
    "word " * 3000,
    "x" * 9000,
    "\x00 [SEP] [MASK] \u202e",
]


def reference(texts: list[str]) -> np.ndarray:
    """As the model's card says: the mean over the tokens of the last layer, of length 1; one text at a time."""
    folder = default_folder()
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    found = []
    for text in texts:
        inputs: Any = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            mean = model(**inputs).last_hidden_state[0].mean(0)
        found.append((mean / mean.norm()).numpy())
    return np.stack(found)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def minilm() -> AsyncIterator[Deployment]:
    async with Deployment(uses=TextEmbedding, uses_with={"threads": 1}) as model:
        yield model


async def vectors(model: Deployment, texts: list[str], **parameters: Any) -> np.ndarray:
    found = await model.call("/embed", [Text(text=text) for text in texts], parameters)
    return np.stack([doc.embedding for doc in found])


async def test_vectors_are_those_of_transformers_own_forward_pass(minilm: Deployment) -> None:
    cosines = (await vectors(minilm, TEXTS) * reference(TEXTS)).sum(1)
    assert np.all(cosines > 0.9999), cosines


async def test_a_texts_vector_is_the_same_alone_and_among_others(minilm: Deployment) -> None:
    together = await vectors(minilm, TEXTS * 8)
    alone = np.concatenate(await asyncio.gather(*(vectors(minilm, [text]) for text in TEXTS)))
    np.testing.assert_allclose(together, np.tile(alone, (8, 1)), atol=1e-5)


async def test_what_means_the_same_is_near(minilm: Deployment) -> None:
    cat, kitten, market = await vectors(minilm, TEXTS[:3])
    assert cat @ kitten > 0.5
    assert cat @ market < 0.2


@pytest.mark.parametrize(("precision", "least"), [("float16", 0.9999), ("int8", 0.9998)])
async def test_fewer_bits_hardly_turn_a_vector(minilm: Deployment, precision: str, least: float) -> None:
    found = (await vectors(minilm, TEXTS, precision=precision)).astype(np.float32)
    cosines = (found * await vectors(minilm, TEXTS)).sum(1) / np.linalg.norm(found, axis=1)
    assert np.all(cosines > least), cosines


async def test_it_reads_as_many_tokens_as_its_files_say(minilm: Deployment) -> None:
    [state] = await minilm.call("/state", [{}])
    assert (state.model, state.dimensions, state.max_length) == ("all-minilm-l6-v2", 384, 256)
