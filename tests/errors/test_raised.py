"""What a user's code raised is read without running more of it: completed, bounded, copied and logged."""

from __future__ import annotations

import traceback

import pytest

from jina_asgi.errors import ExecutorError, ExecutorInputError, InvalidDocs, JinaASGIError, Overloaded
from jina_asgi.errors._raised import Unreadable, copy_error, future_safe, loggable, sanitized
from jina_asgi.errors._shown import LONGEST, class_name, safe_repr, safe_str, truncated
from tests.doubles.bad_manners import ERRORS, REFUSALS, BareInput, EndlessText, RudeInput, Thing


class Conflict(ExecutorInputError):
    """As one may derive from ours."""

    status = 409


class Odd(ExecutorInputError):
    status = "many"  # type: ignore[assignment]  # the mistake


@pytest.mark.parametrize("name", [*ERRORS, *REFUSALS])
def test_any_exception_has_a_short_text_and_a_short_class(name: str) -> None:
    error = {**ERRORS, **REFUSALS}[name]()
    assert len(safe_str(error).encode()) <= LONGEST
    assert len(safe_repr(error).encode()) <= LONGEST
    assert len(class_name(error)) <= 100


def test_a_well_made_error_of_a_class_derived_from_ours_stands_for_itself() -> None:
    error = Conflict("taken")
    assert error is sanitized(error)
    assert ("taken", 409) == (error.message, error.status)


def test_one_whose_init_did_not_call_ours_is_completed() -> None:
    error = BareInput("too long")
    assert error is sanitized(error)
    assert ("too long", "too long") == (error.message, str(error))


@pytest.mark.parametrize("error", [RudeInput(), Odd("x")])
def test_one_that_cannot_be_read_is_replaced_by_one_of_the_nearest_class_of_ours(error: ExecutorInputError) -> None:
    found = sanitized(error)
    assert (ExecutorInputError, error) == (type(found), found.__cause__)


def test_facts_of_the_wrong_type_are_those_that_an_error_begins_with() -> None:
    error = Overloaded("full", retry_after=float("nan"), server_wide=None)  # type: ignore[arg-type]  # the mistake
    sanitized(error)
    assert (1.0, True) == (error.retry_after, error.server_wide)


def test_a_list_of_errors_is_short_and_can_be_written() -> None:
    error = InvalidDocs("no", [{"type": "x", "loc": [0, Thing()], "msg": "y" * 10**4, "input": Thing()}] * 1000)
    sanitized(error)
    assert 10 == len(error.errors[:-1])
    assert "not listed: 990 more errors" == error.errors[-1]["msg"]
    assert len(str(error.errors)) < 8192


def test_each_who_waits_raises_an_error_of_their_own_with_the_cause_of_all() -> None:
    error = ExecutorError("x", executor="E", raised="ValueError")
    error.__cause__ = ValueError("y")
    other = copy_error(error)
    assert other is not error
    assert (error.message, error.facts(), error.__cause__) == (other.message, other.facts(), other.__cause__)


@pytest.mark.parametrize("name", ERRORS)
def test_the_log_has_what_can_be_read_of_an_error_and_of_its_causes(name: str) -> None:
    error = ExecutorError("failed")
    error.__cause__ = ERRORS[name]()
    text = "".join(traceback.format_exception(loggable(error)))
    assert "failed" in text
    assert len(text) < 100_000


def test_the_log_has_an_error_itself_where_that_can_be_written() -> None:
    error = JinaASGIError("x")
    assert error is loggable(error)
    assert Unreadable is type(loggable(ERRORS["an enormous text"]()))


def test_what_would_end_a_loop_is_carried_by_what_does_not() -> None:
    assert RuntimeError is type(future_safe(SystemExit(3)))
    assert RuntimeError is type(future_safe(StopIteration()))
    assert ValueError is type(future_safe(ValueError()))


def test_a_text_is_cut_and_what_would_write_lines_or_break_utf8_is_escaped() -> None:
    assert "\\x00\\ud800é" == truncated("\0\ud800é")
    assert ("xx...", str) == (truncated("x" * 100, 5), type(truncated("x" * 100, 5)))
    assert "xxx..." == truncated(EndlessText("x" * 100), 6)
