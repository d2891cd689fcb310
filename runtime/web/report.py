"""status.json: all that the page tells beside the picture."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace

from ..look import Look
from .board import Board, BoardSource
from .pictures import hex_colours


@dataclass(frozen=True)
class ClassReport:
    """colour: `#rrggbb`; painted: whether the overlay shows it at first."""

    name: str
    colour: str
    painted: bool


@dataclass(frozen=True)
class SourceReport:
    """A source's status, and what was seen of it. Values are None until there was a frame.

    camera_fps: frames captured per second; fps: masks per second, over the last seconds. age_ms: capture to mask, of
    the newest frame; silent_s: seconds since it was published. stages_ms: milliseconds of preprocess, infer and head.
    shares: (class id, share of pixels 0..1), the largest first.
    """

    uri: str
    state: str
    reason: str | None
    camera_fps: float | None
    fps: float | None
    captured: int
    processed: int
    dropped: int
    connections: int
    age_ms: float | None = None
    silent_s: float | None = None
    width: int | None = None
    height: int | None = None
    stages_ms: dict[str, float] | None = None
    shares: list[tuple[int, float]] | None = None


@dataclass(frozen=True)
class PageReport:
    """The whole of status.json. alpha: opacity to begin with, 0..1; viewers: of all streams."""

    model: str
    alpha: float
    viewers: int
    classes: list[ClassReport]
    sources: list[SourceReport]


def status_json(board: Board, look: Look, model: str, viewers: int) -> bytes:
    """status.json as it is now. Calls `board.statuses`; not for the event loop's thread."""
    colours = hex_colours(look.palette, look.classes)
    report = PageReport(
        model,
        look.alpha,
        viewers,
        [
            ClassReport(name, colour, class_id not in look.ignore)
            for class_id, (name, colour) in enumerate(zip(look.classes, colours, strict=True))
        ],
        [_source(board, source) for source in board.sources()],
    )
    return json.dumps(asdict(report), allow_nan=False).encode()


def _source(board: Board, source: BoardSource) -> SourceReport:
    published, status = board.newest(source), source.status
    report = SourceReport(
        status.uri,
        status.state.value,
        status.reason,
        status.fps,
        board.masks_per_second(source),
        status.captured,
        status.processed,
        status.dropped,
        status.connections,
    )
    if published is None:
        return report
    result, segmentation = published.result, published.result.segmentation
    return replace(
        report,
        age_ms=result.age_ms,
        silent_s=max(0.0, time.monotonic() - result.finished_s),
        height=segmentation.mask.shape[0],
        width=segmentation.mask.shape[1],
        stages_ms={
            "preprocess": segmentation.preprocess_ms,
            "infer": segmentation.infer_ms,
            "head": segmentation.head_ms,
        },
        shares=[(class_id, round(share, 5)) for class_id, share in published.shares.items()],
    )
