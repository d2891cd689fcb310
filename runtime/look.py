"""How masks are shown: colours, opacity, which classes stay unpainted, the legend, and the pictures side by side."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import UserError
from .opencv import load_cv2
from .overlay import blend, class_shares, colorize, legend
from .palette import VOID, full_palette

VISUALS = ("overlay", "mask")
"""What can be drawn: class colours over the camera's picture, or class colours alone."""


@dataclass(frozen=True, eq=False)
class Look:
    """How the masks of one model are drawn. Thread-safe.

    palette: (n, 3) uint8 RGB, the colour of each class id; classes: their names, for the legend. alpha: 0 (picture
    only) to 1 (colour only). ignore: class ids that are not painted: an overlay keeps the camera's pixels there, a mask
    picture is black, the legend leaves them out; void (255) is never painted over a picture. legend: write the classes
    in view along the bottom of an overlay.

    Raises UserError for an alpha outside 0..1 and for ids outside 0..255, ValueError for a palette of another kind.
    """

    palette: np.ndarray
    classes: Sequence[str]
    alpha: float = 0.5
    ignore: frozenset[int] = frozenset({0})
    legend: bool = True

    def __post_init__(self) -> None:
        full_palette(self.palette)
        if not 0 <= self.alpha <= 1:
            raise UserError(f"alpha is {self.alpha}; it must lie between 0 (frame only) and 1 (colour only).")
        if not all(0 <= class_id <= VOID for class_id in self.ignore):
            raise UserError(f"ignore is {sorted(self.ignore)}; class ids lie between 0 and {VOID}.")

    def draw(self, image: np.ndarray, mask: np.ndarray, shows: Sequence[str] = ("overlay",)) -> np.ndarray:
        """What `shows` names, side by side in its order: (H, W * len(shows), 3) uint8 BGR, a new array.

        image: (H, W, 3) uint8 BGR, left as it is; mask: (H, W) uint8 class ids; shows: of VISUALS, one at least.
        "overlay": the picture with the classes' colours and the legend. "mask": the colours alone, void in its own.
        Raises ValueError for other shapes, dtypes or visuals, and for class ids past the palette.
        """
        pictures = [self._draw(image, mask, visual) for visual in shows]
        if not pictures:
            raise ValueError(f"nothing is to be drawn; choose from {', '.join(VISUALS)}")
        return pictures[0] if len(pictures) == 1 else load_cv2().hconcat(pictures)

    def _draw(self, image: np.ndarray, mask: np.ndarray, visual: str) -> np.ndarray:
        if visual == "mask":
            return colorize(mask, self.palette, ignore=self.ignore)
        if visual != "overlay":
            raise ValueError(f"{visual!r} cannot be drawn; choose from {', '.join(VISUALS)}")
        shares = (
            class_shares(mask) if self.legend else {}
        )  # first: the mask was written a moment ago and is in the cache
        picture = blend(image, mask, self.palette, alpha=self.alpha, ignore=self.ignore)
        shares = {class_id: share for class_id, share in shares.items() if class_id not in self.ignore}
        return legend(picture, shares, self.classes, self.palette, in_place=True)


def parse_visuals(text: str) -> tuple[str, ...]:
    """What to draw, in the order named: "overlay,mask" → ("overlay", "mask"); "|" separates as well, as segnet has it.

    Raises UserError for nothing, for another word and for one that is named twice.
    """
    visuals = tuple(word.strip() for word in text.replace("|", ",").split(","))
    if not set(visuals) <= set(VISUALS) or len(set(visuals)) < len(visuals):
        raise UserError(f"{text!r} cannot be shown; choose overlay, mask, or overlay,mask for both side by side.")
    return visuals


def parse_ignored(text: str, classes: Sequence[str]) -> frozenset[int]:
    """Class ids from names or ids: "background,person" or "0,15" → {0, 15}, "" → none, "void" → {255}.

    classes: the model's names; a name that looks like a number comes before the id. Raises UserError, with the names
    that come nearest, for a name or id that the model has not.
    """
    words = [word.strip() for word in text.split(",")] if text.strip() else []
    return frozenset(_class_id(word, classes) for word in words)


def _class_id(word: str, classes: Sequence[str]) -> int:
    if word in classes:
        return list(classes).index(word)
    if word == "void":
        return VOID
    if word.isdecimal() and int(word) < len(classes):
        return int(word)
    near = difflib.get_close_matches(word, classes, n=3)
    advice = f"did you mean {' or '.join(near)}?" if near else f"it has {_some(classes)}."
    raise UserError(f"the model has no class {word!r}, nor is that an id from 0 to {len(classes) - 1}; {advice}")


def _some(classes: Sequence[str], most: int = 25) -> str:
    left_out = len(classes) - most
    return ", ".join(classes[:most]) + (f" and {left_out} more" if left_out > 0 else "")
