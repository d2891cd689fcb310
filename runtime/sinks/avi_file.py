"""An .avi of JPEG pictures that plays at any moment, and has its indexes once it is finished.

Chunks of an AVI follow one another and say their own size, so a file that lacks its indexes plays all the same. Lists
whose size is not yet known have size 0, which readers take as "to the end". After a gigabyte it goes on in further
RIFFs, each with an index of its own, as OpenDML 1.02 has it: plain AVI counts in 32 bits.
"""

from __future__ import annotations

import itertools
import struct
import sys
from array import array
from fractions import Fraction
from pathlib import Path

from .files import OUR_MARK
from .growing_file import GrowingFile

_RIFF_BYTES = 1 << 30
_MOST_RIFFS = 256


class AviFile:
    """One stream of JPEG pictures at a constant rate. Raises UserError as GrowingFile does.

    size: width and height in pixels. fps: frames per second. riff_bytes: after so many a new RIFF begins.
    """

    def __init__(self, path: Path, size: tuple[int, int], fps: Fraction, riff_bytes: int = _RIFF_BYTES) -> None:
        self._size, self._fps, self._riff_bytes = size, fps, riff_bytes
        self._indexes: list[tuple[int, int, int]] = []  # of the finished RIFFs: the index's place and size, frames
        self._offsets, self._sizes = array("I"), array("I")
        self._frames = self._frames_in_first = 0
        self._finished = False
        self._file = GrowingFile(path)
        self._begin_riff()

    @property
    def frames(self) -> int:
        """Frames in the file."""
        return self._frames

    def add(self, jpeg: bytes) -> None:
        """Append a picture."""
        if self._file.size - self._riff >= self._riff_bytes and len(self._indexes) + 1 < _MOST_RIFFS:
            self._finish_riff()
            self._begin_riff()
        offset = self._file.size - self._movi
        self._file.append(_chunk(b"00dc", jpeg))
        self._offsets.append(offset)
        self._sizes.append(len(jpeg))
        self._frames += 1

    def finish(self) -> None:
        """Write the indexes and counts, and close; more than once does no harm."""
        if not self._finished:
            self._finished = True
            try:
                self._finish_riff()
                self._file.patch(0, self._header(self._first_riff_bytes))
            finally:
                self._file.close()

    def _begin_riff(self) -> None:
        self._riff = self._file.size
        start = struct.pack("<4sI4s", b"RIFF", 0, b"AVIX") if self._indexes else self._header(0)
        self._movi = self._riff + len(start) + 8  # offsets count from the letters movi
        self._file.append(start, struct.pack("<4sI4s", b"LIST", 0, b"movi"))
        del self._offsets[:], self._sizes[:]

    def _finish_riff(self) -> None:
        """Write the index, and the sizes of the lists."""
        count, place = len(self._sizes), self._file.size
        entries = _interleaved(array("I", (offset + 8 for offset in self._offsets)), self._sizes)
        index = _chunk(b"ix00", struct.pack("<HBBI4sQ4x", 2, 0, 1, count, b"00dc", self._movi), entries)
        self._file.append(index)
        end_of_movi = self._file.size
        if not self._indexes:
            keys = array("I", [_AVIIF_KEYFRAME]) * count
            names = array("I", [int.from_bytes(b"00dc", "little")]) * count
            self._file.append(_chunk(b"idx1", _interleaved(names, keys, self._offsets, self._sizes)))
            self._first_riff_bytes, self._frames_in_first = self._file.size - 8, count
        self._indexes.append((place, len(index), count))
        self._file.patch(self._movi - 4, struct.pack("<I", end_of_movi - self._movi))
        self._file.patch(self._riff + 4, struct.pack("<I", self._file.size - self._riff - 8))

    def _header(self, riff_bytes: int) -> bytes:
        """From RIFF up to where the list of pictures begins; of the same length at any time."""
        width, height = self._size
        microseconds = round(1e6 / self._fps)
        main = struct.pack(
            "<14I",
            *(microseconds, 0, 0, _AVIF_HASINDEX if riff_bytes else 0, self._frames_in_first, 0, 1),
            *(0, width, height, 0, 0, 0, 0),
        )
        rate = (self._fps.denominator, self._fps.numerator, 0, self._frames)
        stream = struct.pack("<4s4sIIIIIIIIIII4x", b"vids", b"MJPG", 0, 0, 0, *rate, 0, 0xFFFFFFFF, 0, 0)
        picture = struct.pack("<IiiHH4sI16x", 40, width, height, 1, 24, b"MJPG", width * height * 3)
        # A chunk of this kind without entries would say that there are no frames.
        kind = b"indx" if self._indexes else b"JUNK"
        index = struct.pack("<HBBI4s12x", 4, 0, 0, len(self._indexes), b"00dc")
        index += b"".join(struct.pack("<QII", *each) for each in self._indexes)
        lists = _chunk(
            b"LIST",
            b"hdrl",
            _chunk(b"avih", main),
            _chunk(
                b"LIST",
                b"strl",
                _chunk(b"strh", stream),
                _chunk(b"strf", picture),
                _chunk(kind, index.ljust(24 + 16 * _MOST_RIFFS, b"\0")),
            ),
            _chunk(b"LIST", b"odml", _chunk(b"dmlh", struct.pack("<I244x", self._frames))),
        )
        lists += _chunk(b"LIST", b"INFO", _chunk(b"ISFT", OUR_MARK + b"\0"))
        return struct.pack("<4sI4s", b"RIFF", riff_bytes, b"AVI ") + lists


_AVIF_HASINDEX, _AVIIF_KEYFRAME = 0x10, 0x10


def _chunk(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack("<4sI", kind, len(data)) + data + bytes(len(data) % 2)


def _interleaved(*columns: array[int]) -> bytes:
    numbers = array("I", itertools.chain.from_iterable(zip(*columns, strict=True)))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()
