"""Several sources, one model: whose frame is next, and the mask of it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from ..errors import UserError
from ..segmentation import Segmentation
from ..sources import InputOptions, Source, open_source
from .feed import Feed
from .result import StreamResult
from .status import SourceStatus

_log = logging.getLogger(__name__)

LOOK_S = 0.25
"""How often stalled cameras are looked for while nobody delivers."""
JOIN_S = 2.0
"""How long closing waits for calls to cameras that are under way."""


class FrameSegmenter(Protocol):
    """What makes masks: a `Segmenter`, or anything with its `segment`."""

    def segment(self, frame: np.ndarray) -> Segmentation:
        """frame (H, W, 3) uint8 BGR → its mask at that size."""
        ...


class SharedModel:
    """Feeds that take turns at one model: after each frame the next source in the row that has one.

    Results come one at a time from `next_result`, whose caller's thread the model runs on. sources: by their places in
    the caller's list.
    """

    def __init__(
        self, sources: Mapping[int, Source], segmenter: FrameSegmenter, *, stall_timeout_s: float, reconnect: bool
    ) -> None:
        if not 0 < stall_timeout_s <= 3600:
            raise UserError(f"the stall timeout is {stall_timeout_s}; it must be above 0 and at most 3600 seconds.")
        self.changed = threading.Condition()
        self.feeds = [
            Feed(source, self.changed, stall_timeout_s=stall_timeout_s, reconnect=reconnect, place=place)
            for place, source in sources.items()
        ]
        self._segmenter = segmenter
        self._turn = 0
        self._started = self._stopped = False

    def next_result(self, accepts: Callable[[Feed], bool] | None = None) -> tuple[Feed, StreamResult] | None:
        """The next frame's result, waited for; None when all sources have ended, or after `stop`.

        accepts: whether a feed's result has a place to go (called with `changed` held); its frame stays where it is
        until then. What the segmenter raises is raised here, and the frame counted as dropped.
        """
        self._start()
        with self.changed:
            feed = self._wait_for_turn(accepts)
            if feed is None:
                return None
            taken = feed.take()
        processed = False
        try:
            segmentation = self._segmenter.segment(taken.frame.image)
            finished_s = time.monotonic()
            processed = True
        finally:
            with self.changed:
                feed.finish(processed=processed)
        return feed, StreamResult(
            frame=taken.frame,
            segmentation=segmentation,
            source=feed.source.uri,
            sequence=taken.sequence,
            dropped=taken.dropped,
            captured_s=taken.captured_s,
            finished_s=finished_s,
            place=feed.place,
        )

    def statuses(self) -> list[SourceStatus]:
        """One per source, in their order."""
        with self.changed:
            return [feed.status() for feed in self.feeds]

    def halt(self) -> None:
        """Let `next_result` give None from now on (held)."""
        self._started = self._stopped = True
        self.changed.notify_all()

    def stop(self) -> None:
        """`halt`, end all captures and wait `JOIN_S` for their threads."""
        with self.changed:
            self.halt()
        for feed in self.feeds:
            feed.stop()
        until_s = time.monotonic() + JOIN_S
        for feed in self.feeds:
            if not feed.join(max(0.0, until_s - time.monotonic())):
                _log.info("%s has not returned from a read; its thread ends when it does", feed.source.uri)

    def _start(self) -> None:
        with self.changed:
            if self._started:
                return
            self._started = True
            for feed in self.feeds:
                feed.start()

    def _wait_for_turn(self, accepts: Callable[[Feed], bool] | None) -> Feed | None:
        while not self._stopped:
            for step in range(len(self.feeds)):
                feed = self.feeds[(self._turn + step) % len(self.feeds)]
                if feed.ready() and (accepts is None or accepts(feed)):
                    self._turn = (self._turn + step + 1) % len(self.feeds)
                    return feed
            if all(feed.done() for feed in self.feeds):
                return None
            for feed in self.feeds:
                feed.look()
            self.changed.wait(LOOK_S)
        return None


def opened(
    source: str | Source,
    options: InputOptions | None,
    stall_timeout_s: float,
    opener: Callable[[str, InputOptions], Source] = open_source,
) -> Source:
    """The source itself, or what its URI names. A network camera is given up after the stall timeout."""
    if isinstance(source, Source):
        if options is not None:
            raise UserError(f"options go with a URI; {source.uri} is open already: give them to open_source.")
        return source
    return opener(source, options or InputOptions(timeout_s=stall_timeout_s))
