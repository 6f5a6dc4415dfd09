"""A stream as a browser's own EventSource reads it, which connects again whenever it has not been closed."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.support.wait import WebDriverWait

from tests.doubles.rig import Served

pytestmark = [pytest.mark.browser, pytest.mark.processes]

#: Seconds after which Chromium's EventSource connects again.
RECONNECTS_AFTER = 3.0


@pytest.fixture
def served() -> Iterator[Served]:
    with Served("uvicorn", "tests.browser.event_source_app:app") as served:
        yield served


@pytest.mark.parametrize(
    ("text", "heard"),
    [
        ("one two", [["update", "one"], ["update", "two"], ["end", None]]),
        ("", [["end", None]]),
        ("one bad", [["update", "one"], ["error", "a bad word"]]),
    ],
    ids=["some events", "none", "an error"],
)
def test_a_stream_that_is_over_is_heard_to_be_and_the_model_ran_once(
    served: Served, chromium: Chrome, text: str, heard: list[list[str | None]]
) -> None:
    first = chromium.current_window_handle
    chromium.switch_to.new_window("tab")
    try:
        chromium.get(f"{served.url}/?{httpx.QueryParams(text=text)}")
        WebDriverWait(chromium, 10.0, poll_frequency=0.05).until(
            lambda page: page.execute_script("return source.readyState === EventSource.CLOSED")
        )
        time.sleep(RECONNECTS_AFTER + 1.0)  # time is the subject: nothing may come in it
        assert heard == chromium.execute_script("return heard")
    finally:
        chromium.close()
        chromium.switch_to.window(first)
    with served.client() as client:
        assert "1" == client.post("/lm/runs", json={"data": {}}).json()["data"][0]["text"]
