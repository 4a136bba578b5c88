"""A headless Chromium, driven through the pipe of its DevTools protocol: one start serves many pages."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.patience import slowness
from tests.support.replica import Late

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 30.0


class Browser:
    """One Chromium; its protocol is JSON with a zero byte behind each message."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out, self._in = to_browser, from_browser
        self._rest, self._next = b"", 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Send one command and return its result; events that come meanwhile are kept."""
        self._next += 1
        message = {
            "id": self._next,
            "method": method,
            "params": parameters,
            **({"sessionId": session} if session else {}),
        }
        os.write(self._out, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + PATIENCE * slowness()
        while time.monotonic() < until:
            answer = self._receive(until)
            if answer.get("id") == self._next:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)
        raise Late(f"Chromium did not answer {method}")

    def _receive(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._in], [], [], max(0.0, until - time.monotonic()))[0]:
                return {}
            part = os.read(self._in, 1 << 20)
            if not part:
                raise Late("Chromium ended")
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    @contextmanager
    def page(
        self, url: str, width: int = 1200, height: int = 900, *, dark: bool = False, scripts: bool = True
    ) -> Iterator[Page]:
        """A page in a context of its own: nothing is shared with other pages."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.size(width, height)
        page.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        page.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        page.call("Emulation.setFocusEmulationEnabled", enabled=True)
        page.call("Page.navigate", url=url)
        try:
            yield page
        finally:
            self.call("Target.disposeBrowserContext", browserContextId=context)


class Page:
    """One page of a browser."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser, self.session = browser, session

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **parameters)

    def size(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript gives in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def until(self, expression: str) -> Any:
        """Wait until an expression is true, and return its value."""
        end = time.monotonic() + PATIENCE * slowness()
        while not (value := self.value(f"document.readyState === 'complete' && ({expression})")):
            if time.monotonic() > end:
                raise Late(f"{expression} did not come; the page shows:\n{self.text()}")
            time.sleep(0.05)
        return value

    def text(self) -> str:
        """What a reader sees."""
        return self.value("document.body ? document.body.innerText : ''")

    def press(self, key: str, code: int, text: str = "", modifiers: int = 0) -> None:
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def write(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def complaints(self) -> list[str]:
        """What Chromium says of refused resources, errors of scripts, and broken markup."""
        self.value("1")  # takes the events that are there
        mine = [event for event in self.browser.events if event.get("sessionId") == self.session]
        entries = [event["params"]["entry"] for event in mine if event["method"] == "Log.entryAdded"]
        thrown = [
            event["params"]["exceptionDetails"]["text"]
            for event in mine
            if event["method"] == "Runtime.exceptionThrown"
        ]
        return [f"{entry['source']}: {entry['text']} {entry.get('url', '')}" for entry in entries] + thrown

    def requests(self) -> list[Mapping[str, Any]]:
        """Every request that the page made."""
        self.value("1")
        return [
            event["params"]["request"]
            for event in self.browser.events
            if event.get("sessionId") == self.session and event["method"] == "Network.requestWillBeSent"
        ]

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Save what it looks like, as PNG."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Run a Chromium with a profile in this folder."""
    assert CHROMIUM
    read_commands, write_commands = os.pipe()
    read_answers, write_answers = os.pipe()
    argv = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    ]
    argv += ["--hide-scrollbars", "--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}", "about:blank"]
    # Chromium reads commands from descriptor 3 and writes answers to 4.
    shell = f'exec "$@" 3<&{read_commands} 4>&{write_answers}'
    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *argv], pass_fds=(read_commands, write_answers), stdout=log, stderr=log
        )
    os.close(read_commands)
    os.close(write_answers)
    running = Browser(write_commands, read_answers)
    try:
        yield running
    finally:
        running.call("Browser.close")
        process.wait(PATIENCE)
        os.close(write_commands)
        os.close(read_answers)
