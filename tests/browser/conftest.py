"""One gunicorn with the real model, one headless Chromium; each test has a tab of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from tests.browser.page import Page
from tests.doubles.rig import ROOT, Served

#: Seconds that the first start on a machine may take: the model is fetched and converted.
FIRST_START = 300.0
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1000",
)


class App:
    """The quickstart, as it is served: its address, and how busy its model is."""

    def __init__(self, served: Served) -> None:
        self.url = served.url
        self._client = served.client()

    def close(self) -> None:
        self._client.close()

    def get(self, path: str) -> httpx.Response:
        return self._client.get(path)

    def until_ready(self) -> None:
        """Each ask waits in the server for the model, up to the app's `startup_wait`."""
        end = time.monotonic() + FIRST_START
        while (answer := self._client.post("/lm/state", json={"data": {}})).status_code == 503:
            assert time.monotonic() < end, answer.text
        assert answer.status_code == 200, answer.text

    def running(self) -> int:
        """How many requests hold a slot of the model."""
        answer = self._client.post("/lm/state", json={"data": {}})
        return int(answer.json()["data"][0]["running"])

    def until_running(self, expected: int, within: float = 30.0) -> float:
        """Ask until so many hold a slot; the seconds that took."""
        start = time.monotonic()
        while (found := self.running()) != expected:
            assert time.monotonic() - start < within, f"{found} requests run after {within} s, expected {expected}"
        return time.monotonic() - start


@pytest.fixture(scope="session")
def app() -> Iterator[App]:
    with Served("gunicorn-uvicorn", "quickstart:app", "--chdir", str(ROOT / "examples")) as served:
        app = App(served)
        try:
            app.until_ready()
            yield app
        finally:
            app.close()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = _installed("chromium")
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=ChromeService(_installed("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def _installed(name: str) -> str:
    """Debian's own, so that selenium looks for none elsewhere."""
    path = Path("/usr/bin", name)
    if not path.exists():
        pytest.fail(f"the browser tests need Debian's {name}: apt-get install chromium chromium-driver")
    return str(path)


@pytest.fixture
def new_page(app: App, chromium: Chrome) -> Iterator[Callable[..., Page]]:
    """Open the quickstart in tabs; all are closed afterwards, and the model is idle again."""
    first = chromium.current_window_handle
    opened: list[str] = []

    def open_page(*, before: str = "") -> Page:
        """`before` is a script that runs in the tab before the page's own."""
        chromium.switch_to.new_window("tab")
        opened.append(chromium.current_window_handle)
        chromium.get_log("browser")  # what other tests left there
        if before:
            chromium.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": before})
        chromium.get(app.url)
        return Page(chromium)

    yield open_page
    for handle in opened:
        if handle in chromium.window_handles:
            chromium.switch_to.window(handle)
            chromium.close()
    chromium.switch_to.window(first)
    app.until_running(0)


@pytest.fixture
def page(new_page: Callable[..., Page]) -> Page:
    """The quickstart in a tab, with the model ready."""
    page = new_page()
    page.until_ready()
    return page
