"""An .mp4 that plays at any moment: fragments while it grows, an ordinary index once it is finished.

While it grows: `ftyp`, a `moov` without samples, and for each frame a `moof` and an `mdat`, as in fragmented MP4
(ISO/IEC 14496-12, 8.8). `finish` appends a `moov` with all samples and then turns what lies before it, from the first
`moov` on, into one `mdat` by writing sixteen bytes: players that know no fragments, and those that want to seek, see a
plain file. A process killed at any point leaves one or the other.
"""

from __future__ import annotations

import struct
import sys
from array import array
from fractions import Fraction
from pathlib import Path

from .files import OUR_MARK
from .growing_file import GrowingFile

_KEY, _NOT_KEY = 0x02000000, 0x01010000
"""sample_flags: depends on no other sample; depends on others and is no sync sample."""


class Mp4File:
    """One track of MPEG-4 Part 2 video, a frame per sample, at a constant rate. Raises UserError as GrowingFile does.

    size: width and height in pixels. fps: frames per second. header: decoder configuration (`sequence_header`).
    """

    def __init__(self, path: Path, size: tuple[int, int], fps: Fraction, header: bytes) -> None:
        self._size, self._fps, self._header = size, fps, header
        self._offsets, self._sizes, self._keys = array("Q"), array("I"), array("I")
        self._file = GrowingFile(path)
        kind = _box(b"ftyp", b"isom", struct.pack(">I", 0x200), b"isom", b"iso6", b"mp41") + _box(b"free", OUR_MARK)
        self._first_moov = len(kind)
        extends = _full(b"trex", 0, 0, struct.pack(">5I", 1, 1, fps.denominator, 0, _NOT_KEY))
        self._file.append(kind, self._moov(_box(b"mvex", extends)))

    @property
    def frames(self) -> int:
        """Frames in the file."""
        return len(self._sizes)

    def add(self, packet: bytes, *, key: bool) -> None:
        """Append a frame. key: it can be decoded without those before it."""
        number = len(self._sizes)
        # The data begins behind the moof's 96 bytes and the mdat's own 8.
        run = struct.pack(">IiII", 1, 96 + 8, len(packet), _KEY if key else _NOT_KEY)
        fragment = _box(
            b"moof",
            _full(b"mfhd", 0, 0, struct.pack(">I", number + 1)),
            _box(
                b"traf",
                _full(b"tfhd", 0, 0x020000, struct.pack(">I", 1)),  # offsets count from the moof
                _full(b"tfdt", 1, 0, struct.pack(">Q", number * self._fps.denominator)),
                _full(b"trun", 0, 0x000601, run),  # data offset; size and flags of each sample
            ),
        )
        offset = self._file.size + len(fragment) + 8
        self._file.append(fragment, _box(b"mdat", packet))
        self._offsets.append(offset)
        self._sizes.append(len(packet))
        if key:
            self._keys.append(number + 1)

    def finish(self) -> None:
        """Make it an ordinary file and close it; more than once does no harm."""
        if self._first_moov:
            start, self._first_moov = self._first_moov, 0
            end = self._file.size
            try:
                self._file.append(self._moov())
                self._file.patch(start, struct.pack(">I4sQ", 1, b"mdat", end - start))
            finally:
                self._file.close()

    def _moov(self, *extends: bytes) -> bytes:
        """Movie box of the samples so far, with `mvex` where fragments follow."""
        scale, duration = self._fps.numerator, len(self._sizes) * self._fps.denominator
        matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
        times = bytes(16)  # when it was made: nobody's business
        movie = _full(
            b"mvhd",
            1,
            0,
            times
            + struct.pack(">IQIH10x", scale, duration, 0x10000, 0x100)
            + matrix
            + bytes(24)
            + struct.pack(">I", 2),
        )
        width, height = self._size
        track = _full(
            b"tkhd",
            1,
            3,
            times + struct.pack(">I4xQ16x", 1, duration) + matrix + struct.pack(">II", width << 16, height << 16),
        )
        media = _box(
            b"mdia",
            _full(b"mdhd", 1, 0, times + struct.pack(">IQHH", scale, duration, 0x55C4, 0)),  # language "und"
            _full(b"hdlr", 0, 0, struct.pack(">4x4s12x", b"vide") + b"video\0"),
            _box(
                b"minf",
                _full(b"vmhd", 0, 1, bytes(8)),
                _box(b"dinf", _full(b"dref", 0, 0, struct.pack(">I", 1), _full(b"url ", 0, 1))),
                self._sample_table(),
            ),
        )
        return _box(b"moov", movie, _box(b"trak", track, media), *extends)

    def _sample_table(self) -> bytes:
        count = len(self._sizes)
        entry = struct.pack(">6xH16xHHIIxxxxH32xHh", 1, *self._size, 0x480000, 0x480000, 1, 24, -1)
        described = _full(
            b"stsd", 0, 0, struct.pack(">I", 1), _box(b"mp4v", entry, _decoder_configuration(self._header))
        )
        if not count:
            return _box(b"stbl", described, *(_full(kind, 0, 0, bytes(4)) for kind in (b"stts", b"stsc")), _NO_SAMPLES)
        return _box(
            b"stbl",
            described,
            _full(b"stts", 0, 0, struct.pack(">3I", 1, count, self._fps.denominator)),
            _full(b"stss", 0, 0, struct.pack(">I", len(self._keys)), _big_endian(self._keys)),
            _full(b"stsc", 0, 0, struct.pack(">4I", 1, 1, 1, 1)),  # every sample is a chunk
            _full(b"stsz", 0, 0, struct.pack(">2I", 0, count), _big_endian(self._sizes)),
            _full(b"co64", 0, 0, struct.pack(">I", count), _big_endian(self._offsets)),
        )


def _box(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    if len(data) + 8 < 1 << 32:
        return struct.pack(">I4s", len(data) + 8, kind) + data
    return struct.pack(">I4sQ", 1, kind, len(data) + 16) + data


def _full(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags), *parts)


_NO_SAMPLES = _full(b"stsz", 0, 0, bytes(8)) + _full(b"stco", 0, 0, bytes(4))


def _decoder_configuration(header: bytes) -> bytes:
    """Elementary stream descriptor of MPEG-4 video (ISO/IEC 14496-1, 7.2.6): object type 0x20, visual stream."""
    decoder = struct.pack(">BB3xII", 0x20, 0x11, 0, 0) + _descriptor(5, header)
    return _full(
        b"esds", 0, 0, _descriptor(3, struct.pack(">HB", 1, 0) + _descriptor(4, decoder) + _descriptor(6, b"\2"))
    )


def _descriptor(tag: int, data: bytes) -> bytes:
    """Its size in four bytes of seven bits each, as most writers have it."""
    size = [len(data) >> shift & 0x7F | (0x80 if shift else 0) for shift in (21, 14, 7, 0)]
    return bytes([tag, *size]) + data


def _big_endian(numbers: array[int]) -> bytes:
    numbers = numbers[:]
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers.tobytes()
