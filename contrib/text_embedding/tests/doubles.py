"""A real encoder, tiny and of random weights, with the files that say how its vectors are made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{number}" for number in range(60))]
DIMENSIONS, LONGEST = 32, 64


def save_tiny(folder: Path, files: dict[str, Any] | None = None) -> Path:
    """Write a BERT of two layers whose tokens are words, and JSON files beside it."""
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=DIMENSIONS,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LONGEST,
        initializer_range=0.4,
    )
    BertModel(config).eval().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    for name, content in (files or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


def tokenizer() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordLevel(vocab={word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )


def text_of(words: int, first: int = 0) -> str:
    """A text of so many tokens beside the two special ones."""
    return " ".join(f"w{(first + number) % 60}" for number in range(words))
