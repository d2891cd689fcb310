"""Read a PASCAL VOC segmentation folder: JPEGImages, SegmentationClass, ImageSets/Segmentation/*.txt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fcnedge.runtime.errors import UserError, missing_package
from fcnedge.runtime.sources.picture_file import read_picture

VOID = 255
"""Mask value of pixels that are neither trained on nor scored (VOC paints it on object borders)."""

_SHOWN_PROBLEMS = 10


@dataclass(frozen=True)
class VocSample:
    """One picture and its mask, both still on disk."""

    name: str
    image_path: Path
    mask_path: Path

    def read_image(self) -> np.ndarray:
        """(H, W, 3) uint8 BGR. Raises SourceError for a picture that is damaged or cut short."""
        return read_picture(self.image_path)

    def read_mask(self) -> np.ndarray:
        """(H, W) uint8 class ids, 255 = void.

        Pillow, not cv2.imread: OpenCV turns a palette PNG into colours and loses the ids.
        """
        return read_palette_mask(self.mask_path)


def read_palette_mask(path: Path) -> np.ndarray:
    """Class ids of a palette ("P") or 8-bit grey ("L") PNG: (H, W) uint8; raises UserError for anything else."""
    try:
        from PIL import Image
    except ImportError as error:
        raise missing_package("pillow", extra="build") from error
    try:
        with Image.open(path) as mask:
            if mask.mode not in ("P", "L"):
                raise UserError(f"{path} has mode {mask.mode}; a VOC mask is a palette PNG (mode P) holding class ids.")
            return np.array(mask, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow calls a damaged chunk a SyntaxError
        raise UserError(f"{path} is not a readable mask: {error}.") from error


def read_voc(root: Path | str, split: str) -> list[VocSample]:
    """List the samples that ImageSets/Segmentation/<split>.txt names, checking that every file is there.

    root: a folder laid out as VOCdevkit/VOC2012 is published (or its parent VOCdevkit, or the folder above that).
    Raises UserError that lists all missing files at once.
    """
    folder = find_voc_root(Path(root))
    split_file = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not split_file.is_file():
        known = sorted(path.stem for path in split_file.parent.glob("*.txt"))
        raise UserError(f"{folder} has no split {split!r}; it has {', '.join(known) or 'none'}.")
    names = split_file.read_text(encoding="utf-8").split()
    if not names:
        raise UserError(f"{split_file} is empty; write one picture name per line.")
    samples = [
        VocSample(name, folder / "JPEGImages" / f"{name}.jpg", folder / "SegmentationClass" / f"{name}.png")
        for name in names
    ]
    missing = [str(path) for sample in samples for path in (sample.image_path, sample.mask_path) if not path.is_file()]
    if missing:
        shown = ", ".join(missing[:_SHOWN_PROBLEMS])
        rest = f" and {len(missing) - _SHOWN_PROBLEMS} more" if len(missing) > _SHOWN_PROBLEMS else ""
        raise UserError(f"{split_file} names files that are not there: {shown}{rest}.")
    return samples


def find_voc_root(root: Path) -> Path:
    """Accept VOCdevkit/VOC2012, VOCdevkit, or the folder that holds VOCdevkit."""
    for folder in (root, *sorted(root.glob("VOC20*")), *sorted(root.glob("VOCdevkit/VOC20*"))):
        if (folder / "ImageSets" / "Segmentation").is_dir():
            return folder
    raise UserError(f"{root} is not a VOC folder: it has no ImageSets/Segmentation; pass the folder VOC2012 itself.")
