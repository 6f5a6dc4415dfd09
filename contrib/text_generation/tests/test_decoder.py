"""Passes for several rows: each row answers as if it were alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from jina_asgi.contrib.text_generation.decoder import BatchDecoder, SeparateDecoder, decoder_for
from jina_asgi.contrib.text_generation.tests import doubles

DECODERS = [BatchDecoder, SeparateDecoder]
MODELS = {"llama": doubles.llama, "gpt2": doubles.gpt2}


def alone(model: Any, tokens: list[int]) -> torch.Tensor:
    """The logits after `tokens`, computed at once and without a cache."""
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
    return logits


def close(found: torch.Tensor, expected: list[torch.Tensor]) -> bool:
    return torch.allclose(found, torch.stack(expected), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("make", DECODERS)
@pytest.mark.parametrize("name", MODELS)
def test_rows_of_any_length_answer_as_if_alone(make: Any, name: str) -> None:
    model = MODELS[name]()
    decoder = make(model, 4)
    pasts: list[list[int]] = [[1, 2, 3, 4, 5, 6, 7], [8], [9, 10, 11]]
    for _ in pasts:
        decoder.add()
    assert close(decoder.forward(0, pasts), [alone(model, past) for past in pasts])
    for step in range(20, 25):
        for past in pasts:
            past.append(step)
        assert close(decoder.forward(0, [[step]] * 3), [alone(model, past) for past in pasts])


@pytest.mark.parametrize("make", DECODERS)
@pytest.mark.parametrize("name", MODELS)
def test_rows_come_swap_and_go(make: Any, name: str) -> None:
    model = MODELS[name]()
    decoder = make(model, 3)
    for _ in range(3):
        decoder.add()
    decoder.forward(0, [[1, 2, 3], [4, 5], [6, 7, 8, 9]])
    decoder.swap(0, 1)
    assert close(decoder.forward(0, [[20], [21]]), [alone(model, [4, 5, 20]), alone(model, [1, 2, 3, 21])])
    decoder.remove(0)
    assert len(decoder) == 2
    found = decoder.forward(0, [[22], [23]])
    assert close(found, [alone(model, [6, 7, 8, 9, 22]), alone(model, [1, 2, 3, 21, 23])])
    assert decoder.add() == 2
    assert close(decoder.forward(2, [[30, 31]]), [alone(model, [30, 31])])


@pytest.mark.parametrize("name", MODELS)
def test_a_short_prompt_beside_a_long_one_near_the_last_position(name: str) -> None:
    model = MODELS[name]()
    decoder = BatchDecoder(model, 2)
    decoder.add()
    decoder.forward(0, [[5] * 250])
    decoder.add()
    # The second row is wider: what pads the first would lie beyond the model's 256 positions.
    found = decoder.forward(0, [[6, 7], [8] * 40])
    assert close(found, [alone(model, [5] * 250 + [6, 7]), alone(model, [8] * 40)])


def test_the_cache_grows_with_its_longest_row_and_is_given_back() -> None:
    model = doubles.llama()
    decoder = BatchDecoder(model, 2)
    decoder.add()
    past = list(range(100))
    decoder.forward(0, [past])
    for step in range(100, 200):
        past.append(step)
        found = decoder.forward(0, [[step]])
    assert close(found, [alone(model, past)])
    assert decoder._cache.columns == 256
    decoder.remove(0)
    assert decoder._cache.columns == 128
    assert not list(decoder._cache._buffers())


@pytest.mark.parametrize("name", MODELS)
def test_plain_attention_gets_the_batch_decoder(name: str) -> None:
    assert isinstance(decoder_for(MODELS[name](), 4, 256), BatchDecoder)


def mistral(window: int) -> Any:
    torch.manual_seed(7)
    config = MistralConfig(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=window,
        initializer_range=0.4,
    )
    return MistralForCausalLM(config).eval()


@pytest.mark.parametrize(("window", "expected"), [(16, SeparateDecoder), (256, BatchDecoder)])
def test_a_sliding_window_needs_its_own_cache_where_it_is_shorter_than_the_context(window: int, expected: Any) -> None:
    model = mistral(window)
    decoder = decoder_for(model, 2, 256)
    assert type(decoder) is expected
    decoder.add()
    past = list(range(40))
    decoder.forward(0, [past])
    assert close(decoder.forward(0, [[50]]), [alone(model, [*past, 50])])


def test_eager_attention_gets_the_batch_decoder_too() -> None:
    model = doubles.llama()
    model.set_attn_implementation("eager")
    decoder = decoder_for(model, 4, 256)
    assert isinstance(decoder, BatchDecoder)
    decoder.add()
    decoder.add()
    assert close(decoder.forward(0, [[1, 2, 3], [4]]), [alone(model, [1, 2, 3]), alone(model, [4])])


def test_a_model_whose_answers_change_in_a_batch_runs_row_by_row() -> None:
    class IgnoresPositions(type(doubles.llama())):  # type: ignore[misc]
        def forward(self, input_ids: Any = None, position_ids: Any = None, **options: Any) -> Any:
            return super().forward(input_ids=input_ids, **options)

    model = IgnoresPositions(doubles.llama().config).eval()
    assert isinstance(decoder_for(model, 4, 256), SeparateDecoder)


def test_a_model_that_refuses_the_batch_runs_row_by_row() -> None:
    class Refuses(type(doubles.llama())):  # type: ignore[misc]
        def forward(self, input_ids: Any = None, attention_mask: Any = None, **options: Any) -> Any:
            if attention_mask is not None and attention_mask.dim() == 4:
                raise ValueError("no such mask")
            return super().forward(input_ids=input_ids, attention_mask=attention_mask, **options)

    model = Refuses(doubles.llama().config).eval()
    assert isinstance(decoder_for(model, 4, 256), SeparateDecoder)
