"""One picture file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..streams.result import StreamResult
from .files import OUR_MARK, encode_picture, make_folder, write_atomically
from .sink import Sink, drawn

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


class PictureSink(Sink):
    """What is drawn of one picture, in the format that the ending names."""

    def __init__(self, uri: str, path: Path, shows: Sequence[str] = ("overlay",)) -> None:
        super().__init__(uri)
        self.shows = tuple(shows)
        self._path = path
        make_folder(path.parent)

    def take(self, result: StreamResult, picture: np.ndarray | None) -> None:
        """Write the picture. Raises UserError for a second one, or when it cannot be written."""
        if self.written:
            raise UserError(f"{self._path} holds one picture, but a second came; name a folder or a .mp4 file")
        # Every decoder stops at the end of the picture, so that a mark behind it harms none.
        write_atomically(self._path, encode_picture(self._path.suffix, drawn(picture)) + OUR_MARK)
        self.written += 1
