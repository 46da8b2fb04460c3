"""Runs pages in a real headless Chromium, driven by Selenium with the machine's own chromedriver: nothing is downloaded."""

from __future__ import annotations

import base64
import json
import shutil
import warnings
from typing import TYPE_CHECKING, Any

from selenium.webdriver import ActionChains, Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

if TYPE_CHECKING:
    from pathlib import Path

# `packaging/bootstrap` installs these
PROGRAMS = ("chromium", "chromedriver")
# seconds within which a page loads, or a script answers
PATIENCE = 60
# no feature that connects to anybody; and a proxy that is not there, so that nothing could
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-default-browser-check",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--proxy-server=http://127.0.0.1:9",
)  # fmt: skip
# the least contrast of any text with what lies behind it; WCAG wants 4.5
CONTRAST = """(() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[0-9.]+/g).map((n) => n / 255).map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)$/.test(color)) return light(color);
    }
  };
  let least = 21;
  for (const e of document.querySelectorAll("body *")) {
    if (!e.checkVisibility() || !Array.from(e.childNodes).some((n) => n.nodeType === 3 && n.data.trim())) continue;
    const [one, other] = [light(getComputedStyle(e).color), behind(e)].sort((a, b) => b - a);
    least = Math.min(least, (one + 0.05) / (other + 0.05));
  }
  return least;
})()"""


def missing() -> list[str]:
    """Return which of the two programs this machine lacks."""
    return [each for each in PROGRAMS if shutil.which(each) is None]


class Page:
    """The browser's one tab: opens addresses, answers questions, and lists what was requested and complained of."""

    def __init__(self, driver: Chrome) -> None:
        self._driver = driver
        self.requests: list[str] = []
        self.complaints: list[str] = []

    def open(self, url: str) -> None:
        self._driver.get(url)
        self._read_logs()

    def value(self, script: str) -> Any:
        """Return what a piece of JavaScript gives; where the page may run no scripts, this one runs all the same."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        self._read_logs()
        return answer["result"].get("value")

    def click(self, selector: str) -> None:
        """Click with the mouse on the first such element."""
        element = self._driver.find_element(By.CSS_SELECTOR, selector)
        self.value(
            f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center', behavior: 'instant'}})"
        )
        ActionChains(self._driver).move_to_element(element).click().perform()

    def type(self, text: str) -> None:
        ActionChains(self._driver).send_keys(text).perform()

    def press(self, key: str) -> None:
        """Press a key, by the name that Selenium gives it: `ENTER`, `TAB`, `ARROW_DOWN`."""
        ActionChains(self._driver).send_keys(getattr(Keys, key)).perform()

    def show(self, width: int, height: int = 900, *, dark: bool = False, medium: str = "") -> None:
        """Give the tab a size, a colour scheme, and a medium; "" is the real one."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", media=medium, features=[scheme])

    def forbid_scripts(self) -> None:
        self.ask("Emulation.setScriptExecutionDisabled", value=True)

    def pdf(self) -> bytes:
        answer = self.ask("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        return base64.b64decode(answer["data"])

    def ask(self, method: str, **values: object) -> dict[str, Any]:
        answer: dict[str, Any] = self._driver.execute_cdp_cmd(method, values)
        return answer

    def _read_logs(self) -> None:
        """Keep what matters of the logs, which are emptied by being read."""
        for entry in _log(self._driver, "performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
        self.complaints += [entry["message"] for entry in _log(self._driver, "browser")]


def _log(driver: Chrome, name: str) -> list[dict[str, Any]]:
    """Return the entries since it was last asked."""
    entries: list[dict[str, Any]] = driver.get_log(name)  # type: ignore[no-untyped-call]
    return entries


class Browser:
    """The program and its driver, which listens on a port of its own on the loopback address."""

    def __init__(self, folder: Path) -> None:
        options = ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        for flag in (*FLAGS, f"--user-data-dir={folder}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        with warnings.catch_warnings():  # it is deprecated for an argument that Chrome() does not take
            warnings.simplefilter("ignore", DeprecationWarning)
            options.ignore_local_proxy_environment_variables()
        # with a path it does not ask Selenium Manager, which would look for drivers in the Internet
        self._driver = Chrome(options, Service(str(shutil.which("chromedriver"))))
        self._driver.set_page_load_timeout(PATIENCE)
        self._driver.set_script_timeout(PATIENCE)

    def page(self) -> Page:
        """Close the tab that there is, and return a new one."""
        old = self._driver.current_window_handle
        self._driver.switch_to.new_window("tab")
        new = self._driver.current_window_handle
        self._driver.switch_to.window(old)
        self._driver.close()
        self._driver.switch_to.window(new)
        for name in ("performance", "browser"):
            _log(self._driver, name)
        return Page(self._driver)

    def close(self) -> None:
        self._driver.quit()
