"""A page on a free port, results to publish on it, and a client that sends exactly the bytes it is given."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import pytest

from fcnedge.runtime.palette import voc_palette
from fcnedge.runtime.segmentation import Segmentation
from fcnedge.runtime.sources import Frame
from fcnedge.runtime.streams.result import StreamResult
from fcnedge.runtime.web import LivePage
from fcnedge.runtime.web.server import Limits

WATCHDOG_S = 30.0
"""For what never comes; nothing is measured with it."""

CLASSES = ("background", "road", "person")
PALETTE = voc_palette(3)

SPEC = importlib.util.spec_from_file_location("fcnedge_test_chromium", Path(__file__).with_name("chromium.py"))
chromium_module = sys.modules.setdefault("fcnedge_test_chromium", importlib.util.module_from_spec(SPEC))
if not hasattr(chromium_module, "Chromium"):
    SPEC.loader.exec_module(chromium_module)


def make_result(
    sequence: int = 0,
    *,
    source: str = "camera://0",
    size: tuple[int, int] = (48, 64),
    image: np.ndarray | None = None,
    dropped: int = 0,
    ago_s: float = 0.0,
    age_s: float = 0.025,
) -> StreamResult:
    """One result of size (height, width): class 1 in its left half, class 2 in its right quarter; grey by sequence."""
    if image is None:
        image = np.full((*size, 3), 40 + 10 * (sequence % 20), np.uint8)
    height, width = image.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    mask[:, : width // 2] = 1
    mask[:, width * 3 // 4 :] = 2
    finished = time.monotonic() - ago_s
    frame = Frame(image, f"frame_{sequence:06d}", sequence, finished - age_s)
    return StreamResult(
        frame, Segmentation(mask, 1.0, 20.0, 2.0), source, sequence, dropped, finished - age_s, finished
    )


@pytest.fixture
def result() -> Callable[..., StreamResult]:
    return make_result


@pytest.fixture
def noise() -> Callable[[int], StreamResult]:
    """Give results that hardly compress: 480x640, half a megabyte of JPEG each."""
    pixels = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
    return lambda sequence: make_result(sequence, image=np.roll(pixels, sequence, axis=0))


@pytest.fixture
def wait_until() -> Callable[[Callable[[], Any], str], Any]:
    return chromium_module.until


@pytest.fixture
def open_page() -> Iterator[Callable[..., LivePage]]:
    """Give the function that opens pages, which are closed after the test."""
    with contextlib.ExitStack() as stack:

        def opened(address: str = "http://127.0.0.1:0", *, limits: Limits | None = None, **options: Any) -> LivePage:
            return stack.enter_context(
                LivePage(address, PALETTE, CLASSES, "tiny, fake fp32", limits=limits or Limits(), **options)
            )

        yield opened


@pytest.fixture
def page(open_page: Callable[..., LivePage]) -> LivePage:
    return open_page()


@dataclass(frozen=True)
class Answer:
    """headers: by name in small letters; of a header that comes twice the last."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One connection to a page; a context manager."""

    def __init__(self, page: LivePage, *, receive_bytes: int | None = None) -> None:
        found = re.fullmatch(r"http://(.+):(\d+)/", page.url)
        self.host, self.port = found[1].strip("[]"), int(found[2])
        self._socket = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET)
        if receive_bytes is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self._socket.settimeout(WATCHDOG_S)
        self._socket.connect((self.host, self.port))
        self._buffer = b""

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Ask, and read the head; headers: `x_y` is X-Y."""
        headers = {"host": f"{self.host}:{self.port}", **headers}
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        self.send(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode())
        return self.head()

    def head(self) -> Answer:
        lines = self.line_end(b"\r\n\r\n").decode().split("\r\n")
        found = re.fullmatch(r"HTTP/1\.1 (\d{3}) [A-Za-z -]+", lines[0])
        assert found, lines[0]
        headers = dict(line.split(": ", 1) for line in lines[1:])
        return Answer(int(found[1]), {name.lower(): value for name, value in headers.items()}, b"")

    def line_end(self, end: bytes) -> bytes:
        """What comes before `end`."""
        while end not in self._buffer:
            self._more()
        data, _, self._buffer = self._buffer.partition(end)
        return data

    def take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def rest(self) -> bytes:
        """What comes until the page closes the connection."""
        with contextlib.suppress(EOFError):
            while True:
                self._more()
        return self._buffer

    def layers(self) -> tuple[dict[str, Any], bytes, bytes]:
        """Give the next record of /stream/layers: its words, the JPEG, the compressed ids."""
        words = json.loads(self.line_end(b"\n"))
        return words, self.take(words["jpeg"]), self.take(words["ids"])

    def jpeg(self) -> np.ndarray:
        """Give the next picture of an MJPEG stream, whose boundary must have been read, and read the next boundary."""
        head = self.line_end(b"\r\n\r\n").decode()
        size = int(re.fullmatch(r"Content-Type: image/jpeg\r\nContent-Length: (\d+)", head)[1])
        picture = cv2.imdecode(np.frombuffer(self.take(size), np.uint8), cv2.IMREAD_COLOR)
        assert self.take(11) == b"\r\n--frame\r\n"
        assert picture is not None
        return picture

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _more(self) -> None:
        data = self._socket.recv(1 << 16)
        if not data:
            raise EOFError
        self._buffer += data


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    """Give the function that connects to a page; all connections are closed after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda page, **options: stack.enter_context(Client(page, **options))


@pytest.fixture
def ask() -> Callable[..., Answer]:
    """Give the function that sends one request and reads the whole answer: raw bytes, or a path to GET."""

    def asked(page: LivePage, request: bytes | str, method: str = "GET", **headers: str) -> Answer:
        with Client(page) as client:
            if isinstance(request, bytes):
                client.send(request)
                head = client.head()
            else:
                head = client.get(request, method, **headers)
            return Answer(head.status, head.headers, client.rest())

    return asked


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if chromium_module.find_chromium() is None:
        pytest.skip(f"none of {', '.join(chromium_module.NAMES)} is installed (Debian: apt-get install chromium)")
    with chromium_module.Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser
