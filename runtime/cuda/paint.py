"""What an overlay made on the GPU shall look like."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..errors import UserError


@dataclass(frozen=True)
class Paint:
    """Ask for the overlay as `runtime.overlay.blend` makes it.

    alpha: 0 (frame only) to 1 (colour only); ignore: classes, 0 to 255, that keep the camera's pixels, as void does.
    Raises UserError for anything else.
    """

    alpha: float = 0.5
    ignore: Collection[int] = (0,)

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise UserError(f"alpha is {self.alpha}; it must lie between 0 (frame only) and 1 (colour only)")
        if not all(0 <= class_id <= 255 for class_id in self.ignore):
            raise UserError(f"ignore is {self.ignore}; class ids lie between 0 and 255")
