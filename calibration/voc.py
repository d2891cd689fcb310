"""Read a PASCAL VOC segmentation folder: JPEGImages, SegmentationClass, ImageSets/Segmentation/*.txt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fcnedge.runtime.command import Progress
from fcnedge.runtime.errors import UserError, missing_package
from fcnedge.runtime.sources.picture_file import read_picture

VOID = 255
"""Mask value of pixels that are neither trained on nor scored (VOC paints it on object borders)."""

_SHOWN_PROBLEMS = 10
_EXIF_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)


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
    image = _pillow()
    try:
        with image.open(path) as mask:
            if mask.mode not in ("P", "L"):
                raise UserError(f"{path} has mode {mask.mode}; a VOC mask is a palette PNG (mode P) holding class ids.")
            return np.array(mask, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow calls a damaged chunk a SyntaxError
        raise UserError(f"{path} is not a readable mask: {error}.") from error


def read_voc(root: Path | str, split: str) -> list[VocSample]:
    """List the samples that ImageSets/Segmentation/<split>.txt names, checking that every file is there.

    root: a folder laid out as VOCdevkit/VOC2012 is published (or its parent VOCdevkit, or the folder above that).
    Raises UserError that lists all missing files at once. What is inside the files: see check_voc.
    """
    folder = find_voc_root(Path(root))
    samples = [
        VocSample(name, _picture(folder, name), folder / "SegmentationClass" / f"{name}.png")
        for name in _split_names(folder, split)
    ]
    _check_present(folder, split, (path for sample in samples for path in (sample.image_path, sample.mask_path)))
    return samples


def read_voc_images(root: Path | str, split: str) -> list[tuple[str, Path]]:
    """As read_voc, for pictures whose masks nobody needs: (name, path) of each."""
    folder = find_voc_root(Path(root))
    images = [(name, _picture(folder, name)) for name in _split_names(folder, split)]
    _check_present(folder, split, (path for _, path in images))
    return images


def check_voc(samples: Sequence[VocSample], classes: int) -> None:
    """Open every file: masks must be palette PNGs of their picture's size, with ids below `classes` or 255.

    A few milliseconds per sample: masks are decoded, of pictures only the header is read.
    Raises UserError that lists all problems at once.
    """
    problems, progress = [], Progress()
    for index, sample in enumerate(samples):
        progress("check masks", index, len(samples))
        problems += _problems(sample, classes)
    progress.close()
    if problems:
        raise UserError(f"{len(problems)} problems in {len(samples)} samples: {_shown(problems, '; ')}.")


def find_voc_root(root: Path) -> Path:
    """Accept VOCdevkit/VOC2012, VOCdevkit, or the folder that holds VOCdevkit."""
    for folder in (root, *sorted(root.glob("VOC20*")), *sorted(root.glob("VOCdevkit/VOC20*"))):
        if (folder / "ImageSets" / "Segmentation").is_dir():
            return folder
    raise UserError(f"{root} is not a VOC folder: it has no ImageSets/Segmentation; pass the folder VOC2012 itself.")


def is_voc_folder(root: Path) -> bool:
    """Whether find_voc_root finds something."""
    try:
        find_voc_root(root)
    except UserError:
        return False
    return True


def splits(root: Path) -> list[str]:
    """Names of the lists in ImageSets/Segmentation, sorted. Raises UserError when `root` is not a VOC folder."""
    return sorted(path.stem for path in (find_voc_root(root) / "ImageSets" / "Segmentation").glob("*.txt"))


def _split_names(folder: Path, split: str) -> list[str]:
    path = _split_file(folder, split)
    if not path.is_file():
        raise UserError(f"{folder} has no split {split!r}; it has {', '.join(splits(folder)) or 'none'}.")
    try:
        names = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); write one picture name per line.") from error
    if not names:
        raise UserError(f"{path} is empty; write one picture name per line.")
    return names


def _split_file(folder: Path, split: str) -> Path:
    return folder / "ImageSets" / "Segmentation" / f"{split}.txt"


def _picture(folder: Path, name: str) -> Path:
    return folder / "JPEGImages" / f"{name}.jpg"


def _check_present(folder: Path, split: str, paths: Iterable[Path]) -> None:
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise UserError(f"{_split_file(folder, split)} names files that are not there: {_shown(missing, ', ')}.")


def _problems(sample: VocSample, classes: int) -> list[str]:
    """Everything that is wrong with one sample, each in words that name the file."""
    problems = []
    try:
        size = _picture_size(sample.image_path)
    except UserError as error:
        size = None
        problems.append(str(error).rstrip("."))
    try:
        mask = sample.read_mask()
    except UserError as error:
        return [*problems, str(error).rstrip(".")]
    if size is not None and size != mask.shape:
        problems.append(f"{sample.mask_path} is {mask.shape[1]}x{mask.shape[0]}, its picture {size[1]}x{size[0]}")
    ids = np.unique(mask)
    unknown = [str(value) for value in ids if value >= classes and value != VOID]
    if unknown:
        problems.append(f"{sample.mask_path} holds the ids {', '.join(unknown)}, which are none of {classes} classes")
    return problems


def _picture_size(path: Path) -> tuple[int, int]:
    """(height, width) as read_picture gives it, from the header alone: a picture may be stored on its side."""
    image = _pillow()
    try:
        with image.open(path) as picture:
            turned = picture.getexif().get(_EXIF_ORIENTATION) in _TURNED
            return (picture.width, picture.height) if turned else (picture.height, picture.width)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} is not a readable picture: {error}.") from error


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise missing_package("pillow", extra="build") from error
    return Image


def _shown(problems: list[str], separator: str) -> str:
    rest = f" and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
    return separator.join(problems[:_SHOWN_PROBLEMS]) + rest
