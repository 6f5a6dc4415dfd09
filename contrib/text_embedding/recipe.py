"""What a model's own files say of how its vectors are made, in the format of sentence-transformers. Reads no files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Pooling = Literal["mean", "cls", "max", "lasttoken"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
#: Reads a JSON file beside the model; None where there is none.
Read = Callable[[str], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """From a model's last layer to a vector. The defaults are for models that say nothing."""

    pooling: Pooling = "mean"
    normalize: bool = True
    max_length: int | None = None
    lowers: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None


def recipe_of(read: Read) -> Recipe:
    """The recipe in a model's files.

    Raises:
        ValueError: it asks for what is not done here.
    """
    modules = read("modules.json")
    if not isinstance(modules, list):
        return Recipe()
    kinds = {module["type"].rpartition(".")[2]: module["path"] for module in modules}
    if unknown := sorted(kinds.keys() - {"Transformer", "Pooling", "Normalize"}):
        raise ValueError(f"the model has a module {unknown[0]}; expected Transformer, Pooling and Normalize alone")
    texts, prompts = read("sentence_bert_config.json") or {}, read("config_sentence_transformers.json") or {}
    return Recipe(
        pooling=_pooling(read(f"{kinds['Pooling']}/config.json") or {}) if "Pooling" in kinds else "mean",
        normalize="Normalize" in kinds,
        max_length=texts.get("max_seq_length"),
        lowers=bool(texts.get("do_lower_case")),
        prompts={name: prompt for name, prompt in (prompts.get("prompts") or {}).items() if prompt},
        default_prompt_name=prompts.get("default_prompt_name"),
    )


def _pooling(config: Mapping[str, Any]) -> Pooling:
    """The way of pooling; older files have a flag for each."""
    flags = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    named = config.get("pooling_mode")
    names = [named] if isinstance(named, str) else [*named] if named else flags or ["mean"]
    short = [name.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token") for name in names]
    for pooling in POOLINGS:
        if short == [pooling]:
            return pooling
    raise ValueError(f"the model pools by {' and '.join(names)}; expected one of {', '.join(POOLINGS)}")
