"""What fcn-run did, as it is printed and written as JSON."""

from __future__ import annotations

from dataclasses import dataclass

from ..stage_times import StageTimes


@dataclass(frozen=True)
class LiveStats:
    """What a camera did: captured = frames written + dropped, exactly.

    dropped: frames that a newer one replaced before the model or the output had time for them, or that were under way
    when the run was ended. connections: how often it was opened. age: milliseconds from capture to mask.
    """

    captured: int
    dropped: int
    connections: int
    age: StageTimes | None


@dataclass(frozen=True)
class SourceResult:
    """One source, in the order given. frames: its results that were written.

    warning: one sentence on what went wrong: that it could not be opened, failed, or ended early. live: None but for
    cameras.
    """

    uri: str
    frames: int
    skipped_files: int
    warning: str | None
    live: LiveStats | None


@dataclass(frozen=True)
class RunResult:
    """What fcn-run did, of all sources together.

    frames: results written; seconds: how long the sources ran, by the clock. stages: milliseconds of work per frame in
    preprocess, infer, head and overlay (drawing), and their total; drawing goes on beside the model, so that frames may
    come faster than their total. classes: share of all pixels, by name.
    """

    sources: list[SourceResult]
    sink: str
    model: str
    backend: str
    precision: str
    frames: int
    seconds: float
    frames_per_second: float
    stages: dict[str, StageTimes]
    classes: dict[str, float]
