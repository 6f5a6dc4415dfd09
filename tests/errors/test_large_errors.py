"""Reading an error of a user's costs no copy of what it was given, however large that is."""

from __future__ import annotations

import logging
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from jina_asgi.errors._raised import error_text, future_safe, loggable, sanitized
from jina_asgi.errors._shown import LONGEST, safe_str

LARGE = 10_000_000
TEXT = "x" * LARGE


def noted() -> Exception:
    error = ValueError("of a batch")
    error.add_note(TEXT)
    return error


def caused() -> Exception:
    error = ValueError("of a batch")
    error.__cause__ = KeyError(TEXT)
    return error


ERRORS: dict[str, Callable[[], Exception]] = {
    "a text": lambda: ValueError(TEXT),
    "a key": lambda: KeyError(TEXT),
    "several": lambda: ValueError(TEXT, 3),
    "bytes": lambda: ValueError(b"x" * LARGE),
    "a bytearray": lambda: ValueError(bytearray(LARGE)),
    "a list": lambda: ValueError([0] * LARGE),
    "nested": lambda: ValueError({"docs": [[TEXT]]}),
    "a file": lambda: OSError(2, TEXT, TEXT),
    "a note": noted,
    "a cause": caused,
}


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("what", ERRORS)
def test_a_large_error_is_reported_and_logged_without_a_copy_of_it(what: str, caplog: pytest.LogCaptureFixture) -> None:
    error = ERRORS[what]()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    texts = [safe_str(error), error_text(sanitized(future_safe(error)))]
    logging.getLogger("jina_asgi").error("failed", exc_info=loggable(error))
    assert tracemalloc.get_traced_memory()[1] - before < LARGE / 10
    assert max(map(len, texts)) <= 2 * LONGEST
    assert len(caplog.text) < LARGE / 100


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a", 3),
        KeyError("a"),
        ValueError(),
        ValueError(["a", 1]),
        ValueError({"a": b"b"}),
        FileNotFoundError(2, "no such file", "a.txt"),
    ],
)
def test_a_small_error_says_what_python_says(error: Exception) -> None:
    assert str(error) == safe_str(error)
    assert error is loggable(error)
