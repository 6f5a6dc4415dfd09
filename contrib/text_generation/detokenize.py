"""Tokens to text, a piece at a time, so that the pieces joined are the whole text. No torch, no tokenizer: a function
that decodes a list of ids is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

#: What decoders write for bytes that are no character yet.
_INCOMPLETE = "�"


class TextStream:
    """Decodes one generation as it grows.

    A character may be spread over several tokens, and a token's text may depend on the one before it (a leading
    space). So each step decodes a short window: the last tokens already turned into text, and the new ones; what the
    longer window adds is the new text, and it waits while it ends inside a character. Stop strings may be spread over
    tokens too: text that may be the start of one is held back until it is clear.
    """

    def __init__(self, decode: Callable[[list[int]], str], stop: Sequence[str] = ()) -> None:
        self._decode, self._stop = decode, tuple(stop)
        self._window: list[int] = []
        #: How many ids at the front of the window are text already.
        self._done = 0
        self._held = ""
        #: True once a stop string appeared: nothing more comes out.
        self.stopped = False

    def feed(self, token: int) -> str:
        """Add one token; answer the text that is certain now, possibly none."""
        self._window.append(token)
        text = self._new_text()
        if not text or text.endswith(_INCOMPLETE):
            return ""
        self._window, self._done = self._window[self._done :], len(self._window) - self._done
        return self._release(text)

    def finish(self) -> str:
        """The rest: an unfinished character as the decoder writes it, and text that was held back for a stop string."""
        text = self._release(self._new_text()) if len(self._window) > self._done else ""
        if not self.stopped:
            text, self._held = text + self._held, ""
        return text

    def _new_text(self) -> str:
        known = self._decode(self._window[: self._done])
        return self._decode(self._window)[len(known) :]

    def _release(self, text: str) -> str:
        if self.stopped or not self._stop:
            return "" if self.stopped else text
        text = self._held + text
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max(_overlap(text, stop) for stop in self._stop)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that is a start of `stop`, shorter than it."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
