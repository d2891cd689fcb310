"""An MJPEG camera over HTTP: JPEG pictures in a multipart/x-mixed-replace answer (RFC 2046, section 5.1).

Read here and not by FFmpeg: OpenCV before 5 keeps showing the last picture when their size changes, and FFmpeg reads
ahead to guess a codec that is known.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import logging
import socket
import string
import threading
import time
from collections.abc import Iterator
from email.message import Message
from typing import BinaryIO
from urllib.parse import quote, unquote

import numpy as np

from fcnedge.runtime.errors import SourceError
from fcnedge.runtime.opencv import load_cv2
from fcnedge.runtime.picture_ends import missing_end

from .address import hide_password, host_and_port, split_address, why_no_connection
from .frame import Frame, Source
from .input_options import InputOptions

_log = logging.getLogger(__name__)

MAX_PICTURE_BYTES = 64 * 2**20
"""A part that is longer is no camera's picture; it is refused before it fills the memory."""
MOST_DAMAGED = 100
"""After so many damaged pictures in a row a camera counts as lost: it would seem to be silent, and is not."""


class MjpegSource(Source):
    """Frames of an MJPEG stream, each at its own size. Opened by the first iteration, and anew by each one after it.

    A picture that is damaged or lacks its end is passed over; the first one is logged.
    options: timeout_s bounds connecting and the wait for each piece of data. `close` is for good, may be called from
    any thread, and ends a read under way at once: it shuts the connection down.
    """

    def __init__(self, address: str, options: InputOptions) -> None:
        self._parts = split_address(address)
        self._timeout_s = options.timeout_s
        self._index = 0
        self._warned = False
        self._closed = threading.Event()
        self._socket: socket.socket | None = None
        super().__init__(hide_password(address), live=True, is_video=True)

    def __iter__(self) -> Iterator[Frame]:
        if self._closed.is_set():
            return
        connection = self._connection()
        try:
            body, boundary = self._request(connection)
            with body:
                for image, timestamp_s in self._whole_pictures(read_parts(body, boundary)):
                    index, self._index = self._index, self._index + 1
                    yield Frame(image, f"{self._parts.hostname}_{index:06d}", index, timestamp_s)
        except (OSError, http.client.HTTPException) as error:
            if self._closed.is_set():
                return
            raise SourceError(f"{self.uri} was lost: {self._words(error)}") from error
        finally:
            self._socket = None
            connection.close()
        if not self._closed.is_set():
            raise SourceError(f"{self.uri} ended after {self._index} pictures")

    def close(self) -> None:
        """End iteration, for good, and a read under way with it."""
        self._closed.set()
        under_way = self._socket
        if under_way is not None:
            with contextlib.suppress(OSError):  # it ended by itself meanwhile
                under_way.shutdown(socket.SHUT_RDWR)

    def is_there(self) -> bool:
        """Whether something listens at the address's port, asked by one TCP connection of half a second at most."""
        return why_no_connection(*host_and_port(self._parts), timeout_s=0.5) is None

    def _whole_pictures(self, parts: Iterator[bytes]) -> Iterator[tuple[np.ndarray, float]]:
        """Those that can be decoded, and when each had come; ends with the parts, or when this is closed."""
        in_a_row = 0
        for data in parts:
            timestamp_s = time.monotonic()
            if self._closed.is_set():
                return
            image = _decoded(data)
            if image is not None:
                in_a_row = 0
                yield image, timestamp_s
                continue
            in_a_row += 1
            if in_a_row == MOST_DAMAGED:
                raise SourceError(f"{self.uri} sends damaged pictures, {in_a_row} in a row; look at the camera")
            if not self._warned:
                _log.warning("%s sent a picture that is damaged or lacks its end; it is passed over", self.uri)
            self._warned = True

    def _connection(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(*host_and_port(self._parts), timeout=self._timeout_s)
        try:
            connection.connect()
        except (OSError, UnicodeError) as error:
            connection.close()
            unreachable = why_no_connection(*host_and_port(self._parts), timeout_s=min(2.0, self._timeout_s))
            raise SourceError(f"{self.uri} cannot be opened: {unreachable or self._words(error)}") from error
        self._socket = connection.sock
        return connection

    def _request(self, connection: http.client.HTTPConnection) -> tuple[BinaryIO, bytes]:
        headers = {"Accept": "multipart/x-mixed-replace, image/jpeg", "User-Agent": "fcnedge"}
        if self._parts.username is not None:
            login = f"{unquote(self._parts.username)}:{unquote(self._parts.password or '')}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
        target = (self._parts.path or "/") + (f"?{self._parts.query}" if self._parts.query else "")
        connection.request("GET", quote(target, safe=string.punctuation), headers=headers)
        answer = connection.getresponse()
        with contextlib.ExitStack() as refused:
            refused.callback(answer.close)
            boundary = self._boundary(answer)
            refused.pop_all()
        return answer, boundary

    def _boundary(self, answer: http.client.HTTPResponse) -> bytes:
        """What separates the pictures. Raises SourceError for an answer that is not MJPEG."""
        if answer.status != http.client.OK:
            hint = {401: "; check user and password, or token (of logins Basic is offered)", 404: "; check the path"}
            raise SourceError(
                f"{self.uri} cannot be opened: the camera answers {answer.status} {answer.reason}"
                f"{hint.get(answer.status, '')}"
            )
        message = Message()
        message["Content-Type"] = answer.headers.get("Content-Type", "")
        boundary = message.get_param("boundary")
        if not message.get_content_type().startswith("multipart/") or not isinstance(boundary, str) or not boundary:
            raise SourceError(
                f"{self.uri} gives {message.get_content_type()}, not MJPEG (multipart/x-mixed-replace with a "
                "boundary); look for the camera's video address"
            )
        return boundary.removeprefix("--").encode("latin-1", "replace")  # some cameras write the dashes too

    def _words(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"it sent nothing for {self._timeout_s:g} seconds"
        return str(getattr(error, "strerror", None) or error) or type(error).__name__


def _decoded(data: bytes) -> np.ndarray | None:
    if missing_end(data):  # OpenCV would make up the rest
        return None
    cv2 = load_cv2()
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # a header of more pixels than OpenCV takes
        return None


def read_parts(body: BinaryIO, boundary: bytes) -> Iterator[bytes]:
    """The contents of a multipart body's parts, until it ends. boundary: without its leading dashes.

    Parts with a Content-Length are read by it, others up to the next boundary. Raises HTTPException for a part that
    is longer than `MAX_PICTURE_BYTES`.
    """
    delimiter = b"--" + boundary
    line = body.readline(4096)
    while line and not line.startswith(delimiter):  # what stands before the first boundary is no part
        line = body.readline(4096)
    while line and not line.startswith(delimiter + b"--"):
        length = _read_headers(body)
        if length is None:
            data, line = _read_to(body, delimiter)
            yield from [data] * bool(data)
        else:
            data = body.read(length)
            if len(data) < length:
                return
            yield data  # before the next boundary, which comes with the next picture
            line = body.readline(4096)
            while line and not line.startswith(delimiter):
                line = body.readline(4096)


def _read_headers(body: BinaryIO) -> int | None:
    """The part's Content-Length, where it has one; leaves the body at its first byte."""
    length = None
    while (line := body.readline(4096)).strip():
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            length = int(value)
    if length is not None and length > MAX_PICTURE_BYTES:
        raise http.client.HTTPException(f"a part of {length} bytes is no picture")
    return length


def _read_to(body: BinaryIO, delimiter: bytes) -> tuple[bytes, bytes]:
    """The part up to the line that starts with the delimiter, and that line."""
    pieces: list[bytes] = []
    size = 0
    while line := body.readline(65536):
        if line.startswith(delimiter):
            return b"".join(pieces).removesuffix(b"\r\n"), line
        pieces.append(line)
        size += len(line)
        if size > MAX_PICTURE_BYTES:
            raise http.client.HTTPException(f"a part of more than {size} bytes is no picture")
    return b"", b""
