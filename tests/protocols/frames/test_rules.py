"""Which frame is legal when, with no connection at all."""

from __future__ import annotations

import pytest

from jina_asgi.errors import NotReady, ProtocolError
from jina_asgi.protocols.frames import _layout
from jina_asgi.protocols.frames._heads import CreditHead, GoodbyeHead, write, write_error
from jina_asgi.protocols.frames._layout import Frame
from jina_asgi.protocols.frames._rules import (
    STRAYS_LIMIT,
    ClientState,
    Credit,
    PendingRequest,
    ServerState,
    Window,
    agree,
)
from tests.doubles.frames import hello


def asking() -> ClientState[str]:
    state: ClientState[str] = ClientState()
    state.receive(Frame(_layout.HELLO, 0, hello()))
    return state


def answering() -> ServerState[str]:
    state: ServerState[str] = ServerState()
    state.receive(Frame(_layout.HELLO, 0, hello()))
    return state


@pytest.mark.parametrize(
    ("low", "high", "versions", "expected"), [(1, 1, (1, 1), 1), (1, 9, (2, 3), 3), (2, 2, (1, 3), 2)]
)
def test_the_highest_common_version_is_agreed(low: int, high: int, versions: tuple[int, int], expected: int) -> None:
    assert expected == agree(low, high, versions)


@pytest.mark.parametrize(("low", "high"), [(2, 3), (0, 0), (3, 1)])
def test_no_common_version_names_both_ranges(low: int, high: int) -> None:
    with pytest.raises(ProtocolError, match=f"1 to 1 here, {low} to {high} there"):
        agree(low, high, (1, 1))


@pytest.mark.parametrize(
    "frame",
    [
        Frame(_layout.CALL, 1),
        Frame(_layout.RESULT, 1),
        Frame(_layout.HELLO, 1, hello()),
        Frame(_layout.HELLO, 0),
        Frame(_layout.HELLO, 0, hello(magic="something else")),
        Frame(_layout.HELLO, 0, hello(limit=1)),
        Frame(_layout.HELLO, 0, hello(low=7, high=9, version=9)),
        Frame(_layout.ERROR, 0, write_error(NotReady("no"))),
    ],
)
def test_a_connection_begins_with_a_hello_that_both_understand(frame: Frame) -> None:
    for state in (ClientState[str](), ServerState[str]()):
        with pytest.raises(ProtocolError):
            state.receive(frame)
        assert state.hello is None


def test_the_error_that_ends_a_connection_is_kept() -> None:
    state = ClientState[str]()

    with pytest.raises(ProtocolError, match="still loading"):
        state.receive(Frame(_layout.ERROR, 0, write_error(NotReady("still loading"))))

    assert type(state.refusal) is NotReady


def test_an_answer_goes_to_its_own_request() -> None:
    state = asking()
    first, second = state.open_request("first"), state.open_request("second")

    assert second is state.receive(Frame(_layout.RESULT, second.number))
    assert first is state.receive(Frame(_layout.ERROR, first.number))
    assert not state.open
    assert state.waiting == 0


def test_late_duplicate_and_unknown_answers_are_dropped_and_counted() -> None:
    state = asking()
    other, asked, cancelled = state.open_request("other"), state.open_request("asked"), state.open_request("cancelled")
    assert state.cancel(cancelled)

    assert asked is state.receive(Frame(_layout.RESULT, asked.number))
    assert state.receive(Frame(_layout.RESULT, asked.number)) is None
    assert state.receive(Frame(_layout.RESULT, 99)) is None
    assert cancelled is state.receive(Frame(_layout.RESULT, cancelled.number))
    assert state.receive(Frame(_layout.END, cancelled.number)) is None

    assert (state.late, state.strays) == (1, 3)
    assert {other.number: other} == state.open


def test_a_side_that_keeps_sending_stray_answers_is_broken() -> None:
    state = asking()
    for _ in range(STRAYS_LIMIT):
        state.receive(Frame(_layout.RESULT, 1))

    with pytest.raises(ProtocolError, match="answers to requests that are not open"):
        state.receive(Frame(_layout.RESULT, 1))


def test_a_cancelled_call_is_over_with_any_last_frame() -> None:
    for kind in (_layout.RESULT, _layout.ERROR, _layout.END):
        state = asking()
        asked = state.open_request("call")
        assert (state.cancel(asked), state.cancel(asked)) == (True, False)
        assert state.waiting == 0

        state.receive(Frame(kind, asked.number))

        assert not state.open
        assert not state.cancel(asked)


def test_items_of_a_cancelled_stream_are_dropped_and_its_end_is_reported() -> None:
    state = asking()
    asked = state.open_request("stream", Window())
    state.cancel(asked)

    assert state.receive(Frame(_layout.ITEM, asked.number)) is None
    assert asked is state.receive(Frame(_layout.END, asked.number))
    assert state.late == 1


@pytest.mark.parametrize(("is_stream", "kind"), [(False, _layout.ITEM), (False, _layout.END), (True, _layout.RESULT)])
def test_an_answer_of_the_wrong_kind_is_a_protocol_error(is_stream: bool, kind: int) -> None:
    state = asking()
    asked = state.open_request("request", Window() if is_stream else None)

    with pytest.raises(ProtocolError, match="answers a"):
        state.receive(Frame(kind, asked.number))


@pytest.mark.parametrize("kind", [_layout.HELLO, _layout.CALL, _layout.CANCEL, _layout.RESULT])
def test_the_answering_side_may_not_ask_nor_greet_again(kind: int) -> None:
    for number in (0, 1):
        if (kind, number) != (_layout.RESULT, 1):
            with pytest.raises(ProtocolError):
                asking().receive(Frame(kind, number, hello()))


def test_after_goodbye_it_is_known_which_requests_never_started() -> None:
    state = asking()
    first, second = state.open_request("first"), state.open_request("second")
    assert state.started(second)

    state.receive(Frame(_layout.GOODBYE, 0, write(GoodbyeHead(first.number))))

    assert (state.started(first), state.started(second)) == (True, False)


def test_an_item_without_credit_is_a_protocol_error() -> None:
    state = asking()
    by_items = state.open_request("items", Window(items=1, size=1000))
    by_size = state.open_request("size", Window(items=10, size=1))
    for asked in (by_items, by_size):
        assert asked is state.receive(Frame(_layout.ITEM, asked.number))
        with pytest.raises(ProtocolError, match="no credit"):
            state.receive(Frame(_layout.ITEM, asked.number))


def test_credit_is_given_back_once_half_of_the_window_is_read() -> None:
    window = Window(items=4, size=100)
    for _ in range(4):
        window.arrived(10)

    assert window.consumed(10) is None
    assert CreditHead(2, 20) == window.consumed(10)
    assert window.consumed(10) is None
    assert CreditHead(2, 20) == window.consumed(10)


def test_whatever_the_sizes_a_reader_that_reads_on_is_always_sent_more() -> None:
    for items, size, each in [(1, 1, 5), (1, 100, 3), (16, 10, 1), (3, 7, 2), (5, 1, 1000), (2, 9, 9)]:
        window, credit = Window(items, size), Credit(items, size)
        for _ in range(50):
            assert credit.open
            credit.spend(each)
            window.arrived(each)
            given = window.consumed(each)
            if given is not None:
                credit.add(given)


@pytest.mark.parametrize("kind", [_layout.CALL, _layout.STREAM])
def test_a_number_is_used_once_and_numbers_go_up(kind: int) -> None:
    state = answering()
    state.receive(Frame(kind, 5))
    for number in (5, 4, 0):
        with pytest.raises(ProtocolError, match="has a number that was used"):
            state.receive(Frame(kind, number))
    state.receive(Frame(kind, 6))


@pytest.mark.parametrize("kind", [_layout.CANCEL, _layout.CREDIT])
def test_cancel_and_credit_concern_a_request_that_was_made(kind: int) -> None:
    state = answering()
    state.receive(Frame(_layout.CALL, 1))
    state.open[1] = "running"

    assert state.receive(Frame(kind, 1)) == "running"
    del state.open[1]
    assert state.receive(Frame(kind, 1)) is None  # they cross with the last frame
    for number in (0, 2):
        with pytest.raises(ProtocolError, match="never made"):
            state.receive(Frame(kind, number))


@pytest.mark.parametrize(
    "kind", [_layout.HELLO, _layout.RESULT, _layout.ITEM, _layout.END, _layout.ERROR, _layout.GOODBYE, _layout.PING]
)
def test_the_asking_side_may_not_answer_nor_greet_again(kind: int) -> None:
    with pytest.raises(ProtocolError):
        answering().receive(Frame(kind, 1, hello()))


def test_a_request_that_was_never_sent_is_forgotten() -> None:
    state = asking()
    asked: PendingRequest[str] = state.open_request("call")

    state.withdraw(asked)

    assert not state.open
    assert state.waiting == 0
