"""Which pictures to calibrate on: a split of a VOC folder, or a plain folder of pictures."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.sources.listing import folder_pictures

from .spacing import evenly_spaced
from .voc import is_voc_folder, read_voc_images, splits

ENOUGH_PICTURES = 300
"""Below it the far ends of the distributions are a matter of luck."""

_PREFERRED_SPLITS = ("calibration", "train")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PictureList:
    """Chosen pictures, by name. available: how many there were to choose from; origin: where from, in words."""

    names: tuple[str, ...]
    paths: tuple[Path, ...]
    available: int
    origin: str

    @property
    def sha256(self) -> str:
        """Hash over names and file sizes, in order. Raises UserError for a file that has vanished."""
        digest = hashlib.sha256()
        for name, path in zip(self.names, self.paths, strict=True):
            try:
                size = path.stat().st_size
            except OSError as error:
                raise UserError(f"{path} cannot be read ({error.strerror}); leave it out or copy it again.") from error
            digest.update(f"{name}\n{size}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def choose_pictures(data: Path, split: str | None = None, images: int = 512) -> PictureList:
    """Choose `images` pictures, evenly spaced over all: always the same ones for the same folder.

    data: a folder in VOC layout, or of pictures. split: a VOC split; None takes `calibration` if there is one, else
    `train`. Fewer pictures than asked for, and fewer than ENOUGH_PICTURES, are logged as warnings.
    Raises UserError for a folder without pictures, a split that is unknown or empty or names missing pictures, and a
    split of a folder that is not VOC's.
    """
    named, origin = _all_pictures(data, split)
    chosen = evenly_spaced(named, images)
    if len(named) < images:
        _log.warning("%s has %d pictures, %d were asked for; all of them are taken.", origin, len(named), images)
    if len(chosen) < ENOUGH_PICTURES:
        _log.warning("%d pictures are few to calibrate on; take %d or more.", len(chosen), ENOUGH_PICTURES)
    names, paths = zip(*chosen, strict=True)
    return PictureList(names, paths, len(named), origin)


def _all_pictures(data: Path, split: str | None) -> tuple[list[tuple[str, Path]], str]:
    if is_voc_folder(data):
        if split is None:
            known = splits(data)
            split = next((name for name in _PREFERRED_SPLITS if name in known), _PREFERRED_SPLITS[-1])
        if split == "val":
            _log.warning("these are the pictures that accuracy is measured on; calibrate on others, such as train.")
        return read_voc_images(data, split), f"split {split} of {data}"
    if split is not None:
        raise UserError(f"{data} is not a VOC folder, so it has no split {split!r}; leave --split out.")
    paths, _ = folder_pictures(data)
    return [(path.name, path) for path in paths], str(data)
