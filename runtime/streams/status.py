"""What is known of a source while it runs: whether it delivers, and how much of it was seen."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class SourceState(str, Enum):
    """Whether a source delivers.

    connecting: being opened; live: frames come; stalled: open, but none came for the stall timeout; lost: it failed
    and is tried again; ended: nothing more will come.
    """

    CONNECTING = "connecting"
    LIVE = "live"
    STALLED = "stalled"
    LOST = "lost"
    ENDED = "ended"


@dataclass(frozen=True)
class SourceStatus:
    """One source at one moment. captured = processed + dropped + what is on its way (at most two frames).

    uri: as the user gave it, without a password. fps: frames captured per second, over the last seconds; None before
    two came, and while it is not live. reason: one sentence on why it is not live; None while it is. connections: how
    often it was opened.
    """

    uri: str
    state: SourceState
    captured: int = 0
    processed: int = 0
    dropped: int = 0
    connections: int = 0
    fps: float | None = None
    reason: str | None = None
