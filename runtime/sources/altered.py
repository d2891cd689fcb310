"""A source whose frames are flipped, or that is played again, as `InputOptions` asks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from fcnedge.runtime.errors import SourceError

from .frame import Frame, Source
from .input_options import InputOptions


def altered(source: Source, options: InputOptions, *, flipped: bool = False) -> Source:
    """The source itself, or one around it that flips and loops. flipped: it flips already.

    Raises SourceError for a live source that shall be played again.
    """
    if options.loop and source.live:
        source.close()
        raise SourceError(f"{source.uri} is a camera and has no end to begin again from; leave the loop out")
    if options.loop:
        source = LoopedSource(source, options.loop)
    if options.flip != "none" and not flipped:
        source = FlippedSource(source, options.flip)
    return source


class AroundSource(Source):
    """A source that passes on another's frames, facts and end."""

    def __init__(self, inner: Source) -> None:
        super().__init__(
            inner.uri,
            live=inner.live,
            is_video=inner.is_video,
            fps=inner.fps,
            length=inner.length,
            files=inner.files,
            folder=inner.folder,
            mixed_sizes=inner.mixed_sizes,
        )
        self._inner, self._notes = inner, inner._notes

    def is_there(self) -> bool | None:
        """As the source within says."""
        return self._inner.is_there()

    def close(self) -> None:
        """Release the source within."""
        self._inner.close()


class FlippedSource(AroundSource):
    """Frames turned or mirrored. how: of `FLIPS`; the diagonals mirror at the line to the named corner."""

    def __init__(self, inner: Source, how: str) -> None:
        super().__init__(inner)
        self._flip = _FLIPS[how]

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._inner:
            yield replace(frame, image=np.ascontiguousarray(self._flip(frame.image)))


class LoopedSource(AroundSource):
    """Frames played again and again, with names, indices and timestamps that go on. loop: more times; -1 for ever."""

    def __init__(self, inner: Source, loop: int) -> None:
        super().__init__(inner)
        self._loop = loop
        self.length = inner.length * (loop + 1) if inner.length is not None and loop >= 0 else None

    def __iter__(self) -> Iterator[Frame]:
        index, start_s = 0, 0.0
        for turn in itertools.count() if self._loop < 0 else range(self._loop + 1):
            end_s = start_s
            for frame in self._inner:
                end_s = start_s + frame.timestamp_s
                name = f"{frame.name}_{turn:03d}" if turn else frame.name
                yield replace(frame, index=index, name=name, timestamp_s=end_s)
                index += 1
            start_s = end_s + (1 / self.fps if self.fps else 0.0)


_FLIPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "counterclockwise": lambda image: np.rot90(image, 1),
    "rotate-180": lambda image: image[::-1, ::-1],
    "clockwise": lambda image: np.rot90(image, -1),
    "horizontal": lambda image: image[:, ::-1],
    "vertical": lambda image: image[::-1],
    "upper-right-diagonal": lambda image: image[::-1, ::-1].swapaxes(0, 1),
    "upper-left-diagonal": lambda image: image.swapaxes(0, 1),
}
