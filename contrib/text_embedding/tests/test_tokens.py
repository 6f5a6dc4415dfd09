"""Texts to tokens."""

from __future__ import annotations

import pytest

from jina_asgi.contrib.text_embedding.tests.doubles import WORDS, text_of, tokenizer
from jina_asgi.contrib.text_embedding.tokens import Tokenizer


def reference(text: str, longest: int) -> list[int]:
    ids: list[int] = tokenizer()([text], truncation=True, max_length=longest)["input_ids"][0]
    return ids


@pytest.mark.parametrize("words", [0, 1, 13, 14, 15, 400])
def test_tokens_are_the_tokenizers_own_and_say_whether_something_was_cut(words: int) -> None:
    text = text_of(words)
    [found] = Tokenizer(tokenizer(), 16).read([text])
    assert found == (reference(text, 16), words <= 14)


def test_a_tokenizer_all_in_python_is_asked_the_same_way() -> None:
    class Slow:
        """As those of transformers that have no part in Rust."""

        def __call__(self, texts: list[str], *, max_length: int, **options: object) -> dict[str, list[list[int]]]:
            assert options["truncation"]
            words = [[WORDS.index(word) for word in text.replace("a", "w0").split()] for text in texts]
            return {"input_ids": [[2, *one[: max_length - 2], 3] for one in words]}

    texts = [text_of(words) for words in (0, 1, 6, 7)]
    assert Tokenizer(Slow(), 8).read(texts) == Tokenizer(tokenizer(), 8).read(texts)


def test_many_texts_are_one_call() -> None:
    made = Tokenizer(tokenizer(), 16)
    assert len(made.read([text_of(words) for words in range(200)])) == 200
    assert made.calls == 1


@pytest.mark.parametrize(
    "text",
    ["w1 " * 300_000, "w1" + " " * 5000 + "w2", "x" * 5000 + " w3", "x" * 5000, " " * 5000, "w1\x00w2 \u2028 w3"],
    ids=["words", "spaces between", "one word, then another", "one word", "spaces", "control"],
)
def test_of_a_long_text_no_less_is_read_than_of_a_short_one(text: str) -> None:
    [found] = Tokenizer(tokenizer(), 8).read([text])
    assert found.ids == reference(text, 8)
    assert found.whole == (len(reference(text, 10_000_000)) <= 8)


def test_of_a_word_of_a_megabyte_a_part_is_read() -> None:
    [found] = Tokenizer(tokenizer(), 8).read(["x" * 2**20])
    assert (len(found.ids), found.whole) == (3, False)


def test_a_model_that_wants_lower_case_gets_it() -> None:
    assert Tokenizer(tokenizer(), 8, lowers=True).read(["W1 W2"]) == Tokenizer(tokenizer(), 8).read(["w1 w2"])
