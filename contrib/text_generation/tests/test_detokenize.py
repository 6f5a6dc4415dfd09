"""Text in pieces: joined, they are the whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jina_asgi.contrib.text_generation.detokenize import TextStream
from jina_asgi.contrib.text_generation.tests.doubles import END, byte_tokenizer

TOKENIZER = byte_tokenizer()


def decode(ids: list[int]) -> str:
    return str(TOKENIZER.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def pieces(ids: list[int], stop: tuple[str, ...] = ()) -> list[str]:
    stream = TextStream(decode, stop)
    found = []
    for token in ids:
        found.append(stream.feed(token))
        if stream.stopped:
            break
    return [*found, stream.finish()]


def test_a_character_of_several_tokens_comes_whole() -> None:
    found = pieces(TOKENIZER("né 你好 👩‍🚀").input_ids)
    assert "".join(found) == "né 你好 👩‍🚀"
    assert not any("�" in piece for piece in found)


@given(st.lists(st.integers(0, END)))
def test_joined_pieces_of_any_bytes_equal_the_whole_decoded_at_once(ids: list[int]) -> None:
    assert "".join(pieces(ids)) == decode(ids)


@given(st.text())
def test_joined_pieces_of_any_text_are_that_text(text: str) -> None:
    assert "".join(pieces(TOKENIZER(text, add_special_tokens=False).input_ids)) == text


def test_the_space_before_a_word_is_kept_where_the_decoder_strips_it_at_the_start() -> None:
    words = {1: "▁one", 2: "▁two", 3: "", 4: "▁three"}

    def sentencepiece(ids: list[int]) -> str:
        return "".join(words[i] for i in ids).replace("▁", " ").removeprefix(" ")

    stream = TextStream(sentencepiece)
    assert [stream.feed(token) for token in (1, 2, 3, 4)] == ["one", " two", "", " three"]


def test_an_unfinished_character_comes_at_the_end() -> None:
    ids = TOKENIZER("ok 😀").input_ids[:-1]
    assert pieces(ids)[-1] == "�"


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("one\nUser: two", ("\nUser:",), "one"),
        ("one\nUse it", ("\nUser:",), "one\nUse it"),
        ("one END two", ("END", "one E"), ""),
        ("aaab", ("aab",), "a"),
        ("ends with a st", ("stop",), "ends with a st"),
        ("日本", ("本",), "日"),
    ],
)
def test_text_ends_before_a_stop_string_and_only_there(text: str, stop: tuple[str, ...], expected: str) -> None:
    found = pieces(TOKENIZER(text).input_ids, stop)
    assert "".join(found) == expected


def test_nothing_of_a_stop_string_leaks_before_it_is_complete() -> None:
    stream = TextStream(decode, ("STOP",))
    assert [stream.feed(token) for token in TOKENIZER("a STOP").input_ids] == ["a", " ", "", "", "", ""]
    assert stream.stopped
    assert stream.finish() == ""
