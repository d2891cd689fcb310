"""An X server without a screen, what is seen on it, and hands for its windows: Xvfb, xdotool and libX11."""

import ctypes
import os
import re
import struct
import subprocess

import numpy as np

WATCHDOG_S = 30.0


class Screen:
    """640x480 pixels on a display number that is free; its contents lie in a file in `folder`."""

    def __init__(self, folder):
        reading, writing = os.pipe()
        words = ["-displayfd", str(writing), "-screen", "0", "640x480x24", "-fbdir", str(folder), "-nolisten", "tcp"]
        self._server = subprocess.Popen(["Xvfb", *words], pass_fds=[writing], stderr=subprocess.DEVNULL)
        os.close(writing)
        with os.fdopen(reading) as told:
            self.display = f":{told.readline().strip()}"
        self._contents = folder / "Xvfb_screen0"

    def pixels(self, colour):
        """How many pixels have this colour (blue, green, red)."""
        data = self._contents.read_bytes()
        # XWDFile.h: 32-bit words; 0 the header's size, 4 and 5 width and height, 12 bytes per line, 19 colours
        header = struct.unpack_from(">25I", data)
        width, height, line = header[4], header[5], header[12]
        rows = np.frombuffer(data, np.uint8, height * line, header[0] + header[19] * 12).reshape(height, line)
        return int((rows[:, : width * 4].reshape(height, width, 4)[..., :3] == colour).all(axis=2).sum())

    def place(self, title, x, y, width, height):
        """Put the window there."""
        self._xdotool("windowsize", self._window(title), str(width), str(height))
        self._xdotool("windowmove", self._window(title), str(x), str(y))

    def press(self, title, key):
        """Press a key while the window has the focus."""
        self._xdotool("windowfocus", "--sync", self._window(title), "key", key)

    def destroy(self, title):
        """Cut the window's program off from the display."""
        self._xdotool("windowkill", self._window(title))

    def close(self, title):
        """Ask the window to close, as the cross in its title bar does (WM_DELETE_WINDOW)."""
        x11 = ctypes.CDLL("libX11.so.6")
        x11.XOpenDisplay.restype = ctypes.c_void_p
        x11.XInternAtom.restype = ctypes.c_ulong
        display = ctypes.c_void_p(x11.XOpenDisplay(self.display.encode()))
        protocols, delete = (x11.XInternAtom(display, name, 0) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW"))
        window = int(self._window(title))
        client_message, format_bits = 33, 32
        event = struct.pack("@iLiPLLi5l", client_message, 0, 1, 0, window, protocols, format_bits, delete, 0, 0, 0, 0)
        x11.XSendEvent(display, ctypes.c_ulong(window), 0, ctypes.c_long(0), event.ljust(192, b"\0"))
        x11.XCloseDisplay(display)

    def kill(self):
        self._server.kill()
        self._server.wait()

    def _window(self, title):
        return self._xdotool("search", "--sync", "--onlyvisible", "--name", f"^{re.escape(title)}$").split()[-1]

    def _xdotool(self, *words):
        environment = {**os.environ, "DISPLAY": self.display}
        ran = subprocess.run(
            ["xdotool", *words], env=environment, capture_output=True, text=True, timeout=WATCHDOG_S, check=True
        )
        return ran.stdout
