"""The model's passes: padding changes no vector, and pooling is what it is called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, BertModel

from jina_asgi.contrib.text_embedding.encoder import Encoder, pooled
from jina_asgi.contrib.text_embedding.recipe import POOLINGS, Pooling

TEXTS = [[2, *range(4, 4 + length), 3] for length in (1, 9, 30, 3, 9, 0)]


def encoder(folder: Path, pooling: Pooling = "mean", *, pass_tokens: float | None = 0.0) -> Encoder:
    model: BertModel = AutoModel.from_pretrained(folder).eval()
    return Encoder(model, pooling=pooling, padding=0, max_tokens=10_000, pass_tokens=pass_tokens)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("pass_tokens", [0.0, 1e6], ids=["many passes", "one pass"])
def test_a_texts_vector_is_the_same_alone_and_among_others(
    tiny_folder: Path, pooling: Pooling, pass_tokens: float
) -> None:
    made = encoder(tiny_folder, pooling, pass_tokens=pass_tokens)
    together = made.vectors(TEXTS)
    assert together is not None
    for ids, vector in zip(TEXTS, together, strict=True):
        with torch.inference_mode():
            hidden = made._model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        by_hand = {"mean": hidden.mean(0), "cls": hidden[0], "max": hidden.amax(0), "lasttoken": hidden[-1]}
        np.testing.assert_allclose(vector, by_hand[pooling].numpy(), atol=1e-5)
    assert made.passes == (1 if pass_tokens else len({len(ids) for ids in TEXTS}))
    assert made.tokens == sum(map(len, TEXTS))
    assert made.padded_tokens == (len(TEXTS) * 32 if pass_tokens else made.tokens)


def test_a_text_of_no_tokens_at_all_is_zeros(tiny_folder: Path) -> None:
    found = encoder(tiny_folder).vectors([[], [4]])
    assert found is not None
    assert not found[0].any()
    assert found[1].any()
    assert np.isfinite(pooled(torch.ones(1, 2, 3), torch.zeros(1, 2), "mean").numpy()).all()


def test_no_pass_begins_once_nobody_waits(tiny_folder: Path) -> None:
    made, left = encoder(tiny_folder), [True, True, False]
    assert made.vectors(TEXTS, lambda: left.pop(0)) is None
    assert made.passes == 2


def test_what_a_pass_costs_is_measured(tiny_folder: Path) -> None:
    made = encoder(tiny_folder, pass_tokens=None)
    made.measure()
    assert made._pass_tokens is not None
    assert np.isfinite(made._pass_tokens)
    assert made._pass_tokens >= 0
    assert made.passes == 0, "it is no work that anybody asked for"
