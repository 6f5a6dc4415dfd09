"""The quickstart's page as a test uses it: what one sees and does there, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait


class Page:
    """One tab. Every method acts in it, whichever was in front."""

    def __init__(self, driver: Chrome) -> None:
        self._driver, self._handle = driver, driver.current_window_handle

    @property
    def driver(self) -> Chrome:
        if self._driver.current_window_handle != self._handle:
            self._driver.switch_to.window(self._handle)
        return self._driver

    def find(self, name: str) -> WebElement:
        return self.driver.find_element(By.ID, name)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, true: Callable[[], Any], within: float = 30.0) -> None:
        WebDriverWait(self.driver, within, poll_frequency=0.02).until(lambda _: true())

    @property
    def state(self) -> str:
        return self.find("state").text

    @property
    def can_generate(self) -> bool:
        button = self.find("go")
        return button.is_displayed() and button.is_enabled()

    @property
    def answer(self) -> str:
        return str(self.run("return document.getElementById('text').textContent"))

    @property
    def tokens(self) -> int:
        shown = self.find("tokens").text
        return int(shown) if shown.isdigit() else 0

    @property
    def ended(self) -> str:
        return self.find("ended").text

    @property
    def error(self) -> str:
        return self.find("error").text

    def set(self, **fields: Any) -> None:
        """Set fields of the form by their ids, as a reader does, sliders included."""
        for name, value in fields.items():
            self.run(
                "const field = document.getElementById(arguments[0]); field.value = arguments[1];"
                "field.dispatchEvent(new Event('input', {bubbles: true}))",
                name,
                str(value),
            )

    def generate(self, prompt: str, **fields: Any) -> None:
        self.set(prompt=prompt, **fields)
        self.find("go").click()

    def stream_by(self, transport: str) -> None:
        """ "sse" or "ws"."""
        self.set(transport=transport)

    def stop(self) -> None:
        self.find("stop").click()

    def until_ready(self) -> None:
        self.until(lambda: self.can_generate)

    def until_tokens(self, count: int) -> None:
        """Wait until more than `count` tokens have come."""
        self.until(lambda: self.tokens > count)

    def until_ended(self) -> str:
        self.until(lambda: self.ended != "–", within=60)
        return self.ended

    def complaints(self) -> list[Mapping[str, Any]]:
        """What the browser's console has said."""
        entries: list[Mapping[str, Any]] = self.driver.get_log("browser")
        return entries
