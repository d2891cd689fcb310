"""The program behind `display://`: one window, in a process of its own.

`python -m fcnedge.runtime.sinks.window TITLE` reads pictures from its standard input and shows them. Each is eight
bytes, height and width as little-endian 32-bit numbers, and height * width * 3 bytes of BGR. It answers one byte once
the window is there and one for each picture, and ends when its input does, or a person closes the window.

A process, because OpenCV's windows belong to one thread: Qt deadlocks when two threads use it, macOS wants the main
thread, and Qt without a display ends the process that it is in.
"""

from __future__ import annotations

import os
import queue
import signal
import struct
import sys
import threading
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from ..opencv import load_cv2

HEADER = struct.Struct("<II")
CLOSED_BY_A_PERSON = 3
"""Exit code for q, Esc, or a window that was closed."""

_LARGEST = (1280, 800)
"""Width and height in pixels that a window has at first, at most; dragging makes it larger."""
_POLL_S = 0.02


def main(title: str) -> int:
    """Show what arrives. Returns 0 at its end, CLOSED_BY_A_PERSON when the window was closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program whose window this is
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever OpenCV prints is no answer
    cv2 = load_cv2()
    cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
    cv2.waitKey(1)
    os.write(answers, b"!")
    arrived: queue.Queue[np.ndarray | None] = queue.Queue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, arrived), daemon=True).start()
    size = None
    while True:
        try:
            image = arrived.get(timeout=_POLL_S)
        except queue.Empty:
            pass
        else:
            if image is None:
                return 0
            if size != image.shape:
                size = image.shape
                cv2.resizeWindow(title, *_fitting(size[1], size[0]))
            cv2.imshow(title, image)
            os.write(answers, b".")
        key = cv2.waitKey(1) & 0xFF
        if key in (ord("q"), 27) or cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) < 1:
            return CLOSED_BY_A_PERSON


def _read(stream: BinaryIO, arrived: queue.Queue[np.ndarray | None]) -> None:
    for image in _pictures(stream):
        arrived.put(image)
    arrived.put(None)


def _pictures(stream: BinaryIO) -> Iterator[np.ndarray]:
    while len(header := stream.read(HEADER.size)) == HEADER.size:
        height, width = HEADER.unpack(header)
        data = stream.read(height * width * 3)
        if len(data) < height * width * 3:
            return
        yield np.frombuffer(data, np.uint8).reshape(height, width, 3)


def _fitting(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, _LARGEST[0] / width, _LARGEST[1] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


if __name__ == "__main__":
    # Qt's and GTK's threads may hang in the interpreter's shutdown; there is nothing left to finish.
    os._exit(main(sys.argv[1]))
