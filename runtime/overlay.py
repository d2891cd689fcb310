"""Masks made visible: class colours blended over the camera's picture, and a legend of the classes in view."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from .errors import UserError
from .opencv import load_cv2
from .palette import VOID, check_palette, full_palette

STRIP_PIXELS = 1 << 15
"""A frame is blended in strips of so many pixels: what is made on the way stays in the core's cache."""


def blend(
    frame: np.ndarray,
    mask: np.ndarray,
    palette: np.ndarray,
    *,
    alpha: float = 0.5,
    ignore: Collection[int] = (0,),
) -> np.ndarray:
    """The frame with each class's colour laid over it: `frame * (1 - alpha) + colour * alpha`, rounded.

    frame: (H, W, 3) uint8 BGR, left as it is; mask: (H, W) uint8 class ids; palette: (n, 3) uint8 RGB;
    alpha: 0 (frame only) to 1 (colour only). Classes in `ignore`, and void (255), keep the camera's pixels.
    Returns (H, W, 3) uint8 BGR.

    Raises UserError for an alpha outside 0..1; ValueError for other shapes or dtypes, or class ids past the palette.
    """
    _check_frame(frame)
    _check_mask(mask, palette)
    if frame.shape[:2] != mask.shape:
        raise ValueError(f"the frame is {frame.shape[:2]} and the mask {mask.shape} (height, width); they must agree")
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha is {alpha}; it must lie between 0 (frame only) and 1 (colour only)")
    cv2 = load_cv2()
    table = _colour_table(palette)
    mask = np.ascontiguousarray(mask)
    painted = _painted(mask, ignore)
    blended = frame.copy()
    left, top, width, height = cv2.boundingRect(painted)
    rows = max(1, STRIP_PIXELS // max(1, width))
    for first in range(top, top + height, rows):
        box = slice(first, min(first + rows, top + height)), slice(left, left + width)
        colours = _looked_up(mask[box], table)
        tinted = cv2.addWeighted(blended[box], 1.0 - alpha, colours, alpha, 0.0, dst=colours)
        cv2.copyTo(tinted, painted[box], blended[box])
    return blended


def colorize(mask: np.ndarray, palette: np.ndarray, *, ignore: Collection[int] = ()) -> np.ndarray:
    """(H, W) uint8 class ids → (H, W, 3) uint8 BGR: each pixel in its class's colour, void (255) in VOC's pale yellow.

    palette: (n, 3) uint8 RGB. Classes in `ignore`, ids of 0..255, are black. Raises ValueError for other shapes or
    dtypes, or class ids past the palette.
    """
    _check_mask(mask, palette)
    return _looked_up(mask, _colour_table(palette, ignore))


def class_shares(mask: np.ndarray) -> dict[int, float]:
    """(H, W) uint8 class ids → {class id: share of all pixels, 0..1}, the largest share first, void (255) included."""
    flat = mask.ravel()
    # Runs of one class, and not pixels, are counted: of a camera's frame there are hundreds of times fewer.
    lasts = np.append(np.flatnonzero(flat[1:] != flat[:-1]), flat.size - 1)
    lengths = lasts + 1
    lengths[1:] -= lasts[:-1] + 1
    counts = np.bincount(flat[lasts], weights=lengths).tolist()
    present = [class_id for class_id, count in enumerate(counts) if count]
    return {class_id: counts[class_id] / mask.size for class_id in sorted(present, key=lambda each: -counts[each])}


def legend(
    frame: np.ndarray,
    shares: Mapping[int, float],
    names: Sequence[str],
    palette: np.ndarray,
    *,
    in_place: bool = False,
) -> np.ndarray:
    """The frame with a strip along its bottom: colour, name and share of pixels of each class present.

    frame: (H, W, 3) uint8 BGR, left as it is unless in_place; shares: what `class_shares` returns, in the order to
    draw; void is left out. names: one per class id; palette: (n, 3) uint8 RGB. The strip grows to a third of the frame
    at most; classes that do not fit are counted as "+3 more". Returns (H, W, 3) uint8 BGR.
    """
    _check_frame(frame)
    out = frame if in_place else np.ascontiguousarray(frame).copy()
    present = [(class_id, share) for class_id, share in shares.items() if class_id != VOID]
    height, width = out.shape[:2]
    text = _Text(width, height)
    entries: list[_Entry] = [
        (f"{names[class_id] if class_id < len(names) else class_id} {_percent(share)}", palette[class_id, ::-1])
        for class_id, share in present
    ]
    rows = _wrap(entries, text, width, max_rows=max(1, height // 3 // text.line_px))
    if not rows:
        return out
    top = max(0, height - len(rows) * text.line_px - text.gap_px // 2)
    out[top:] //= 4  # a dark band: light text stays readable on any picture
    for line, row in enumerate(rows):
        _draw_row(out, row, text, top + line * text.line_px + text.gap_px // 4)
    return out


def _colour_table(palette: np.ndarray, ignore: Collection[int] = ()) -> np.ndarray:
    """(256,) int32: the four bytes B, G, R, 0 of each class id's colour, to be looked up at once; not to be written."""
    check_palette(palette)
    return _kept_colour_table(palette.tobytes(), frozenset(ignore))


@functools.lru_cache(16)
def _kept_colour_table(palette: bytes, ignore: frozenset[int]) -> np.ndarray:
    table = np.zeros((256, 4), np.uint8)
    table[:, :3] = full_palette(np.frombuffer(palette, np.uint8).reshape(-1, 3))[:, ::-1]
    table[[*ignore]] = 0
    return table.view(np.int32).ravel()


def _looked_up(mask: np.ndarray, table: np.ndarray) -> np.ndarray:
    """(H, W) uint8 class ids → (H, W, 3) uint8 BGR."""
    cv2 = load_cv2()
    looked_up = cv2.LUT(mask, table)
    return cv2.cvtColor(looked_up.view(np.uint8).reshape(*mask.shape, 4), cv2.COLOR_BGRA2BGR)


def _painted(mask: np.ndarray, ignore: Collection[int]) -> np.ndarray:
    """(H, W) uint8, not 0 where a class's colour goes: of a mask whose only such class is 0, the mask itself."""
    mask = np.ascontiguousarray(mask)
    if set(ignore) == {0} and mask.max() < VOID:
        return mask
    table = np.ones(256, np.uint8)
    table[[*ignore, VOID]] = 0
    return load_cv2().LUT(mask, table)


_Entry = tuple[str, "np.ndarray | None"]


class _Text:
    """Sizes of the legend's text and swatches, in pixels, from the width of the frame."""

    def __init__(self, width: int, height: int) -> None:
        self.font = load_cv2().FONT_HERSHEY_SIMPLEX
        self.letter_px = min(max(8, round(width / 70)), 26, max(4, height // 6))
        self.thickness = max(1, round(self.letter_px / 10))
        self.scale = self.letter_px / 22.0  # a Hershey capital is 22 px high at scale 1
        self.line_px = round(self.letter_px * 1.9)
        self.gap_px = self.letter_px

    def entry_px(self, entry: _Entry) -> int:
        """Width of one legend entry: swatch, space, text."""
        text_px = _text_px(entry[0], self.font, self.scale, self.thickness)
        return text_px + (round(self.letter_px * 1.6) if entry[1] is not None else 0)


@functools.lru_cache(1024)
def _text_px(label: str, font: int, scale: float, thickness: int) -> int:
    (width, _), _ = load_cv2().getTextSize(label, font, scale, thickness)
    return width


def _wrap(entries: list[_Entry], text: _Text, width: int, max_rows: int) -> list[list[_Entry]]:
    """Entries laid out in rows; when they need more than `max_rows`, the last says how many were left out."""
    for kept in range(len(entries), 0, -1):
        left_out = len(entries) - kept
        shown = [*entries[:kept], *([(f"+{left_out} more", None)] if left_out else [])]
        rows: list[list[_Entry]] = []
        room = 0
        for entry in shown:
            needed = text.entry_px(entry) + text.gap_px
            if needed > room or not rows:
                rows.append([])
                room = width - text.gap_px
            rows[-1].append(entry)
            room -= needed
        if len(rows) <= max_rows or kept == 1:
            return rows[:max_rows]
    return []


def _draw_row(out: np.ndarray, row: list[_Entry], text: _Text, top: int) -> None:
    cv2 = load_cv2()
    left = text.gap_px
    base = top + round(text.letter_px * 1.45)
    for label, colour in row:
        start = left
        if colour is not None:
            side = text.letter_px
            corners = (left, base - side), (left + side, base)
            cv2.rectangle(out, *corners, tuple(int(value) for value in colour), cv2.FILLED)
            cv2.rectangle(out, *corners, (220, 220, 220), 1)  # background's black swatch would vanish in the band
            start += round(side * 1.6)
        cv2.putText(out, label, (start, base), text.font, text.scale, (255, 255, 255), text.thickness, cv2.LINE_AA)
        left += text.entry_px((label, colour)) + text.gap_px


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "<1%"


def _check_frame(frame: np.ndarray) -> None:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or frame.size == 0:
        raise ValueError(f"a frame is (H, W, 3) uint8 BGR with at least one pixel, not {frame.shape} {frame.dtype}")


def _check_mask(mask: np.ndarray, palette: np.ndarray) -> None:
    if mask.ndim != 2 or mask.dtype != np.uint8 or mask.size == 0:
        raise ValueError(f"a mask is (H, W) uint8 with at least one pixel, not {mask.shape} {mask.dtype}")
    if mask.max() < len(palette):
        return
    beyond = mask[(mask >= len(palette)) & (mask != VOID)]
    if beyond.size:
        raise ValueError(f"the mask holds class {beyond.max()}, but the palette has {len(palette)} colours")
