"""A real browser, without a screen, that sees no other machine than this one: Debian's chromium under selenium."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    NoSuchElementException,
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE = 120
"""seconds after which a test gives up waiting"""
PASSING = (NoSuchElementException, StaleElementReferenceException, ElementClickInterceptedException)
"""what is met on a page that is still being drawn"""
FLAGS = (
    *("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1600,1000"),
    *("disable-background-networking", "disable-component-update", "disable-sync", "disable-default-apps"),
    *("no-first-run", "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
)


class Browser:
    """A window that shows the pages of one address."""

    def __init__(self, driver: webdriver.Chrome, url: str, screenshots: Path) -> None:
        self.driver = driver
        self.url = url
        self.screenshots = screenshots
        self.opened = 0

    def open(self, route: str) -> None:
        """Load a page anew; what follows the # alone would not reload it."""
        self.opened += 1
        self.driver.get(f"{self.url}/?{self.opened}#{route}")

    def until(self, what: str, found: Callable[[], Any]) -> Any:
        """The first truthy answer of a call. What the page looked like is kept where there is none."""
        waiting = WebDriverWait(self.driver, PATIENCE, 0.2, PASSING)
        try:
            return waiting.until(lambda _: found())
        except TimeoutException:
            self.shot("failed")
            (self.screenshots / "failed.html").write_text(self.driver.page_source)
            pytest.fail(f"no {what} in {PATIENCE} s at {self.driver.current_url}; see {self.screenshots}/failed.png")

    def all(self, css: str) -> list[WebElement]:
        """What is there by now."""
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def one(self, css: str, text: str = "") -> WebElement:
        """The first element that is seen and holds the text, once there is one."""

        element: WebElement = self.until(f"{css} with {text!r}", lambda: self._seen(css, text))
        return element

    def click(self, css: str, text: str = "", inside: str = "") -> None:
        """Click that element, or what is inside it, once it is there and uncovered."""

        def clicked() -> bool:
            if element := self._seen(css, text):
                (element.find_element(By.CSS_SELECTOR, inside) if inside else element).click()
            return element is not None

        self.until(f"{css} with {text!r} to click", clicked)

    def press(self, css: str, keys: str) -> None:
        """Press keys in the first such element that is seen, once there is one."""

        def pressed() -> bool:
            if element := self._seen(css):
                element.send_keys(keys)
            return element is not None

        self.until(f"{css} to type in", pressed)

    def _seen(self, css: str, text: str = "") -> WebElement | None:
        return next((each for each in self.all(css) if each.is_displayed() and text in each.text), None)

    def picture(self, css: str, part: str = "") -> WebElement:
        """The first image whose address holds the part, once it is there with all of its pixels."""
        script = "return arguments[0].complete && arguments[0].naturalWidth > 32"

        def found() -> WebElement | None:
            images = [each for each in self.all(css) if part in str(each.get_attribute("src"))]
            return next((each for each in images if self.driver.execute_script(script, each)), None)

        element: WebElement = self.until(f"picture {part or css}", found)
        return element

    def shot(self, name: str) -> None:
        """Keep what the window shows."""
        self.driver.save_screenshot(self.screenshots / f"{name}.png")

    def asked(self) -> set[str]:
        """The machines that anything was asked of since the last call."""
        events = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        sent = (event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent")
        return {address.hostname or "" for address in map(urlsplit, sent) if address.scheme in ("http", "https", "ws")}


@contextmanager
def browsing(url: str, screenshots: Path, stored: dict[str, str]) -> Iterator[Browser]:
    """A browser for the pages of an address, which finds this in its local storage on every page, and nothing else."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        kept = "".join(
            f"localStorage.setItem({json.dumps(key)}, {json.dumps(value)});" for key, value in stored.items()
        )
        script = {"source": f"localStorage.clear();{kept}"}
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", script)
        screenshots.mkdir(parents=True, exist_ok=True)
        yield Browser(driver, url, screenshots)
    finally:
        driver.quit()
