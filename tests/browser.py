"""A headless Chromium for the tests of pages, driven over WebDriver's HTTP interface."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
IS_THERE = BROWSER is not None and DRIVER is not None
SECONDS = 60.0  # to wait for anything; the machine may be busy
KEYS = {
    "End": "\ue010", "Home": "\ue011", "ArrowLeft": "\ue012", "ArrowUp": "\ue013",
    "ArrowRight": "\ue014", "ArrowDown": "\ue015", "Escape": "\ue00c", "Enter": "\ue007",
}  # fmt: skip


class Browser:
    """One window; `with Browser(...)` starts and ends it. Nothing of it is on the network.

    folder: for its profile. is_dark: the colour scheme that pages are told.
    """

    def __init__(
        self, folder: Path, *, size: tuple[int, int] = (1400, 1000), is_dark: bool = False
    ) -> None:
        self._folder, self._size, self._is_dark = folder, size, is_dark

    def __enter__(self) -> Self:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._root = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            self._begin()
        except BaseException:
            self._end()
            raise
        return self

    def _begin(self) -> None:
        width, height = self._size
        arguments = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--disable-background-networking", "--autoplay-policy=no-user-gesture-required",
            f"--window-size={width},{height}", f"--user-data-dir={self._folder}",
            *(["--force-dark-mode"] if self._is_dark else []),
        ]  # fmt: skip
        capabilities = {
            "goog:chromeOptions": {"args": arguments, "binary": BROWSER},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        deadline = time.monotonic() + SECONDS
        while True:  # until the driver listens
            try:
                answer = self._send(
                    "POST", "/session", {"capabilities": {"alwaysMatch": capabilities}}
                )
                break
            except (ConnectionError, urllib.error.URLError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        self._session = f"/session/{answer['sessionId']}"

    def __exit__(self, *error: object) -> None:
        try:
            self._send("DELETE", self._session)
        finally:
            self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._root + path, data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None

    def open_file(self, page: Path, fragment: str = "") -> None:
        """Open a page anew, also where only the fragment differs."""
        self._send("POST", f"{self._session}/url", {"url": "about:blank"})
        self._send("POST", f"{self._session}/url", {"url": page.as_uri() + fragment})

    def open(self, page: Path, fragment: str = "") -> None:
        """Open a page of view/page.py and wait until its script is done."""
        self.open_file(page, fragment)
        self.wait("document.documentElement.dataset.state === 'ready'")

    def value(self, expression: str) -> Any:
        """The value of an expression of JavaScript."""
        body = {"script": f"return {expression}", "args": []}
        return self._send("POST", f"{self._session}/execute/sync", body)

    def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + SECONDS
        while not self.value(f"!!({condition})"):
            assert time.monotonic() < deadline, f"never true: {condition}; {self.errors()}"
            time.sleep(0.05)

    def press(self, *keys: str) -> None:
        """Press keys one after the other, by character or name; Shift+ is possible."""
        actions = []
        for key in keys:
            name = key.removeprefix("Shift+")
            shift = [{"type": "keyDown", "value": "\ue008"}] if name != key else []
            unshift = [{"type": "keyUp", "value": "\ue008"}] if name != key else []
            code = KEYS.get(name, name)
            actions += [*shift, {"type": "keyDown", "value": code}]
            actions += [{"type": "keyUp", "value": code}, *unshift]
        self._act({"type": "key", "id": "keyboard", "actions": actions})

    def click(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """Click in an element, at shares of its width and height."""
        rect = self.value(
            f"(() => {{ const r = document.querySelector({json.dumps(selector)})"
            ".getBoundingClientRect(); return [r.left, r.top, r.width, r.height]; })()"
        )
        place = {"x": round(rect[0] + x * rect[2]), "y": round(rect[1] + y * rect[3])}
        move = {"type": "pointerMove", "duration": 0, "origin": "viewport", **place}
        down, up = {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}
        self._act({"type": "pointer", "id": "mouse", "actions": [move, down, up]})

    def _act(self, source: dict[str, Any]) -> None:
        self._send("POST", f"{self._session}/actions", {"actions": [source]})

    def errors(self) -> list[str]:
        """Warnings and errors of the console since the last call."""
        entries = self._send("POST", f"{self._session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    def screenshot(self, path: Path) -> None:
        """Write the window as PNG."""
        path.write_bytes(base64.b64decode(self._send("GET", f"{self._session}/screenshot")))
