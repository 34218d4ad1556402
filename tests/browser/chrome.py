"""Headless Chromium for the tests of the page: opened from the disk, watched for errors and requests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

BROWSER: Final = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER: Final = shutil.which("chromedriver")
MISSING: Final = "needs Chromium and its driver: apt-get install chromium chromium-driver"
FLAGS: Final = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage")


@dataclass(frozen=True, slots=True)
class Chrome:
    """One window.

    Attributes:
        driver: selenium's.
    """

    driver: webdriver.Chrome

    def open(self, path: Path, hash: str = "") -> None:
        """Open a page anew, as a person does who clicks a file or a link to it."""
        self.driver.get("about:blank")
        self.logs()
        self.driver.get(path.as_uri() + hash)

    def cdp(self, command: str, **arguments: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, arguments)

    def size(self, width: int, height: int = 900) -> None:
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def scheme(self, name: str) -> None:
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def scripting(self, on: bool) -> None:
        self.cdp("Emulation.setScriptExecutionDisabled", value=not on)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def choose(self, selector: str, text: str) -> None:
        Select(self.one(selector)).select_by_visible_text(text)

    def type(self, *keys: str) -> None:
        """Keys, wherever the focus is."""
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def press(self, modifier: str, key: str) -> None:
        """A key, while another is held down."""
        webdriver.ActionChains(self.driver).key_down(modifier).send_keys(key).key_up(modifier).perform()

    def until(self, script: str, *arguments: Any) -> Any:
        """Wait until a script answers something true; what it answered."""
        return WebDriverWait(self.driver, 10, 0.05).until(lambda _: self.run(script, *arguments))

    @property
    def hash(self) -> str:
        """The address from `#` on."""
        return str(self.run("return location.hash"))

    @property
    def shown(self) -> list[str]:
        """The names of the cards that are shown, in their order."""
        names: list[str] = self.run(
            "return [...document.querySelectorAll('.item:not([hidden]) .name')].map((each) => each.textContent)"
        )
        return names

    def _log(self, kind: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.driver.get_log(kind)  # type: ignore[no-untyped-call]  # selenium's
        return entries

    def logs(self) -> tuple[list[str], list[str]]:
        """Since it was last asked: what the console complained of, and every address that was asked for."""
        console = [str(entry["message"]) for entry in self._log("browser")]
        events = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return console, [address for address in sent if not address.startswith("data:")]


@contextmanager
def chrome(downloads: Path) -> Iterator[Chrome]:
    """A browser with an empty profile, whose downloads go to a folder; it is closed at the end."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        made = Chrome(driver)
        made.cdp("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
        made.size(1280)
        yield made
    finally:
        driver.quit()
