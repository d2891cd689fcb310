"""What every source of frames gives: the frame, and the source it comes from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing_extensions import Self  # typing.Self needs Python 3.11


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source.

    image: (H, W, 3) uint8 BGR. name: what to call a file made from it, without folder or ending ("cat",
    "clip_000041"). index: 0, 1, 2 … within the source. timestamp_s: seconds; the place in the film for a video file,
    `time.monotonic()` at capture for a live source, 0.0 for pictures.
    """

    image: np.ndarray
    name: str
    index: int
    timestamp_s: float


@dataclass
class Notes:
    """What a source finds out about itself while it is read; shared by all who pass its frames on."""

    skipped: int = 0
    warning: str | None = None


class Source(ABC):
    """Iterable over `Frame`, and a context manager. A new kind of source implements `__iter__`, and `close` if it must.

    uri: as the user gave it. live: frames arrive in real time and must not be waited for. is_video: the frames are one
    film (live or not), not separate pictures. fps: frames per second where known. length: number of frames where
    known (a video file's own promise). skipped: files passed over because they are no pictures, or damaged. files:
    those that the frames are read from, so that no sink overwrites one. folder: where all of it is the source.
    mixed_sizes: the frames are known to differ in size, so that no film of them is begun. warning: one sentence about
    something that went wrong without ending in an error, known once iteration is over.

    Files can be iterated again; each time starts at the first frame. So can a camera that raised SourceError: that
    connects anew. One thread iterates a source; `close` may be called from another, and ends a live one.
    """

    def __init__(
        self,
        uri: str,
        *,
        live: bool = False,
        is_video: bool = False,
        fps: float | None = None,
        length: int | None = None,
        skipped: int = 0,
        files: Sequence[Path] = (),
        folder: Path | None = None,
        mixed_sizes: bool = False,
    ) -> None:
        self.uri = uri
        self.live = live
        self.is_video = is_video
        self.fps = fps
        self.length = length
        self.files = tuple(files)
        self.folder = folder
        self.mixed_sizes = mixed_sizes
        self._notes = Notes(skipped)

    @property
    def skipped(self) -> int:
        """Files passed over so far."""
        return self._notes.skipped

    @skipped.setter
    def skipped(self, skipped: int) -> None:
        self._notes.skipped = skipped

    @property
    def warning(self) -> str | None:
        """What went wrong without ending in an error."""
        return self._notes.warning

    @warning.setter
    def warning(self, warning: str | None) -> None:
        self._notes.warning = warning

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Frames in order. Raises SourceError where one cannot be read."""

    def is_there(self) -> bool | None:
        """Whether it is worth trying to open a camera that was lost, found out in a second at most; None: unknown."""
        return None

    def close(self) -> None:  # noqa: B027 - pictures hold nothing open
        """Release the file or device; more than once does no harm."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.uri!r})"
