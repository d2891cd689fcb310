"""display://: a window on this machine's screen."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn

import numpy as np

from ..child_command import python_module
from ..errors import UserError
from ..opencv import load_cv2
from ..streams.result import StreamResult
from .sink import Sink, SinkClosed, drawn
from .window import CLOSED_BY_A_PERSON, HEADER

_GRACE_S = 3.0
_ELSEWHERE = "to look from another machine, name http://127.0.0.1:8080 instead"


class DisplaySink(Sink):
    """Shows what is drawn in a window; q, Esc or closing it raises SinkClosed. Each sink has a window of its own.

    title: of the window. stays: the last picture is shown until the window is closed, as single pictures need; a run
    that ends by an error or an interrupt closes it at once.

    Raises UserError for an OpenCV without windows and where there is no display.
    """

    def __init__(self, uri: str, title: str, shows: Sequence[str] = ("overlay",), *, stays: bool = False) -> None:
        super().__init__(uri)
        self.shows = tuple(shows)
        self._stays = stays
        self._taking = threading.RLock()
        _require_windows(uri)
        self._window = subprocess.Popen(
            python_module("fcnedge.runtime.sinks.window", title),
            cwd=os.sep,  # `python -m` imports from the current folder first
            env={**os.environ, "PYTHONPATH": _import_path(), "OPENCV_LOG_LEVEL": "OFF"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for this process
        )
        shown = False
        try:
            shown = self._is_answered()
        finally:
            if not shown:
                self._end_window()
        if not shown:
            display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or "this machine"
            raise UserError(f"{uri}: no window can be opened on display {display}; set DISPLAY, or {_ELSEWHERE}")

    def take(self, result: StreamResult, picture: np.ndarray | None) -> None:
        """Show the picture. Raises SinkClosed when a person has closed the window, UserError when it was lost."""
        image = drawn(picture)
        assert self._window.stdin is not None
        with self._taking:
            try:
                self._window.stdin.write(HEADER.pack(*image.shape[:2]))
                self._window.stdin.write(np.ascontiguousarray(image).data)
                self._window.stdin.flush()
            except (OSError, ValueError):  # ValueError: closed from another thread
                self._raise_end()
            if not self._is_answered():
                self._raise_end()
            self.written += 1

    def close(self) -> None:
        """Close the window; where it stays, wait until somebody does, or presses Ctrl-C.

        A window that has frozen in mid-picture, as its display may, is killed after three seconds.
        """
        if self._stays and self.written:
            self._stays = False
            with contextlib.suppress(KeyboardInterrupt):
                self._is_answered()  # nothing was asked: this is its end
        if not self._taking.acquire(timeout=_GRACE_S):
            self._window.kill()
            self._taking.acquire()  # what was being written or read has failed
        try:
            self._end_window()
        finally:
            self._taking.release()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stays = self._stays and error is None
        super().__exit__(kind, error, trace)

    def _is_answered(self) -> bool:
        assert self._window.stdout is not None
        try:
            return bool(self._window.stdout.read(1))
        except ValueError:  # closed from another thread
            return False

    def _raise_end(self) -> NoReturn:
        self._stays = False
        code = self._end_window()
        if code == CLOSED_BY_A_PERSON:
            raise SinkClosed(f"the window of {self.uri} was closed")
        raise UserError(f"the window of {self.uri} was lost; is the display still there?")

    def _end_window(self) -> int:
        """Its exit code; more than once does no harm."""
        assert self._window.stdin is not None
        assert self._window.stdout is not None
        with contextlib.suppress(OSError):  # what was not yet flushed has no reader any more
            self._window.stdin.close()
        try:
            code = self._window.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._window.kill()
            code = self._window.wait()
        self._window.stdout.close()
        return code


def _require_windows(uri: str) -> None:
    cv2 = load_cv2()
    if re.search(r"^\s*GUI:\s*NONE", cv2.getBuildInformation(), re.MULTILINE):
        raise UserError(
            f"{uri} needs an OpenCV with windows, and OpenCV {cv2.__version__} here was built without "
            "(opencv-python-headless always is): pip uninstall opencv-python-headless, then "
            f"pip install 'fcnedge[gui]'; {_ELSEWHERE}"
        )
    named = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"))
    if sys.platform == "linux" and not named:
        raise UserError(
            f"{uri} needs a display, and neither DISPLAY nor WAYLAND_DISPLAY is set; on a machine with a screen set "
            f"DISPLAY=:0; {_ELSEWHERE}"
        )


def _import_path() -> str:
    """Where this process finds its packages, for one that starts in another folder."""
    return os.pathsep.join(str(Path(folder).absolute()) for folder in sys.path)
