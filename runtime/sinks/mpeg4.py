"""OpenCV's MPEG-4 encoder without its file: pictures in, one packet for each out.

OpenCV hands FFmpeg's muxers no options (opencv/opencv #24570): its .mp4 has its index at the end, and whatever it
writes waits in a buffer of 256 KB. A pipe is flushed after every packet, though, and AVI is what FFmpeg's muxers write
into pipes. So the encoder writes AVI into a named pipe, and its packets are taken from there. Tried with OpenCV 4.6,
4.8.1 and 5.0: every `write` puts exactly one packet into the pipe before it returns.
"""

from __future__ import annotations

import os
import queue
import struct
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..opencv import load_cv2

_PATIENCE_S = 10.0


class Mpeg4Encoder:
    """MPEG-4 Part 2 (FourCC mp4v), a key frame every 12th. size: width and height, both even; fps: frames per second.

    Raises UserError when OpenCV's FFmpeg does not open it, as with a size or rate that MPEG-4 has not.
    """

    def __init__(self, size: tuple[int, int], fps: float) -> None:
        cv2 = load_cv2()
        try:
            with tempfile.TemporaryDirectory(prefix="fcn-run-") as folder:
                pipe = Path(folder) / "film.avi"
                os.mkfifo(pipe)
                self._pipe = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
                mp4v = cv2.VideoWriter.fourcc(*"mp4v")
                self._writer: Any = cv2.VideoWriter(str(pipe), cv2.CAP_FFMPEG, mp4v, fps, size)
        except OSError as error:
            raise UserError(
                f"no temporary file can be made ({error.strerror}); set TMPDIR to another folder"
            ) from error
        if not self._writer.isOpened():
            os.close(self._pipe)
            raise UserError(
                f"OpenCV {cv2.__version__} has no MPEG-4 encoder for {size[0]}x{size[1]} at {fps:g} frames per second; "
                "name a .avi file or a folder instead"
            )
        os.set_blocking(self._pipe, True)
        self._arrived: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._rest = bytearray()
        # A pipe holds 64 KB and a picture may take more, so somebody has to read while `write` writes.
        self._reader = threading.Thread(target=self._read_pipe, name="fcnedge mpeg4", daemon=True)
        self._reader.start()
        self._skip_header()

    def encode(self, image: np.ndarray) -> bytes:
        """image: (H, W, 3) uint8 BGR of the encoder's size. Gives its packet; a key frame begins with a header."""
        self._writer.write(image)
        while True:
            kind, size = struct.unpack("<4sI", self._take(8))
            packet = self._take(size + size % 2)[:size]
            if kind == b"00dc" and packet:
                return packet

    def close(self) -> None:
        """Free the encoder; more than once does no harm."""
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        self._reader.join()
        os.close(self._pipe)

    def _skip_header(self) -> None:
        """RIFF 'AVI ', then lists and chunks up to the one that holds the packets."""
        self._take(12)
        while True:
            kind, size = struct.unpack("<4sI", self._take(8))
            if kind == b"LIST":
                if self._take(4) == b"movi":
                    return
                size -= 4
            self._take(size + size % 2)

    def _take(self, count: int) -> bytes:
        while len(self._rest) < count:
            try:
                data = self._arrived.get(timeout=_PATIENCE_S)
            except queue.Empty:
                data = b""
            if not data:
                raise UserError("OpenCV's MPEG-4 encoder gave no packet; name a .avi file or a folder instead")
            self._rest += data
        taken = bytes(self._rest[:count])
        del self._rest[:count]
        return taken

    def _read_pipe(self) -> None:
        data = b"begun"
        while data:
            data = os.read(self._pipe, 1 << 20)
            self._arrived.put(data)


def sequence_header(packet: bytes) -> bytes:
    """What stands before the first picture of a key frame's packet: the decoder's configuration, for the container.

    Ends at the first group-of-pictures or picture start code (ISO/IEC 14496-2, table 6-3); empty for other packets.
    """
    ends = [place for code in (b"\0\0\1\xb3", b"\0\0\1\xb6") if (place := packet.find(code)) >= 0]
    return packet[: min(ends, default=0)]
