"""rtp:// and rtsp://: what is drawn as an H.264 stream, through GStreamer."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import IO
from urllib.parse import SplitResult

import numpy as np

from ..errors import UserError
from ..sources.address import hide_password, host_and_port, why_no_connection
from ..streams.result import StreamResult
from .gstreamer_output import h264_encoder, launch_command, stream_output
from .sink import Sink, drawn

_GRACE_S = 3.0
_CONNECT_S = 3.0
_LAST_FRAME_S = 1.0


class NetworkSink(Sink):
    """Streams at a constant rate, as encoders and players want it: the newest picture, again where none is newer.

    `rtp://HOST:PORT` sends to that address whoever listens; `rtsp://HOST:PORT/PATH` publishes on a media server such as
    MediaMTX. address: the parts of the URI. fps: pictures per second. live: of pictures that come faster the newest is
    sent; a film's wait for their turn.

    GStreamer runs in a process of its own, `gst-launch-1.0`, and not in OpenCV, whose writer gives each picture the
    time of its number, however late it comes, and never says that a stream is lost.

    Raises UserError without GStreamer or an H.264 encoder of its, and when nothing answers at an rtsp:// address.
    """

    def __init__(self, address: SplitResult, fps: float, shows: Sequence[str] = ("overlay",), *, live: bool) -> None:
        super().__init__(hide_password(address.geturl()))
        self.shows = tuple(shows)
        self._address, self._fps, self._live = address, fps, live
        self._encoder = h264_encoder(self.uri)
        if address.scheme == "rtsp":
            why = why_no_connection(*host_and_port(address), _CONNECT_S)
            if why:
                raise UserError(f"{self.uri}: {why}; it is to be a media server that takes streams, such as MediaMTX")
        self._sender: _Sender | None = None

    def take(self, result: StreamResult, picture: np.ndarray | None) -> None:
        """Let the picture be sent. Raises UserError when the stream is lost.

        Another size begins the stream anew; of an odd one the last column or row is left off.
        """
        image = drawn(picture)
        image = np.ascontiguousarray(image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2])
        if self._sender is not None and self._sender.shape != image.shape:
            self.close()
        if self._sender is None:
            self._sender = _Sender(self._command(image), image.shape, self._fps)
        self._sender.offer(image, wait=not self._live)
        if self._sender.lost is not None:
            raise UserError(f"{self.uri} is lost: GStreamer says {hide_password(self._sender.lost)!r}")
        self.written += 1

    def close(self) -> None:
        """End the stream."""
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.close()

    def _command(self, image: np.ndarray) -> list[str]:
        size = (image.shape[1], image.shape[0])
        return launch_command(size, self._fps, self._encoder, stream_output(self._address))


class _Sender:
    """A running pipeline, and the thread that feeds it. lost: what GStreamer said when it ended."""

    def __init__(self, command: Sequence[str], shape: tuple[int, ...], fps: float) -> None:
        self.shape = shape
        self.lost: str | None = None
        self._fps = fps
        self._newest: bytes | None = None
        self._is_new = self._stopped = False
        self._changed = threading.Condition()
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            start_new_session=True,  # Ctrl-C is for this process
        )
        self._thread = threading.Thread(target=self._run, name="fcnedge network output", daemon=True)
        self._thread.start()

    def offer(self, image: np.ndarray, *, wait: bool) -> None:
        """Send this from now on. wait: until the one before is sent."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: not self._is_new or self._stopped)
            self._newest, self._is_new = image.tobytes(), True
            self._changed.notify_all()

    def close(self) -> None:
        """Send what was offered last, and end."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_new or self._stopped, _LAST_FRAME_S)
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(_GRACE_S)
        if self._thread.is_alive():  # GStreamer reads no more, and stdin cannot be closed while it is written to
            self._process.kill()
            self._thread.join()
        self._end_process()

    def _run(self) -> None:
        assert self._process.stdin is not None
        try:
            due_s = time.monotonic()
            while (image := self._next(due_s)) is not None:
                self._process.stdin.write(image)
                self._process.stdin.flush()
                now_s = time.monotonic()
                due_s += 1 / self._fps
                if now_s > due_s + 1:  # the encoder is too slow
                    due_s = now_s
        except (OSError, ValueError):
            self.lost = self._last_words()
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()

    def _next(self, due_s: float) -> bytes | None:
        """The newest picture, at that time; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._stopped)
            self._changed.wait_for(lambda: self._stopped, max(0.0, due_s - time.monotonic()))
            if self._stopped:
                return None
            self._is_new = False
            self._changed.notify_all()
            return self._newest

    def _end_process(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def _last_words(self) -> str:
        """What follows the first "ERROR: from element …:", those after it being its consequences, or the last line."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").splitlines()
        errors = [line.partition("ERROR: ")[2].partition(": ")[2] for line in lines if line.startswith("ERROR: from")]
        rest = [line for line in lines if line.strip()]
        return (errors[:1] or rest[-1:] or ["nothing"])[0].strip()
