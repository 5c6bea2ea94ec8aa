"""Headless Chromium and Firefox for the tests of pages, without the network.

Chromium is driven over WebDriver's HTTP interface by chromedriver, Firefox over Marionette, the
interface that geckodriver uses: the same commands as JSON on a socket.
"""

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

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
IS_THERE = CHROMIUM is not None and DRIVER is not None
HAS_FIREFOX = FIREFOX is not None
SECONDS = 60.0  # to wait for anything; the machine may be busy
KEYS = {
    "End": "\ue010", "Home": "\ue011", "ArrowLeft": "\ue012", "ArrowUp": "\ue013",
    "ArrowRight": "\ue014", "ArrowDown": "\ue015", "Escape": "\ue00c", "Enter": "\ue007",
    "PageUp": "\ue00e", "PageDown": "\ue00f", "Tab": "\ue004",
}  # fmt: skip


class Window:
    """One window of a browser; `with` starts and ends it.

    folder: for its profile. is_dark: the colour scheme that pages are told.
    """

    def __init__(
        self, folder: Path, *, size: tuple[int, int] = (1400, 1000), is_dark: bool = False
    ) -> None:
        self._folder, self._size, self._is_dark = folder, size, is_dark

    def __enter__(self) -> Self:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._process = self._start()
        try:
            deadline = time.monotonic() + SECONDS
            while True:  # until it listens
                try:
                    self._begin()
                    break
                except (ConnectionError, urllib.error.URLError):
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.1)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._quit()
        finally:
            self._end()

    def _start(self) -> subprocess.Popen:
        """Start the process that listens at the port."""
        raise NotImplementedError

    def _begin(self) -> None:
        """Begin a session; ConnectionError or URLError if nothing listens yet."""
        raise NotImplementedError

    def _quit(self) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _call(self, command: str, **parameters: Any) -> Any:
        """The answer to a command of WebDriver; AssertionError with the message of an error."""
        raise NotImplementedError

    def errors(self) -> list[str]:
        """Warnings and errors of the console about pages since the last call."""
        raise NotImplementedError

    def open_file(self, page: Path, fragment: str = "") -> None:
        """Open a page anew, also where only the fragment differs."""
        self._call("Navigate", url="about:blank")
        self._call("Navigate", url=page.as_uri() + fragment)

    def open(self, page: Path, fragment: str = "") -> None:
        """Open a page of view/page.py and wait until its script is done."""
        self.open_file(page, fragment)
        self.wait("document.documentElement.dataset.state === 'ready'")

    def value(self, expression: str) -> Any:
        """The value of an expression of JavaScript."""
        return self._call("ExecuteScript", script=f"return {expression}", args=[])

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
        self._call("PerformActions", actions=[source])

    def resize(self, width: int, height: int) -> None:
        """Change the size of the window; the page in it may have less."""
        self._call("SetWindowRect", width=width, height=height)

    def print(self) -> None:
        """Print the page."""
        self._call("Print")

    def screenshot(self, path: Path) -> None:
        """Write the window as PNG."""
        path.write_bytes(base64.b64decode(self._call("TakeScreenshot", full=False)))


class Browser(Window):
    """Chromium."""

    def _start(self) -> subprocess.Popen:
        return subprocess.Popen(
            [DRIVER, f"--port={self._port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def _begin(self) -> None:
        width, height = self._size
        arguments = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--disable-background-networking", "--autoplay-policy=no-user-gesture-required",
            f"--window-size={width},{height}", f"--user-data-dir={self._folder}",
            *(["--force-dark-mode"] if self._is_dark else []),
        ]  # fmt: skip
        capabilities = {
            "goog:chromeOptions": {"args": arguments, "binary": CHROMIUM},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        answer = self._send("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        self._session = f"/session/{answer['sessionId']}"

    def _quit(self) -> None:
        self._send("DELETE", self._session)

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self._port}{path}"
        request = urllib.request.Request(url, data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None

    def _call(self, command: str, **parameters: Any) -> Any:
        if command == "TakeScreenshot":
            return self._send("GET", f"{self._session}/screenshot")
        paths = {
            "Navigate": "url", "ExecuteScript": "execute/sync", "PerformActions": "actions",
            "SetWindowRect": "window/rect", "Print": "print",
        }  # fmt: skip
        return self._send("POST", f"{self._session}/{paths[command]}", parameters)

    def devtools(self, command: str, **parameters: Any) -> Any:
        """The answer to a command of the DevTools protocol."""
        body = {"cmd": command, "params": parameters}
        return self._send("POST", f"{self._session}/goog/cdp/execute", body)

    def errors(self) -> list[str]:
        entries = self._send("POST", f"{self._session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]


class Firefox(Window):
    """Firefox; it plays H.264 where libavcodec is installed."""

    def _start(self) -> subprocess.Popen:
        settings = {
            "marionette.port": self._port,
            "media.autoplay.default": 0,
            "ui.systemUsesDarkTheme": int(self._is_dark),
            "browser.shell.checkDefaultBrowser": False,
            "datareporting.policy.dataSubmissionEnabled": False,
            "network.proxy.type": 1,  # no network: a proxy that is not there
            "network.proxy.http": "127.0.0.1",
            "network.proxy.http_port": 9,
            "network.proxy.ssl": "127.0.0.1",
            "network.proxy.ssl_port": 9,
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "user.js").write_text(
            "".join(f'user_pref("{key}", {json.dumps(it)});\n' for key, it in settings.items())
        )
        width, height = self._size
        command = [
            FIREFOX, "--headless", "--marionette", "--remote-allow-system-access", "--no-remote",
            "--profile", str(self._folder), f"--width={width}", f"--height={height}",
        ]  # fmt: skip
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _begin(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=SECONDS)
        self._stream, self._count = self._socket.makefile("rb"), 0
        self._receive()  # its greeting
        self._call("NewSession", capabilities={"alwaysMatch": {}})

    def _quit(self) -> None:
        self._socket.close()

    def _receive(self) -> Any:
        """The next message: its length in bytes, a colon, JSON."""
        length = b""
        while not length.endswith(b":"):
            byte = self._stream.read(1)
            assert byte, "Firefox has ended"
            length += byte
        return json.loads(self._stream.read(int(length[:-1])))

    def _call(self, command: str, **parameters: Any) -> Any:
        self._count += 1
        name = command if ":" in command else f"WebDriver:{command}"
        message = json.dumps([0, self._count, name, parameters]).encode()
        self._socket.sendall(b"%d:%s" % (len(message), message))
        _, _, error, answer = self._receive()
        if error is not None:
            raise AssertionError(error["message"])
        return answer["value"] if isinstance(answer, dict) and "value" in answer else answer

    def errors(self) -> list[str]:
        self._call("Marionette:SetContext", value="chrome")
        found = self._call(
            "ExecuteScript",
            script="const all = Services.console.getMessageArray(); Services.console.reset();"
            "return all.filter((m) => m instanceof Ci.nsIScriptError"
            " && m.sourceName.startsWith('file:')).map((m) => m.errorMessage);",
            args=[],
        )
        self._call("Marionette:SetContext", value="content")
        return found
