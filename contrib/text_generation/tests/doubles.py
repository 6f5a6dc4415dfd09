"""Small real models and tokenizers, and decoders that can be watched or held. All are quick and need no network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from jina_asgi.contrib.text_generation.engine import Engine, Model
from jina_asgi.contrib.text_generation.loading import load

#: Of the tokenizer below: 256 bytes, then this.
END = 256
CONTEXT = 256


def byte_tokenizer(end: str = "<end>") -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are bytes: any character beyond ASCII is several of them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, pad_token=end)


def llama(**options: Any) -> LlamaForCausalLM:
    """Two layers, with fewer key heads than query heads; weights so large that greedy answers vary.

    Its end token is never the likeliest, so that answers are as long as they may be.
    """
    torch.manual_seed(7)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=257,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.4,
        bos_token_id=None,
        eos_token_id=END,
        **{**sizes, **options},
    )
    model = LlamaForCausalLM(config).eval()
    model.lm_head.weight.data[END] = 0
    return model


def gpt2() -> GPT2LMHeadModel:
    """Learned positions, as many as the context is long: a position too far is an error."""
    torch.manual_seed(7)
    config = GPT2Config(
        vocab_size=257,
        n_positions=CONTEXT,
        n_embd=32,
        n_layer=2,
        n_head=4,
        initializer_range=0.4,
        bos_token_id=END,
        eos_token_id=END,
    )
    return GPT2LMHeadModel(config).eval()


def save(model: Any, folder: Path) -> Path:
    """A model folder as transformers reads it, with the byte tokenizer."""
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


class Watched:
    """A decoder that notes the widths of its passes, and runs one only when it is let."""

    def __init__(self, decoder: Any) -> None:
        self.decoder, self.rows, self.model = decoder, decoder.rows, decoder.model
        #: For each pass the number of tokens of each row.
        self.passes: list[list[int]] = []
        self.entered, self.open = threading.Event(), threading.Event()
        self.open.set()
        self.error: Exception | None = None

    def forward(self, first: int, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        self.passes.append([len(row) for row in tokens])
        self.entered.set()
        assert self.open.wait(30)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        logits: torch.Tensor = self.decoder.forward(first, tokens)
        return logits

    def __len__(self) -> int:
        return len(self.decoder)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.decoder, name)


def watched_engine(folder: Path, rows: int = 4, **options: Any) -> tuple[Engine, Watched]:
    """A started engine on a saved model, in float32, and its decoder."""
    made: list[Watched] = []

    def read() -> Model:
        model = load(str(folder), device="cpu", dtype="float32", rows=rows, max_context=CONTEXT)
        made.append(Watched(model.decoder))
        return replace(model, decoder=made[0])

    engine = Engine(read, threads=1, **options)
    engine.start()
    return engine, made[0]


def wait_until(true: Callable[[], bool], thread: threading.Thread | None = None) -> None:
    """Return once `true()`; for what has no event to wait for."""
    pause, rounds = threading.Event(), 0
    while not true():
        rounds += 1
        assert rounds < 3000, "it did not happen within 30 s"
        pause.wait(0.01)
