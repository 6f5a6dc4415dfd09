"""One generation as it grows: what of its prompt is read, which tokens were chosen, what their text is.

No model, no thread, no event loop: logits go in, a `Delta` comes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from jina_asgi import ExecutorInputError

from .detokenize import TextStream
from .documents import FinishReason, Sampling
from .sampling import choose, penalise


class Language(Protocol):
    """What is needed of a tokenizer."""

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that end a generation."""
        ...

    @property
    def vocabulary(self) -> int:
        """How many tokens there are: the size of a row of logits."""
        ...

    def encode(self, text: str, system: str | None) -> list[int]: ...

    def decode(self, tokens: list[int]) -> str: ...


@dataclass(frozen=True, slots=True)
class Delta:
    """What one step adds to a generation: text, the number of tokens so far, and at the end the reason for it."""

    text: str
    tokens: int
    prompt_tokens: int
    finish_reason: FinishReason | None = None


class Progress:
    """A prompt and what follows it.

    Raises:
        ExecutorInputError: the prompt has no tokens, or leaves no room for an answer within `max_context`.
    """

    def __init__(
        self, text: str, system: str | None, sampling: Sampling, language: Language, *, max_context: int
    ) -> None:
        self.prompt = language.encode(text, system)
        if not self.prompt:
            raise ExecutorInputError("the prompt is empty")
        if len(self.prompt) >= max_context:
            raise ExecutorInputError(
                f"the prompt has {len(self.prompt)} tokens; with the answer at most {max_context} fit"
            )
        #: How much of the prompt the model has read.
        self.read = 0
        self.tokens = 0
        #: The token chosen last, which the model has not read yet.
        self.last = -1
        self._sampling, self._ends = sampling, language.ends
        self._limit = min(sampling.max_new_tokens, max_context - len(self.prompt))
        self._pieces = TextStream(language.decode, sampling.stop)
        self._generator = torch.Generator()
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)
        self._seen: torch.Tensor | None = None
        if sampling.repetition_penalty != 1:
            self._seen = torch.zeros(language.vocabulary, dtype=torch.bool)
            self._seen[self.prompt] = True

    def piece(self, size: int) -> list[int]:
        """The next `size` tokens of the prompt, or as many as there are."""
        return self.prompt[self.read : self.read + size]

    def take(self, logits: torch.Tensor) -> Delta:
        """Choose a token from `logits` (vocabulary,), and say what that adds."""
        if self._seen is not None:
            logits = penalise(logits, self._seen, self._sampling.repetition_penalty)
        self.last = choose(logits, self._sampling, self._generator)
        self.tokens += 1
        if self._seen is not None:
            self._seen[self.last] = True
        ended = self.last in self._ends
        text = "" if ended else self._pieces.feed(self.last)
        ended = ended or self._pieces.stopped
        reason: FinishReason | None = "stop" if ended else "length" if self.tokens >= self._limit else None
        if reason is not None:
            text += self._pieces.finish()
        return Delta(text, self.tokens, len(self.prompt), reason)
