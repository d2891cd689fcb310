"""The live page as a place where results go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..streams.result import StreamResult
from ..streams.status import SourceStatus
from .sink import Sink

if TYPE_CHECKING:
    from ..look import Look
    from ..segmenter import Segmenter


class PageSink(Sink):
    """Shows results at `url`. Raises UserError for an address that cannot be served, as LivePage does.

    uri: `http://127.0.0.1:8080`; look: colours, class names and opacity; token: as for LivePage. The page draws what
    its viewers ask for, and only while there are some; so it wants no picture.
    """

    def __init__(self, uri: str, segmenter: Segmenter, look: Look, token: str | None = None) -> None:
        super().__init__(uri)
        from ..web import LivePage  # asyncio takes a device longer to load than all else here

        self._segmenter = segmenter
        self._page = LivePage(
            uri, look.palette, look.classes, self._words(), token=token, ignore=tuple(look.ignore), alpha=look.alpha
        )
        self.url = self._page.url

    def show_statuses(self, statuses: Callable[[], Sequence[SourceStatus]]) -> None:
        """Let the page ask `statuses` for the status of each source, from threads of its own."""
        self._page.statuses = statuses

    def take(self, result: StreamResult, picture: np.ndarray | None = None) -> None:
        """As Sink has it; returns at once, however many look. A picture that is given is what /stream/overlay shows."""
        self._page.model = self._words()  # a backend may have fallen back to the CPU
        self._page.publish(result, picture)
        self.written += 1

    def close(self) -> None:
        """Drop every viewer."""
        self._page.close()

    def _words(self) -> str:
        backend = self._segmenter.backend
        return f"{self._segmenter.bundle.manifest.name} · {backend.name} {backend.precision}"
