"""Names and colours of classes in text files, one class per line, as segnet's --labels and --colors take them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from .errors import UserError

_MAX_BYTES = 1 << 20  # thousands of lines; a video given by mistake is not read into memory
_HEX = re.compile(r"#([0-9a-fA-F]{6})(?:\s+#.*)?")
_NUMBERS = re.compile(r"(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})(?:\s+\d{1,3})?(?:\s+#.*)?")


def read_labels(path: Path | str, count: int) -> tuple[str, ...]:
    """The names of `count` classes, one per line; empty lines and lines that begin with # are skipped.

    Raises UserError for a file that cannot be read and for another number of names.
    """
    path = Path(path)
    names = tuple(line for _, line in _lines(path) if not line.startswith("#"))
    _check_count(path, len(names), count, "names")
    return names


def read_colors(path: Path | str, count: int) -> np.ndarray:
    """(count, 3) uint8 RGB: the colours of `count` classes, one per line, "128 0 0", "128 0 0 255" or "#800000".

    The fourth number, an opacity in jetson-inference's files, is not used. Empty lines are skipped, and what follows a
    # that does not begin a colour. Raises UserError for a file that cannot be read, for a line of another kind, which
    it names, and for another number of colours.
    """
    path = Path(path)
    colours = [
        _colour(path, number, line) for number, line in _lines(path) if not line.startswith("#") or _HEX.fullmatch(line)
    ]
    _check_count(path, len(colours), count, "colours")
    return np.array(colours, np.uint8).reshape(count, 3)


def _lines(path: Path) -> list[tuple[int, str]]:
    """Lines with something in them, stripped, and their numbers from 1."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); give a text file.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if len(content) > _MAX_BYTES or "\0" in text:
        raise UserError(f"{path} is no text file in UTF-8 of at most 1 MiB; give one with a line per class.")
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def _colour(path: Path, number: int, line: str) -> tuple[int, ...]:
    if found := _HEX.fullmatch(line):
        return tuple(bytes.fromhex(found[1]))
    found = _NUMBERS.fullmatch(line)
    values = tuple(map(int, found.groups())) if found else ()
    if not found or max(values) > 255:
        raise UserError(
            f"{path}, line {number} is {line[:60]!r}; a colour is 'RED GREEN BLUE' of 0 to 255, such as '128 0 0', or "
            "'#800000'."
        )
    return values


def _check_count(path: Path, got: int, expected: int, what: str) -> None:
    if got != expected:
        raise UserError(f"{path} has {got} {what}, the model {expected} classes; give one line per class, id 0 first.")
