"""Which pictures a folder, a glob or a numbered pattern (image_%04d.jpg) stands for, and in what order."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable
from pathlib import Path

from fcnedge.runtime.errors import SourceError

from .picture_file import PICTURE_SUFFIXES

NUMBERED = re.compile(r"%(0?)(\d*)[di]")
OUTPUT_MARKER = ".fcn-run"
"""File in an output folder that says who wrote masks/ and overlays/, so that the next run may replace them."""


def folder_pictures(folder: Path) -> tuple[list[Path], int]:
    """Pictures directly in the folder, naturally sorted (img2 before img10), and how many other files lie there.

    Raises SourceError when there is no picture or the folder cannot be read.
    """
    try:
        files = [path for path in folder.iterdir() if path.is_file() and path.name != OUTPUT_MARKER]
    except OSError as error:
        raise SourceError(f"the folder {folder} cannot be read: {error.strerror}") from error
    pictures, skipped = _pictures_among(files)
    if not pictures:
        others = f"none of its {skipped} files is one" if skipped else "it has no files"
        raise SourceError(f"the folder {folder} holds no pictures ({_SUFFIX_LIST}): {others}")
    return pictures, skipped


def glob_pictures(pattern: Path) -> tuple[list[Path], int]:
    """Pictures that the glob matches, naturally sorted, and how many other files it matches.

    Raises SourceError when it matches no picture.
    """
    found = glob.glob(str(pattern), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    files = [path for path in map(Path, found) if path.is_file()]
    pictures, skipped = _pictures_among(files)
    if not files:
        raise SourceError(f"no file matches {pattern}")
    if not pictures:
        raise SourceError(f"{pattern} matches {skipped} files, but no picture ({_SUFFIX_LIST})")
    return pictures, skipped


def numbered_pictures(pattern: Path) -> list[Path]:
    """Files that the pattern's last part can name, in the order of their numbers, wherever these start.

    Raises SourceError when there is none.
    """
    match = NUMBERED.search(pattern.name)
    if match is None:
        raise ValueError(f"{pattern} holds no %d")
    before, after = pattern.name[: match.start()], pattern.name[match.end() :]
    zeros, digits = match[1], int(match[2] or 0)
    number = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
    found: dict[int, Path] = {}
    for path in pattern.parent.iterdir() if pattern.parent.is_dir() else ():
        hit = number.fullmatch(path.name)
        if hit and hit[1] == str(int(hit[1])).rjust(digits, "0" if zeros else " "):
            found[int(hit[1])] = path
    if not found:
        raise SourceError(f"no file matches the numbered pattern {pattern}")
    return [found[index] for index in sorted(found)]


def _pictures_among(files: Iterable[Path]) -> tuple[list[Path], int]:
    """Hidden files are no pictures: macOS puts a ._cat.jpg of its own beside each cat.jpg on a memory card."""
    files = list(files)
    pictures = [p for p in files if p.suffix.lower() in PICTURE_SUFFIXES and not p.name.startswith(".")]
    return sorted(pictures, key=_natural), len(files) - len(pictures)


def _natural(path: Path) -> tuple[list[str | int], str]:
    """Digits compare as numbers; text and numbers alternate, so that like always meets like."""
    parts = re.split(r"([0-9]+)", str(path).lower())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], str(path)


_SUFFIX_LIST = ", ".join(sorted(suffix[1:] for suffix in PICTURE_SUFFIXES))
