"""What libpng and libjpeg say about a picture that they could still decode, logged with the picture's name.

They write to file descriptor 2 themselves, past sys.stderr and every log level, and name no file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from collections.abc import Iterator

from ..command import stderr_into
from ..sources import Frame, InputOptions, Source, open_source
from ..sources.altered import AroundSource

_log = logging.getLogger(__name__)

_WORDS = re.compile(
    rb"(?:libpng (?:warning|error): |Corrupt JPEG data: |Premature end of JPEG file|Invalid SOS parameters"
    rb"|Inconsistent progression sequence|Unknown Adobe color transform|Warning: unknown JFIF revision"
    rb"|Application transferred too many scanlines)[^\n]*\n?"
)
"""All that libpng begins a message with, and the warnings of libjpeg and libjpeg-turbo (jerror.h)."""
_one_at_a_time = threading.Lock()


def open_named(uri: str, options: InputOptions) -> Source:
    """As `open_source`; what is said about its pictures is logged by name."""
    source = open_source(uri, options)
    return source if source.live or source.is_video else _NamedPictures(source)


class _NamedPictures(AroundSource):
    """Pictures, with the decoders' words about each in the log. About one passed over the source itself says enough."""

    def __iter__(self) -> Iterator[Frame]:
        frames = iter(self._inner)
        while True:
            passed_over = self.skipped
            with decoder_words() as words:
                frame = next(frames, None)
            if frame is None:
                break
            if words and self.skipped == passed_over:  # else they may be about another picture
                _log.warning("%s: %s", frame.name, words[0])
            yield frame


@contextlib.contextmanager
def decoder_words() -> Iterator[list[str]]:
    """A list that holds, once the block is left, what picture decoders wrote to file descriptor 2 inside it.

    What other threads write there meanwhile comes out unchanged at the end of the block. One block at a time: another
    thread's waits.
    """
    words: list[str] = []
    said = bytearray()
    with _one_at_a_time:
        try:
            with stderr_into(said):
                yield words
        finally:
            words += [found.decode(errors="replace").strip() for found in _WORDS.findall(said)]
            _write(_WORDS.sub(b"", said))


def _write(data: bytes) -> None:
    with contextlib.suppress(OSError):  # standard error is closed: nobody listens
        while data:
            data = data[os.write(2, data) :]
