"""Texts to tokens, many in one call of the tokenizer, each cut to what the model reads. One thread owns it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

#: Of a text longer than so many characters a token, its beginning is looked at first: it mostly suffices. Where it
#: does not (a word of a megabyte, a megabyte of spaces) it is looked at up to the second figure, and no further.
_CHARACTERS, _AT_MOST = 32, 2048


class Tokens(NamedTuple):
    """The tokens of one text; `whole` says that nothing of it was cut off."""

    ids: list[int]
    whole: bool


class Tokenizer:
    """A tokenizer of transformers, for texts of at most `max_length` tokens, its special ones among them."""

    def __init__(self, tokenizer: Any, max_length: int, *, lowers: bool = False) -> None:
        self._tokenizer, self.max_length, self._lowers = tokenizer, max_length, lowers
        #: The part of it in Rust, where it has one: without what is around it a text takes half the time.
        self._backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        if self._backend is not None:
            self._backend.enable_truncation(max_length + 1)
            self._backend.no_padding()
        self.calls = 0
        empty, filled = self._ids(["", "a"])
        begins = next((at for at, (one, other) in enumerate(zip(empty, filled, strict=False)) if one != other), 0)
        #: How many special tokens end every text.
        self._ending = len(empty) - begins
        self.calls = 0

    def read(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text."""
        if self._lowers:
            texts = [text.lower() for text in texts]
        room = _CHARACTERS * self.max_length
        found = self._ids([_beginning(text, room) for text in texts])
        short = [at for at, text in enumerate(texts) if len(text) > room and len(found[at]) <= self.max_length]
        if short:
            most = _AT_MOST * self.max_length
            for at, ids in zip(short, self._ids([texts[at][:most] for at in short]), strict=True):
                found[at] = ids
        return [self._cut(ids, text) for ids, text in zip(found, texts, strict=True)]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        """One token too many where a text is too long, which tells that from one that fits."""
        self.calls += 1
        if self._backend is not None:
            return [found.ids for found in self._backend.encode_batch_fast(texts)]
        made = self._tokenizer(
            texts,
            truncation=True,
            max_length=self.max_length + 1,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        ids: list[list[int]] = made["input_ids"]
        return ids

    def _cut(self, ids: list[int], text: str) -> Tokens:
        if len(ids) <= self.max_length:
            return Tokens(ids, len(text) <= _AT_MOST * self.max_length)
        ending = len(ids) - self._ending
        return Tokens(ids[: self.max_length - self._ending] + ids[ending:], False)


def _beginning(text: str, room: int) -> str:
    """So much of a long text, to the end of a word where there is one."""
    if len(text) <= room:
        return text
    return text[: text.rfind(" ", 0, room)] if text.rfind(" ", 0, room) > 0 else text[:room]
