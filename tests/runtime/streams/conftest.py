"""Cameras that do as they are told, models that wait to be let go, and a real RTSP server to kill."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fcnedge.runtime import Bundle, FakeBackend, Segmenter
from fcnedge.runtime.sources import Frame, Source
from fcnedge.runtime.streams import Pipeline, Stream

WATCHDOG_S = 60.0
"""After this a test has failed; nothing else depends on it."""


class Camera(Source):
    """A live source of which the test says what happens next: `show` a frame, `fail`, or go `away` and come `back`."""

    def __init__(self, uri: str = "camera", size: tuple[int, int] = (32, 48)) -> None:
        super().__init__(uri, live=True, is_video=True)
        self.size = size
        self.opened = 0
        self.knocks = 0
        self.there: bool | None = None
        self._orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._index = 0

    def show(self, image: np.ndarray | None = None) -> None:
        self._orders.put(np.zeros((*self.size, 3), np.uint8) if image is None else image)

    def fail(self, error: Exception) -> None:
        self._orders.put(error)

    def is_there(self) -> bool | None:
        self.knocks += 1
        return self.there

    def __iter__(self) -> Iterator[Frame]:
        self.opened += 1
        while (order := self._orders.get(timeout=WATCHDOG_S)) is not None:
            if isinstance(order, Exception):
                raise order
            yield Frame(order, f"frame_{self._index}", self._index, time.monotonic())
            self._index += 1

    def close(self) -> None:
        self._orders.put(None)


class Film(Source):
    """Frames of which each is as wide as its number + 1: no mask can be taken for another's."""

    def __init__(self, length: int, uri: str = "film") -> None:
        super().__init__(uri, is_video=True, fps=25.0, length=length)
        self.given = 0
        self.closed = 0

    def __iter__(self) -> Iterator[Frame]:
        assert self.length is not None
        for index in range(self.length):
            self.given = index + 1
            yield Frame(np.zeros((8, index + 1, 3), np.uint8), f"film_{index}", index, index / 25)

    def close(self) -> None:
        self.closed += 1


class GatedBackend(FakeBackend):
    """A model that takes each frame only after `let` said so; None lets all through."""

    def __init__(self, manifest: Any) -> None:
        super().__init__(manifest)
        self.gate: threading.Semaphore | None = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)

    def infer(self, image: np.ndarray) -> np.ndarray:
        self.entered.release()
        if self.gate is not None:
            assert self.gate.acquire(timeout=WATCHDOG_S)
        return super().infer(image)

    def let(self, frames: int) -> None:
        assert self.gate is not None
        self.gate.release(frames)

    def wait_entered(self) -> None:
        assert self.entered.acquire(timeout=WATCHDOG_S)


@pytest.fixture
def segmenter(tiny_bundle: Path) -> Iterator[Segmenter]:
    bundle = Bundle.load(tiny_bundle)
    with Segmenter(bundle, FakeBackend(bundle.manifest)) as fake:
        yield fake


@pytest.fixture
def gated(tiny_bundle: Path) -> Iterator[Segmenter]:
    bundle = Bundle.load(tiny_bundle)
    backend = GatedBackend(bundle.manifest)
    with Segmenter(bundle, backend) as fake:
        yield fake
        backend.let(10_000)


@pytest.fixture
def until() -> Callable[[Stream | Pipeline, Callable[[], object]], None]:
    """Give the function that waits for a change: until(stream, lambda: stream.status.captured == 3)."""

    def wait(stream: Stream | Pipeline, true: Callable[[], object]) -> None:
        changed = stream._shared.changed
        begun = time.monotonic()
        with changed:
            while not true():  # not all that is waited for is announced: a stall is not
                changed.wait(0.02)
                assert time.monotonic() - begun < WATCHDOG_S

    return wait


@pytest.fixture
def background() -> Iterator[Callable[[Callable[[], object]], Background]]:
    """Give the function that runs another on a thread; what that raised is raised by `join`."""
    threads: list[Background] = []

    def run(work: Callable[[], object]) -> Background:
        threads.append(Background(work))
        return threads[-1]

    yield run
    for thread in threads:
        thread.join()


class Background:
    def __init__(self, work: Callable[[], object]) -> None:
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            self._error = error

    def join(self) -> None:
        self._thread.join(WATCHDOG_S)
        assert not self._thread.is_alive()
        error, self._error = self._error, None
        if error is not None:
            raise error


class RtspServer:
    """GStreamer's RTSP server in a process of its own, at the same address after a restart."""

    def __init__(self, login: str | None = None) -> None:
        self._login = login
        self._process: subprocess.Popen[str] | None = None
        self.port = 0
        self.start()

    @property
    def address(self) -> str:
        return f"rtsp://{self._login + '@' if self._login else ''}127.0.0.1:{self.port}/clip"

    def start(self) -> None:
        words = [_SYSTEM_PYTHON, str(Path(__file__).with_name("rtsp_server.py")), str(self.port)]
        if self._login:
            words.append(self._login)
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        word, port = self._process.stdout.readline().split()
        assert word == "ready"
        self.port = int(port)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(WATCHDOG_S)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)


_SYSTEM_PYTHON = "/usr/bin/python3"
_PROBE = (
    "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, GstRtspServer; "
    "Gst.init(None); assert Gst.ElementFactory.find('x264enc') and Gst.ElementFactory.find('rtph264pay')"
)


@pytest.fixture(scope="session")
def rtsp_server_installed() -> None:
    python = shutil.which(_SYSTEM_PYTHON)
    probe = subprocess.run([python, "-c", _PROBE], capture_output=True, check=False) if python else None
    if probe is None or probe.returncode:
        pytest.skip(
            "no RTSP server: apt-get install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base "
            "gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly"
        )


@pytest.fixture
def make_rtsp_server(rtsp_server_installed: None) -> Iterator[Callable[..., RtspServer]]:
    servers: list[RtspServer] = []

    def make(login: str | None = None) -> RtspServer:
        servers.append(RtspServer(login))
        return servers[-1]

    yield make
    for server in servers:
        server.kill()


@pytest.fixture
def held() -> Callable[..., tuple[int, int]]:
    """Give the function that counts this process's threads and open descriptors.

    held(expected) waits for these numbers, and gives what it saw last: a thread that was joined is listed a moment
    longer.
    """
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("threads and descriptors are counted in /proc, which is Linux's")

    def count(expected: tuple[int, int] | None = None) -> tuple[int, int]:
        begun = time.monotonic()
        while True:
            counts = len(list(Path("/proc/self/task").iterdir())), len(list(Path("/proc/self/fd").iterdir()))
            if counts == expected or time.monotonic() - begun > (0.5 if expected is None else WATCHDOG_S / 6):
                return counts
            time.sleep(0.01)

    return count


@pytest.fixture
def unused_port() -> int:
    """Give a port of loopback where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Give a port of loopback where connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        yield server.getsockname()[1]
