"""What a model's files say."""

from __future__ import annotations

from typing import Any

import pytest

from jina_asgi.contrib.text_embedding.recipe import Recipe, recipe_of


def module(kind: str, path: str = "") -> dict[str, Any]:
    return {"idx": 0, "name": "0", "path": path, "type": f"sentence_transformers.models.{kind}"}


def files(*modules: dict[str, Any], pooling: dict[str, Any] | None = None, **others: Any) -> dict[str, Any]:
    return {"modules.json": [*modules], "1_Pooling/config.json": pooling or {}, **others}


def test_a_model_that_says_nothing_is_pooled_by_mean_and_normalised() -> None:
    assert recipe_of({}.get) == Recipe(pooling="mean", normalize=True, max_length=None)


def test_all_that_the_files_say_holds() -> None:
    said = files(
        module("Transformer"),
        module("Pooling", "1_Pooling"),
        module("Normalize", "2_Normalize"),
        pooling={"word_embedding_dimension": 8, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
        **{
            "sentence_bert_config.json": {"max_seq_length": 128, "do_lower_case": True},
            "config_sentence_transformers.json": {
                "prompts": {"query": "query: ", "document": ""},
                "default_prompt_name": "query",
            },
        },
    )
    assert recipe_of(said.get) == Recipe(
        pooling="cls",
        normalize=True,
        max_length=128,
        lowers=True,
        prompts={"query": "query: "},
        default_prompt_name="query",
    )


def test_without_a_module_that_normalises_vectors_keep_their_length() -> None:
    assert not recipe_of(files(module("Transformer"), module("Pooling", "1_Pooling")).get).normalize


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, "lasttoken"),
        ({"pooling_mode": "cls", "embedding_dimension": 8}, "cls"),
        ({"pooling_mode": ["lasttoken"]}, "lasttoken"),
        ({}, "mean"),
    ],
    ids=str,
)
def test_pooling_is_read_from_old_files_and_new_ones(config: dict[str, Any], pooling: str) -> None:
    assert recipe_of(files(module("Pooling", "1_Pooling"), pooling=config).get).pooling == pooling


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (files(module("Transformer"), module("Dense", "2_Dense")), "a module Dense; expected"),
        (
            files(module("Pooling", "1_Pooling"), pooling={"pooling_mode_weightedmean_tokens": True}),
            "pools by pooling_mode_weightedmean_tokens; expected one of mean",
        ),
        (
            files(
                module("Pooling", "1_Pooling"),
                pooling={"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            ),
            "pools by pooling_mode_cls_token and pooling_mode_mean_tokens",
        ),
    ],
    ids=["dense", "weighted", "two"],
)
def test_what_is_not_done_here_is_named(said: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        recipe_of(said.get)
