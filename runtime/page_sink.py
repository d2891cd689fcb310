"""The live page as a place where results go."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .segmentation import Segmentation
from .sinks import Sink
from .sources import Frame
from .streams.result import StreamResult
from .streams.status import SourceStatus

if TYPE_CHECKING:
    from .segmenter import Segmenter


class PageSink(Sink):
    """Shows results at `url`. Raises UserError for an address that cannot be served, as LivePage does.

    uri: `http://127.0.0.1:8080`; token, alpha: as for LivePage. statuses: gives the status of each source, from any
    thread; to be set when sources run.
    """

    def __init__(self, uri: str, segmenter: Segmenter, *, token: str | None = None, alpha: float = 0.5) -> None:
        super().__init__(uri)
        from .web import LivePage  # asyncio takes a device longer to load than all else here

        words = f"{segmenter.bundle.manifest.name} · {segmenter.backend.name} {segmenter.backend.precision}"
        self._page = LivePage(uri, segmenter.palette, segmenter.classes, words, token=token, alpha=alpha)
        self.url = self._page.url

    def show_statuses(self, statuses: Callable[[], Sequence[SourceStatus]]) -> None:
        """Let the page ask `statuses` for the status of each source, from threads of its own."""
        self._page.statuses = statuses

    def take(self, result: StreamResult, overlay: np.ndarray) -> None:
        """As Sink has it; returns at once, however many look."""
        self._page.publish(result, overlay)
        self.written += 1

    def write(self, frame: Frame, mask: np.ndarray, overlay: np.ndarray) -> None:
        """As Sink has it, of a frame whose times nobody took."""
        now = time.monotonic()
        self.take(StreamResult(frame, Segmentation(mask, 0, 0, 0), self.uri, frame.index, 0, now, now), overlay)

    def close(self) -> None:
        """Drop every viewer."""
        self._page.close()
