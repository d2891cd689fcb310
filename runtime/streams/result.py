"""One frame's way through a stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..segmentation import Segmentation
from ..sources import Frame


@dataclass(frozen=True, eq=False)
class StreamResult:
    """A frame, its mask, and when what happened. Times are `time.monotonic()` in seconds.

    source: URI of the source, without a password. sequence: number of the frame in the source's count, from 0, dropped
    frames counted. dropped: frames of this source dropped so far. captured_s: when the frame was in hand; finished_s:
    when its mask was. place: of the source in the pipeline's list, from 0; two sources may have one URI. picture: what
    `Pipeline.draw` was given made of it, (H, W, 3) uint8 BGR, in drawn_ms milliseconds; None where nothing draws.
    """

    frame: Frame
    segmentation: Segmentation
    source: str
    sequence: int
    dropped: int
    captured_s: float
    finished_s: float
    place: int = 0
    picture: np.ndarray | None = None
    drawn_ms: float = 0.0

    @property
    def age_ms(self) -> float:
        """Milliseconds from capture to mask."""
        return 1000 * (self.finished_s - self.captured_s)
