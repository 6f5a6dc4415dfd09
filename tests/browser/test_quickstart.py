"""The quickstart in a real browser, on a real server, with the real model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.page import Page

pytestmark = [pytest.mark.browser, pytest.mark.model, pytest.mark.processes]

#: Answers that end only at their limit.
ENDLESS = {"temperature": 1.5, "max_new_tokens": 1024}

_WATCH_TEXT = """
window.arrivals = [];
new MutationObserver((changes) => {
  for (const change of changes)
    for (const node of change.addedNodes) window.arrivals.push([performance.now(), node.textContent]);
}).observe(document.getElementById("text"), {childList: true});
"""


both_ways = pytest.mark.parametrize("transport", ["sse", "ws"])


@both_ways
def test_tokens_appear_one_by_one(page: Page, transport: str) -> None:
    page.stream_by(transport)
    page.run(_WATCH_TEXT)
    page.generate("Count from one to twenty.", temperature=0, max_new_tokens=48)
    assert page.until_ended() in ("by itself", "at the limit")
    arrivals: list[tuple[float, str]] = page.run("return window.arrivals")
    moments = [moment for moment, _ in arrivals]
    assert len(arrivals) > 10
    assert len(set(moments)) > len(moments) / 2, "they did not come in one piece"
    assert moments[-1] - moments[0] > 100, "nor at one moment, in milliseconds"
    assert "".join(text for _, text in arrivals) == page.answer
    assert page.tokens >= len(arrivals)
    assert page.find("speed").text.endswith("/s")
    assert page.find("first").text.endswith("s")
    assert [entry for entry in page.complaints() if entry["level"] in ("SEVERE", "WARNING")] == []


@both_ways
def test_stop_frees_the_models_slot_within_a_second(page: Page, app: Any, transport: str) -> None:
    page.stream_by(transport)
    page.generate("Write a very long story.", **ENDLESS)
    page.until_tokens(5)
    assert app.running() == 1
    page.stop()
    assert app.until_running(0, within=1.0) < 1.0
    assert page.until_ended() == "by you"
    written = page.answer
    assert written
    assert page.error == ""
    page.generate("Say hello.", temperature=0, max_new_tokens=16)
    page.until(lambda: page.ended != "by you" and page.ended != "–")
    assert not page.answer.startswith(written), "the next answer starts afresh"


@both_ways
def test_leaving_the_page_frees_the_models_slot(page: Page, app: Any, transport: str) -> None:
    page.stream_by(transport)
    page.generate("Write a very long story.", **ENDLESS)
    page.until_tokens(3)
    page.driver.get("about:blank")
    assert app.until_running(0, within=1.0) < 1.0


def test_two_tabs_generate_at_once(new_page: Callable[..., Page], app: Any) -> None:
    pages = [new_page(), new_page()]
    for page in pages:
        page.until_ready()
    pages[0].generate("Write a long story about the sea.", **ENDLESS)
    pages[1].generate("Write a long story about a mountain.", **ENDLESS)
    app.until_running(2)
    before = [page.tokens for page in pages]
    for page, tokens in zip(pages, before, strict=True):
        page.until_tokens(tokens + 5)
    assert app.running() == 2
    assert pages[0].answer[:40] != pages[1].answer[:40]
    pages[0].stop()
    app.until_running(1)
    tokens = pages[1].tokens
    pages[1].until_tokens(tokens + 3)
    pages[1].stop()


_TWENTY_STREAMS = """
const [count, done] = arguments;
import("/page/socket.js").then(async ({ Socket }) => {
  const real = window.WebSocket;
  let sockets = 0;
  window.WebSocket = class extends real { constructor(...given) { super(...given); sockets += 1; } };
  const socket = new Socket("lm/-/ws");
  const parameters = { temperature: 0, max_new_tokens: 8 };
  const one = async (number) => {
    let text = "", ended = "";
    for await (const { name, data } of socket.events("/stream", { data: { text: `Say ${number % 2}.` }, parameters })) {
      if (name === "update") text += data.text;
      else ended = name;
    }
    return [text, ended];
  };
  await socket.events("/state", { data: {} }).next();
  const answers = await Promise.all(Array.from({ length: count }, (_, number) => one(number)));
  socket.close();
  done([sockets, answers]);
}).catch((error) => done(["failed", String(error)]));
"""


def test_twenty_streams_share_one_socket(page: Page) -> None:
    page.driver.set_script_timeout(90)
    sockets, answers = page.driver.execute_async_script(_TWENTY_STREAMS, 20)
    assert 1 == sockets, answers
    assert ["end"] * 20 == [ended for _, ended in answers]
    assert all(text for text, _ in answers)
    assert answers[:2] * 10 == answers, "the same question has the same answer, greedily, on whichever stream"


def test_the_apps_own_route_answers_while_the_model_writes(page: Page, app: Any) -> None:
    page.generate("Write a very long story.", **ENDLESS)
    page.until_tokens(3)
    assert app.get("/hello?name=you").json()["hello"] == "you"
    page.stop()


@both_ways
def test_the_servers_reason_for_refusing_is_shown(page: Page, transport: str) -> None:
    page.stream_by(transport)
    page.generate("x " * 3000)
    page.until(lambda: page.error)
    assert page.error == "the prompt has 3031 tokens; with the answer at most 2048 fit"
    assert page.find("error").aria_role == "alert"
    assert page.can_generate, "one can try again"


def test_a_field_out_of_range_is_marked_and_nothing_is_sent(page: Page) -> None:
    page.run("document.querySelector('details').open = true")
    page.generate("Hello", top_k=5000)
    assert page.run("return document.activeElement.id") == "top_k"
    assert page.ended == "–"


_BROKEN_STREAM = """
const frames = ['event: update\\r\\ndata: {"text": "Half an ans", "tokens": 1}\\r\\n\\r\\n', ': ping\\r\\n\\r\\n',
  'event: error\\r\\ndata: {"detail": "the executor failed", "error": {"type": "ExecutorError"}}\\r\\n\\r\\n'];
const real = window.fetch;
window.fetch = (url, options) => String(url).endsWith("lm/stream") ? Promise.resolve(new Response(ANSWER)) : real(url, options);
"""


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("frames.join('')", "the executor failed"),
        ("frames[0]", "The connection ended before the answer did."),
    ],
    ids=["error event", "cut off"],
)
def test_an_error_within_a_stream_is_shown_below_what_came(
    new_page: Callable[..., Page], answer: str, error: str
) -> None:
    page = new_page(before=_BROKEN_STREAM.replace("ANSWER", answer))
    page.until_ready()
    page.generate("Hello")
    page.until(lambda: page.error)
    assert page.error == error
    assert page.answer == "Half an ans"
    assert page.ended == "with an error"


_LOADING = """
const real = window.fetch;
window.asked = 0;
window.loading = true;
window.fetch = (url, options) => {
  if (!String(url).endsWith("/-/ready") || !window.loading) return real(url, options);
  window.asked += 1;
  return Promise.resolve(new Response(JSON.stringify({detail: "executor is loading; try again later"}),
    {status: 503, headers: {"retry-after": "1"}}));
};
"""


def test_while_the_model_loads_the_page_says_so_and_retries_when_asked(new_page: Callable[..., Page]) -> None:
    page = new_page(before=_LOADING)
    page.until(lambda: page.state == "The model is loading…")
    assert not page.can_generate
    page.until(lambda: page.run("return window.asked") == 3)
    page.run("window.loading = false")
    page.until_ready()
    assert page.state == "Ready"


def test_everything_comes_from_the_app(page: Page, app: Any) -> None:
    loaded: list[str] = page.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert loaded
    assert [name for name in loaded if not name.startswith(app.url)] == []


def test_every_field_has_a_name_and_the_page_fits_a_phone(page: Page) -> None:
    nameless = page.run(
        "return [...document.querySelectorAll('input, textarea')].filter((field) => !field.labels.length)"
        ".map((field) => field.id)"
    )
    assert nameless == []
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 780, "deviceScaleFactor": 2, "mobile": True}
    )
    assert page.run("return document.documentElement.scrollWidth") == 360


def test_it_follows_the_readers_light_or_dark(page: Page) -> None:
    found = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        found.append(page.run("return getComputedStyle(document.querySelector('.card')).backgroundColor"))
    assert found == ["rgb(255, 255, 255)", "rgb(24, 28, 34)"]
