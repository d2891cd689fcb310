"""One consumer of results on a thread of its own, so that a slow disk or viewer holds up nobody else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from .feed import Feed
from .result import StreamResult

FILM_RESULTS = 2
"""Results of one film that may wait for a consumer before the model is held up."""


@dataclass(frozen=True)
class OutputStatus:
    """What a consumer has had. taken: results handed to it; dropped: live results that newer ones replaced."""

    name: str
    taken: int
    dropped: int


class Output:
    """Hands results to a consumer, in order for each source: a live source's newest only, a film's all.

    changed: as in `Feed`; methods marked "held" are called with it held. on_error: called, held, when the consumer
    has raised `error`. place: of the only source whose results are wanted; None for those of all.
    """

    def __init__(
        self,
        consumer: Callable[[StreamResult], object],
        changed: threading.Condition,
        on_error: Callable[[], None],
        place: int | None = None,
    ) -> None:
        self.error: BaseException | None = None
        self._consumer, self._changed, self._on_error, self._place = consumer, changed, on_error, place
        self._name = getattr(consumer, "__qualname__", type(consumer).__qualname__)
        self._waiting: list[tuple[Feed, StreamResult]] = []
        self._taken = self._dropped = 0
        self._finishing = False
        self._thread = threading.Thread(target=self._run, name=f"fcnedge output {self._name}", daemon=True)

    def start(self) -> None:
        """Begin to hand on."""
        self._thread.start()

    def accepts(self, feed: Feed) -> bool:
        """Whether a result of this feed has a place (held): a live one always, replacing what waits."""
        if feed.source.live or self._finishing or not self._wants(feed):
            return True
        return sum(waiting is feed for waiting, _ in self._waiting) < FILM_RESULTS

    def offer(self, feed: Feed, result: StreamResult) -> None:
        """Let the result wait for the consumer (held)."""
        if self._finishing or not self._wants(feed):
            return
        turns = [turn for turn, (waiting, _) in enumerate(self._waiting) if waiting is feed]
        if feed.source.live and turns:
            self._waiting[turns[0]] = (feed, result)  # it keeps its turn among the sources
            self._dropped += 1
        else:
            self._waiting.append((feed, result))
        self._changed.notify_all()

    def status(self) -> OutputStatus:
        """What the consumer has had so far (held)."""
        return OutputStatus(self._name, self._taken, self._dropped)

    def finish(self) -> None:
        """Take no more; what waits is still handed on (held)."""
        self._finishing = True
        self._changed.notify_all()

    def join(self, timeout_s: float) -> bool:
        """Wait until what waited is handed on; False when the consumer has not returned in time."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _wants(self, feed: Feed) -> bool:
        return self._place in (None, feed.place)

    def _run(self) -> None:
        try:
            while (result := self._next()) is not None:
                self._consumer(result)
        except BaseException as error:  # whatever it is: the pipeline raises it again
            with self._changed:
                self.error = error
                self._finishing = True
                self._waiting.clear()
                self._on_error()
                self._changed.notify_all()

    def _next(self) -> StreamResult | None:
        with self._changed:
            while not self._waiting and not self._finishing:
                self._changed.wait()
            if not self._waiting:
                return None
            _, result = self._waiting.pop(0)
            self._taken += 1
            self._changed.notify_all()
            return result
