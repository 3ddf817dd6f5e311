"""A real Chromium without a window, driven over its DevTools protocol. Knows nothing of trisect."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

PATIENCE_S = 120.0
ANSWER_S = 1200.0
NAMES = ("chromium", "chromium-browser", "google-chrome")


def find() -> str | None:
    """The browser's program, or None where it is not installed."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class PageError(AssertionError):
    """A script in the page failed."""


class Tab:
    """One page."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._number = socket, 0
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give a command and return its answer; what the page says meanwhile is kept in `events`."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=ANSWER_S))
            if message.get("id") == self._number:
                if "error" in message:
                    raise PageError(f"{method}: {message['error']}")
                result: dict[str, Any] = message["result"]
                return result
            self.events.append(message)

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise PageError(json.dumps(found["exceptionDetails"])[:2000])
        return found["result"].get("value")

    def open(self, url: str) -> None:
        """Go there, and wait until it is loaded."""
        self.send("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def wait(self, script: str, patience_s: float = PATIENCE_S) -> None:
        """Wait until an expression is true; fails with what the page shows."""
        give_up = time.monotonic() + patience_s
        while True:
            try:
                if self.run(f"Boolean({script})"):
                    return
            except PageError as error:
                if time.monotonic() > give_up:
                    raise
                if "Execution context was destroyed" not in str(error):
                    time.sleep(0.2)
            if time.monotonic() > give_up:
                raise PageError(f"waited {patience_s:.0f} s for {script}; the page shows:\n{self.text()[:3000]}")
            time.sleep(0.1)

    def text(self, selector: str = "body") -> str:
        """All text that is shown in an element."""
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """Give the window this size, in CSS pixels, and the system this theme."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def press(self, key: str) -> None:
        """Press and release a key, where the focus is."""
        for kind in ("rawKeyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def mouse(self, kind: str, x: float, y: float) -> None:
        """A mouse event of a left button: mousePressed, mouseMoved, mouseReleased."""
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Write a PNG of the window, or of the whole page."""
        data = self.send("Page.captureScreenshot", captureBeyondViewport=whole, **self._clip(whole))["data"]
        path.write_bytes(base64.b64decode(data))

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def complaints(self) -> list[str]:
        """Errors that scripts raised, and what the content policy or the network refused."""
        self.run("1")  # takes in what has come
        found = []
        for event in self.events:
            if event.get("method") == "Runtime.exceptionThrown":
                details = event["params"]["exceptionDetails"]
                found.append(str(details.get("exception", {}).get("description") or details.get("text")))
            elif event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
                found.append(str(event["params"]["entry"]["text"]))
        return found


class Chromium:
    """The browser's process, with a profile of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        program = find()
        assert program is not None
        self._folder = folder
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium has no sandbox for root
        fixed = ["--headless=new", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--mute-audio"]
        small = ["--disable-dev-shm-usage", "--disable-extensions", "--remote-debugging-port=0"]
        self.process = subprocess.Popen(
            [program, *fixed, *small, *sandbox, f"--user-data-dir={folder}", *arguments, "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._port, self._path = self._endpoint()

    def _endpoint(self) -> tuple[int, str]:
        file = self._folder / "DevToolsActivePort"
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up:
            if self.process.poll() is not None:
                raise PageError(f"chromium ended with status {self.process.returncode}")
            if file.exists() and len(lines := file.read_text().split("\n")) >= 2:
                return int(lines[0]), lines[1]
            time.sleep(0.05)
        raise PageError("chromium did not come up")

    @contextmanager
    def tab(self) -> Iterator[Tab]:
        """A new page, closed at the end."""
        with self._socket(self._path) as browser:
            browser.send(json.dumps({"id": 1, "method": "Target.createTarget", "params": {"url": "about:blank"}}))
            target = _answer(browser)["targetId"]
            with self._socket(f"/devtools/page/{target}") as socket:
                yield Tab(socket)
            browser.send(json.dumps({"id": 1, "method": "Target.closeTarget", "params": {"targetId": target}}))
            _answer(browser)

    def _socket(self, path: str) -> ClientConnection:
        return connect(f"ws://127.0.0.1:{self._port}{path}", max_size=None, open_timeout=PATIENCE_S, ping_interval=None)

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _answer(socket: ClientConnection) -> dict[str, Any]:
    while True:
        message = json.loads(socket.recv(timeout=PATIENCE_S))
        if message.get("id") == 1:
            result: dict[str, Any] = message["result"]
            return result


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Callable[[], Any]]:
    """A browser for as long as this lasts; gives what opens a new page."""
    browser = Chromium(folder, *arguments)
    try:
        yield browser.tab
    finally:
        browser.stop()
