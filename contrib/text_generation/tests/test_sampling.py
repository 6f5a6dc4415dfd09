"""Choosing tokens: against transformers' own processors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from jina_asgi.contrib.text_generation import Sampling
from jina_asgi.contrib.text_generation.sampling import choose, penalise


def logits(size: int = 2000, spread: float = 3.0, seed: int = 1) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * spread


def drawn(row: torch.Tensor, sampling: Sampling, times: int = 2000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.tensor([choose(row, sampling, generator) for _ in range(times)])


def test_temperature_zero_takes_the_likeliest() -> None:
    row = logits()
    assert choose(row, Sampling(temperature=0, top_k=5, top_p=0.1), torch.Generator()) == int(row.argmax())


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.7, top_p=0.9),
        Sampling(temperature=1.5, top_p=0.99),
        Sampling(temperature=1, top_p=1, top_k=7),
        Sampling(temperature=2, top_p=0.5, top_k=100),
        Sampling(temperature=1, top_p=1e-6),
    ],
    ids=repr,
)
def test_draws_follow_the_distribution_that_transformers_computes(sampling: Sampling) -> None:
    row = logits()[None]
    ids = torch.zeros(1, 0, dtype=torch.long)
    expected = TemperatureLogitsWarper(sampling.temperature)(ids, row)
    if sampling.top_k:
        expected = TopKLogitsWarper(sampling.top_k)(ids, expected)
    if sampling.top_p < 1:
        expected = TopPLogitsWarper(sampling.top_p)(ids, expected)
    likely = torch.softmax(expected[0], 0)
    found = torch.bincount(drawn(row[0], sampling), minlength=len(likely)) / 2000
    assert not bool((found > 0)[likely == 0].any())
    # What chance alone leaves between 2000 draws and their distribution grows with the tokens that may be drawn.
    assert float((found - likely).abs().sum()) < 0.05 + math.sqrt(int((likely > 0).sum()) / 2000)


def test_without_limits_every_token_may_be_drawn() -> None:
    assert set(drawn(torch.zeros(20), Sampling(temperature=1, top_p=1)).tolist()) == set(range(20))


def test_a_flat_distribution_is_cut_where_transformers_cuts_it() -> None:
    row = torch.linspace(0, 0.001, 5000)
    kept = TopPLogitsWarper(0.9)(torch.zeros(1, 0, dtype=torch.long), row[None])[0] > -float("inf")
    found = set(drawn(row, Sampling(temperature=1, top_p=0.9), times=500).tolist())
    assert found <= set(kept.nonzero().flatten().tolist())
    assert min(found) < 1000, "tokens beyond the first 1024 are drawn too"


def test_the_penalty_is_that_of_transformers() -> None:
    row, seen = logits(50), [3, 4, 40]
    marked = torch.zeros(50, dtype=torch.bool)
    marked[seen] = True
    expected = RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([seen]), row[None].clone())[0]
    assert torch.equal(penalise(row, marked, 1.3), expected)


def test_a_seed_repeats_the_draws() -> None:
    sampling = Sampling(temperature=1.0)
    one, other = (
        [choose(logits(seed=step), sampling, generator) for step in range(10)]
        for generator in (torch.Generator().manual_seed(5), torch.Generator().manual_seed(5))
    )
    assert one == other


@pytest.mark.parametrize(
    "wrong",
    [
        *({"max_new_tokens": value} for value in (0, -1, 4097, 2**31, 2**63, True, "5", 1.0, None)),
        *({"temperature": value} for value in (-0.1, 2.1, float("nan"), float("inf"), "1")),
        *({"top_p": value} for value in (0, 1.1, -1)),
        *({"top_k": value} for value in (-1, 1001, True)),
        *({"repetition_penalty": value} for value in (0, 2.5)),
        *({"seed": value} for value in (-1, 2**63)),
        *({"stop": value} for value in ([""], ["x" * 65], ["x"] * 9, "x")),
        {"max_tokens": 5},
    ],
    ids=repr,
)
def test_a_parameter_out_of_its_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Sampling(**wrong)
