"""Drives Debian's Chromium over the DevTools protocol, through a pair of pipes: no WebSocket, no driver, no package.

`--remote-debugging-pipe` reads commands from file descriptor 3 and writes answers and events to 4, JSON messages that
each end in a zero byte: https://chromedevtools.github.io/devtools-protocol/, "HTTP Endpoints" and its source,
content/browser/devtools/devtools_pipe_handler.cc.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

WATCHDOG_S = 60.0
"""For a browser that hangs; nothing is measured with it."""

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

_LAUNCH = (
    "import os, sys; r, w = map(int, sys.argv[1:3]); os.dup2(r, 3); os.dup2(w, 4); os.execvp(sys.argv[3], sys.argv[3:])"
)
_FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # refused to root without, and the page is our own
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
)


def find_chromium() -> str | None:
    """Path of a Chromium, None where there is none."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Chromium:
    """One browser with one tab. console: what went wrong in the page: errors, warnings, exceptions, failed loads."""

    def __init__(self, profile: Path) -> None:
        program = find_chromium()
        assert program is not None
        command_read, self._commands = os.pipe()
        self._answers, answer_write = os.pipe()
        # Away from 3 and 4, which the launcher is about to overwrite.
        ends = [os.dup(end) if end > 4 else _dup_above(end) for end in (command_read, answer_write)]
        for end in (command_read, answer_write):
            os.close(end)
        arguments = [*map(str, ends), program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, *arguments],
            pass_fds=ends,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for end in ends:
            os.close(end)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.console: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command; give its result. Events that come meanwhile are kept in `console`, or passed over."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._note(answer)

    def open(self, url: str, width: int, height: int, *, phone: bool = False, dark: bool = False) -> None:
        """Open a page in a window of this size; phone: with touch, and two device pixels per pixel."""
        scale = 2 if phone else 1
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )
        self.send("Emulation.setTouchEmulationEnabled", enabled=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Page.navigate", url=url)  # answers when the new page has taken the place of the old
        self.until("document.readyState !== 'loading'")

    def run(self, expression: str) -> Any:
        """Value of a JavaScript expression in the page; of a promise, what it resolves to."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str) -> None:
        """Return once the expression is true; asked once per frame that the browser draws."""
        drawn = f"(async () => {{ await new Promise(requestAnimationFrame); return Boolean({expression}); }})()"
        until(lambda: self.run(drawn), f"{expression}; the page said {self.console}")

    def press(self, key: str, code: int) -> None:
        """Press a key and let go. code: its Windows virtual key code, as DevTools wants it."""
        for kind in ("rawKeyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def click(self, expression: str) -> None:
        """Click in the middle of the element that the expression gives, as a mouse does."""
        place = f"(({expression}).scrollIntoView({{block: 'center'}}), ({expression}).getBoundingClientRect())"
        box = self.run(f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({place})")
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def screenshot(self, *, whole: bool = False) -> bytes:
        """PNG of what is to be seen; whole: of the page to its end."""
        return base64.b64decode(self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"])

    def close(self) -> None:
        """End the browser and all its processes."""
        for end in (self._commands, self._answers):
            with contextlib.suppress(OSError):
                os.close(end)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(WATCHDOG_S)

    def __enter__(self) -> Chromium:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], WATCHDOG_S)
            assert ready, "Chromium does not answer"
            data = os.read(self._answers, 1 << 16)
            assert data, "Chromium has ended"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.console.append(details.get("exception", {}).get("description") or details["text"])
        elif event.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.console.append(str(params["args"]))
        elif event.get("method") == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.console.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")


def until(happened: Callable[[], Any], what: str) -> Any:
    """What `happened()` gives once it is true; asked again and again, up to the watchdog's time."""
    give_up = time.monotonic() + WATCHDOG_S
    while time.monotonic() < give_up:
        value = happened()
        if value:
            return value
    raise AssertionError(f"never came true: {what}")


def _dup_above(end: int) -> int:
    import fcntl

    return fcntl.fcntl(end, fcntl.F_DUPFD, 10)
