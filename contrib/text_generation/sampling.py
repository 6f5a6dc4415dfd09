"""Choosing the next token from one row of logits. Functions of plain tensors: no model, no clock, no engine."""

from __future__ import annotations

import torch

from .documents import Sampling

#: How many of the likeliest tokens are looked at before more are sorted; a peaked distribution needs no more.
_FIRST_LOOKS = (64, 1024)


def penalise(logits: torch.Tensor, seen: torch.Tensor, penalty: float) -> torch.Tensor:
    """`logits` (vocabulary,) with the tokens marked in `seen` (vocabulary,) made unlikelier by `penalty`.

    The rule of the CTRL paper, as `transformers.RepetitionPenaltyLogitsProcessor` has it.
    """
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def choose(logits: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """One token from `logits` (vocabulary,), float32 on the CPU: temperature, then top_k, then top_p, then a draw."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    scaled = logits / sampling.temperature
    values, tokens = _candidates(scaled, sampling)
    return int(tokens[torch.multinomial(torch.softmax(values, 0), 1, generator=generator)])


def _candidates(logits: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits that may be drawn from, likeliest first, and their tokens. Sorts no more than it must."""
    size = logits.shape[0]
    top_k = min(sampling.top_k or size, size)
    if sampling.top_p == 1:
        if top_k == size:
            return logits, torch.arange(size)
        values, tokens = torch.topk(logits, top_k)
        return values, tokens
    total = (logits if top_k == size else torch.topk(logits, top_k).values).logsumexp(0)
    for look in (*_FIRST_LOOKS, size):
        values, tokens = torch.topk(logits, min(look, top_k))
        reached = torch.cumsum((values - total).exp(), 0)
        if look >= top_k or reached[-1] >= sampling.top_p:
            break
    # A token stays when those likelier than it do not reach `top_p` by themselves: the likeliest always stays.
    kept = 1 + int((reached[:-1] < sampling.top_p).sum())
    return values[:kept], tokens[:kept]
