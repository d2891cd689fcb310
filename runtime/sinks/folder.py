"""A folder of masks and overlays."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..palette import encode_label_png
from ..sources.listing import OUTPUT_MARKER
from ..streams.result import StreamResult
from .files import encode_picture, make_folder, write_atomically
from .sink import Sink, drawn

_log = logging.getLogger(__name__)

_PARTS = {"mask": "masks", "overlay": "overlays"}


class FolderSink(Sink):
    """masks/NAME.png and overlays/NAME.jpg in a folder. A name that comes twice in a run becomes NAME_2.

    What an earlier run wrote is replaced; a masks/ or overlays/ with files of others, or of the source, is refused.

    palette: (n, 3) uint8 RGB of the masks, whose values are class ids. visualize: "mask" for masks/, "overlay" for
    overlays/.
    """

    def __init__(
        self,
        uri: str,
        folder: Path,
        palette: np.ndarray,
        source_files: Iterable[Path] = (),
        visualize: Sequence[str] = ("mask", "overlay"),
    ) -> None:
        super().__init__(uri)
        self.shows = ("overlay",) if "overlay" in visualize else ()
        self._palette = palette
        self._parts = {name: folder / part for name, part in _PARTS.items() if name in visualize}
        self._used: set[str] = set()
        marker = folder / OUTPUT_MARKER
        files = tuple(source_files)
        for part in self._parts.values():
            _refuse_files_of_others(part, files, ours=os.path.exists(marker))  # noqa: PTH110
        for part in self._parts.values():
            make_folder(part)
        write_atomically(marker, b"fcn-run wrote masks/ and overlays/ here; its next run may replace them.\n")

    def take(self, result: StreamResult, picture: np.ndarray | None) -> None:
        """Write its files. Raises UserError when one cannot be written."""
        name = self._unused(result.frame.name)
        if "mask" in self._parts:
            mask = encode_label_png(result.segmentation.mask, self._palette)
            write_atomically(self._parts["mask"] / f"{name}.png", mask)
        if "overlay" in self._parts:
            write_atomically(self._parts["overlay"] / f"{name}.jpg", encode_picture(".jpg", drawn(picture)))
        self.written += 1

    def _unused(self, wanted: str) -> str:
        name, count = wanted, 1
        while name.lower() in self._used:  # cat.jpg and Cat.png meet on disks that ignore case
            count += 1
            name = f"{wanted}_{count}"
        if name != wanted:
            _log.warning("%s came twice; this one is written as %s", wanted, name)
        self._used.add(name.lower())
        return name


def _refuse_files_of_others(folder: Path, source_files: Iterable[Path], *, ours: bool) -> None:
    # Before Python 3.14 Path.is_dir raises where os.path.isdir says no; what is wrong shows on writing.
    if not os.path.isdir(folder):  # noqa: PTH112
        return
    if folder.resolve() in {file.resolve().parent for file in source_files}:
        raise UserError(f"{folder} holds the source's own files, which the output may overwrite; name another folder")
    if not ours and _holds_files(folder):
        raise UserError(f"{folder} holds files that fcn-run did not write; name another folder, or move them away")


def _holds_files(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be read: {error.strerror}") from error
