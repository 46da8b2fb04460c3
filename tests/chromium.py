"""The judge of pages: a real headless Chromium, driven over its DevTools pipe; it has no port and no network to use."""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

# seconds within which a page loads, or a question is answered
PATIENCE = 60
# no feature that talks to anybody; and a proxy that is not there, so that nothing could
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-default-browser-check",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--proxy-server=http://127.0.0.1:9", "--remote-debugging-pipe",
)  # fmt: skip


# the program wants descriptors 3 and 4, and what is between fork and exec of this process should be nothing
_GIVE = """
import fcntl, os, sys
hear, say = (fcntl.fcntl(int(each), fcntl.F_DUPFD, 10) for each in sys.argv[1:3])
os.dup2(hear, 3)
os.dup2(say, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


@dataclass
class Page:
    """One tab: what it was asked to load, what it said, and questions to it."""

    browser: Browser
    session: str
    requests: list[str] = field(default_factory=list)
    input_errors: list[str] = field(default_factory=list)
    loads: int = 0

    def open(self, url: str) -> None:
        wanted = self.loads + 1
        self.ask("Page.navigate", url=url)
        self.browser.until(lambda: self.loads >= wanted)

    def value(self, script: str) -> Any:
        """Return what a piece of JavaScript gives."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def click(self, selector: str) -> None:
        """Click with the mouse where the first such element is."""
        place = self.value(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center', behavior: 'instant'});"
            " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            at = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
            self.ask("Input.dispatchMouseEvent", type=kind, **at)

    def type(self, text: str) -> None:
        self.ask("Input.insertText", text=text)

    def press(self, key: str, code: int, text: str = "") -> None:
        said = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.ask("Input.dispatchKeyEvent", type="keyDown", **said, **({"text": text} if text else {}))
        self.ask("Input.dispatchKeyEvent", type="keyUp", **said)

    def look(self, width: int, height: int = 900, *, dark: bool = False, medium: str = "") -> None:
        """Give the tab a size, a colour scheme, and a medium; "" is the real one."""
        mobile = width < 600
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", media=medium, features=[scheme])

    def picture(self, path: Path, *, whole: bool = False) -> None:
        data = self.ask("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def pdf(self) -> bytes:
        answer = self.ask("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        return base64.b64decode(answer["data"])

    def ask(self, method: str, **values: object) -> dict[str, Any]:
        return self.browser.ask(method, values, self.session)

    def heard(self, method: str, said: dict[str, Any]) -> None:
        """Keep what matters of what the tab tells unasked."""
        if method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        elif method == "Page.loadEventFired":
            self.loads += 1
        elif method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.input_errors.append(json.dumps(said)[:500])


class Browser:
    """The program and its pipe: JSON messages that end with a NUL."""

    def __init__(self, program: str, folder: Path) -> None:
        hear, self._out = os.pipe()
        self._in, say = os.pipe()
        argv = [
            sys.executable,
            "-c",
            _GIVE,
            str(hear),
            str(say),
            program,
            *FLAGS,
            f"--user-data-dir={folder}",
        ]
        self._process = subprocess.Popen(
            argv, pass_fds=(hear, say), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )  # fmt: skip
        os.close(hear)
        os.close(say)
        self._number = 0
        self._rest = b""
        self._answers: dict[int, dict[str, Any]] = {}
        self._pages: dict[str, Page] = {}

    def page(self) -> Page:
        target = self.ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.ask("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = Page(self, session)
        self._pages[session] = page
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.ask(f"{domain}.enable")
        return page

    def ask(self, method: str, values: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": values}
        if session is not None:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        self.until(lambda: number in self._answers)
        answer = self._answers.pop(number)
        assert "error" not in answer, (method, answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def until(self, holds: Any) -> None:
        """Listen until something holds."""
        end = time.monotonic() + PATIENCE
        while not holds():
            left = end - time.monotonic()
            ready, _, _ = select.select([self._in], [], [], max(left, 0))
            assert ready, "the browser says nothing"
            piece = os.read(self._in, 1 << 20)
            assert piece, "the browser is gone"
            *whole, self._rest = (self._rest + piece).split(b"\0")
            for text in whole:
                self._hear(json.loads(text))

    def _hear(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._answers[message["id"]] = message
        elif message.get("sessionId") in self._pages:
            self._pages[message["sessionId"]].heard(message["method"], message["params"])

    def close(self) -> None:
        """End it; the pipe's end is its end too."""
        os.close(self._out)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        os.close(self._in)
