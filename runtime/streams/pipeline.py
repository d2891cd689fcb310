"""Several sources, one model, several consumers: each camera and each consumer on a thread of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError
from ..sources import InputOptions, Source, open_source
from ..sources.address import hide_password
from .feed import Feed
from .output import Output, OutputStatus
from .result import StreamResult
from .shared_model import FrameSegmenter, SharedModel, opened
from .status import SourceState, SourceStatus

if TYPE_CHECKING:
    from typing_extensions import Self

_log = logging.getLogger(__name__)

DRAIN_S = 5.0
"""How long an interrupted pipeline waits for consumers to finish what they were given."""


class Pipeline:
    """Runs sources through one model and hands each result to every consumer.

        with Segmenter("fcn8s-lite0-voc") as segmenter:
            with Pipeline(["rtsp://front/live", "rtsp://rear/live"], segmenter, [page.publish, steer]) as pipeline:
                pipeline.run()

    The sources take turns at the model: after each frame the next one in the row that has a frame. Cameras behave as in
    `Stream`: newest frame only, drops counted, reconnected for ever. A source that cannot be opened, or fails for good,
    is logged and `ended`, and the others go on; where it was the only one, or all have failed, its error is raised.

    Threads. Each source is captured on a thread of its own; the model runs in the thread that calls `run`; each
    consumer is called on a thread of its own, one result at a time, in the order of each source. Of a live source a
    consumer that is slow gets the newest result when it is ready again (`outputs` counts the others); a film waits for
    it. A consumer that raises ends the pipeline, and `run` raises it again. `statuses`, `outputs` and `close` may be
    used from any thread. Ctrl-C in the thread of `run` ends the captures, lets consumers finish what they were given,
    five seconds at most, and goes on as KeyboardInterrupt; so does SIGTERM where a handler raises.
    Results are shared by all consumers: nobody may write to a frame or mask.

    sources, segmenter, stall_timeout_s, reconnect, options: as for `Stream`, options being for every URI. consumers:
    callables that take a `StreamResult`; `add` takes more. opener: what opens a URI.
    Raises UserError without sources.
    """

    def __init__(
        self,
        sources: Sequence[str | Source],
        segmenter: FrameSegmenter,
        consumers: Sequence[Callable[[StreamResult], object]] = (),
        *,
        stall_timeout_s: float = 5.0,
        reconnect: bool = True,
        options: InputOptions | None = None,
        opener: Callable[[str, InputOptions], Source] = open_source,
    ) -> None:
        if isinstance(sources, str) or not sources:
            raise UserError(f"a pipeline takes a list of one source or more, got {sources!r}.")
        self._failed: dict[int, UserError] = {}
        self._names = [hide_password(each) if isinstance(each, str) else each.uri for each in sources]
        self._opened: dict[int, Source] = {}
        with self._closed_on_interrupt():
            for place, source in enumerate(sources):
                with self._failure_kept(place):
                    self._opened[place] = opened(source, options, stall_timeout_s, opener)
        raised = None if self._opened else next(iter(self._failed.values()))
        for error in self._failed.values():
            if error is not raised:
                _log.warning("%s", str(error))
        if raised is not None:
            raise raised
        self._shared = SharedModel(self._opened, segmenter, stall_timeout_s=stall_timeout_s, reconnect=reconnect)
        self._outputs = [Output(consumer, self._shared.changed, self._shared.halt) for consumer in consumers]
        self._drawer: Callable[[StreamResult], np.ndarray] | None = None
        self._ran = False
        self._reported: set[Feed] = set()

    def add(self, consumer: Callable[[StreamResult], object], place: int | None = None) -> None:
        """One more consumer, before `run`: of the results of the source at `place` alone, or of all."""
        if self._ran:
            raise RuntimeError("a consumer is added before the pipeline runs")
        self._outputs.append(Output(consumer, self._shared.changed, self._shared.halt, place))

    def draw(self, drawer: Callable[[StreamResult], np.ndarray]) -> None:
        """Before `run`: have `drawer` make each result's `picture`, in the thread of `run`, between two frames.

        Where the CPU runs the network on all its cores, one that draws beside it costs twice the time: the network's
        threads wait for each other. Where a GPU runs it, or cores are free, draw in the consumer.
        """
        if self._ran:
            raise RuntimeError("what draws is named before the pipeline runs")
        self._drawer = drawer

    @property
    def sources(self) -> list[Source | None]:
        """Each source, in the order they were given; None for one that could not be opened."""
        return [self._opened.get(place) for place in range(len(self._names))]

    @property
    def statuses(self) -> list[SourceStatus]:
        """State and counts of each source, in the order they were given."""
        running = iter(self._shared.statuses())
        return [
            SourceStatus(name, SourceState.ENDED, reason=str(self._failed[place]))
            if place in self._failed
            else next(running)
            for place, name in enumerate(self._names)
        ]

    @property
    def outputs(self) -> list[OutputStatus]:
        """What each consumer has had, in the order they were given."""
        with self._shared.changed:
            return [output.status() for output in self._outputs]

    def run(self, frames: int | None = None) -> None:
        """Run until all sources have ended, `frames` results were made, or `close` is called; once per pipeline.

        Returns when the consumers have finished. Raises what a consumer or the segmenter raised.
        """
        if self._ran:
            raise RuntimeError("a pipeline runs once; make another")
        self._ran = True
        for output in self._outputs:
            output.start()
        try:
            self._work(frames)
            self._finish(None)
        except BaseException:
            self._finish(DRAIN_S)
            raise
        self._raise_errors()

    def close(self) -> None:
        """End `run` and release the sources; more than once does no harm."""
        self._shared.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _closed_on_interrupt(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            for source in self._opened.values():
                source.close()
            raise

    @contextlib.contextmanager
    def _failure_kept(self, place: int) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            self._failed[place] = error

    def _work(self, frames: int | None) -> None:
        made = 0
        while frames is None or made < frames:
            found = self._shared.next_result(self._has_room)
            if found is None:
                return
            feed, result = found[0], self._drawn(found[1])
            with self._shared.changed:
                for output in self._outputs:
                    output.offer(feed, result)
            made += 1
            self._report_failures()

    def _drawn(self, result: StreamResult) -> StreamResult:
        if self._drawer is None:
            return result
        started = time.perf_counter_ns()
        picture = self._drawer(result)
        return dataclasses.replace(result, picture=picture, drawn_ms=(time.perf_counter_ns() - started) / 1e6)

    def _has_room(self, feed: Feed) -> bool:
        return all(output.accepts(feed) for output in self._outputs)

    def _report_failures(self) -> None:
        """Log each source that has failed, once; where all have, their errors wait for the end of the run."""
        failed = self._unreported()
        for feed in failed:
            if feed.error is not None and not isinstance(feed.error, UserError):
                raise feed.error
        if any(feed.error is None for feed in self._shared.feeds):
            self._log_failures(failed)

    def _unreported(self) -> list[Feed]:
        return [feed for feed in self._shared.feeds if feed.error is not None and feed not in self._reported]

    def _log_failures(self, failed: Sequence[Feed]) -> None:
        for feed in failed:
            self._reported.add(feed)
            _log.warning("%s", str(feed.error))

    def _finish(self, drain_s: float | None) -> None:
        """Stop the captures and let the consumers finish, within `drain_s` seconds, None being as long as it takes."""
        self._shared.stop()
        with self._shared.changed:
            for output in self._outputs:
                output.finish()
        until_s = time.monotonic() + drain_s if drain_s is not None else None
        for output in self._outputs:
            while not output.join(0.2):  # short waits: Ctrl-C comes between them on every system
                if until_s is not None and time.monotonic() > until_s:
                    _log.warning("%s has not returned; its last results are lost", output.status().name)
                    break

    def _raise_errors(self) -> None:
        for output in self._outputs:
            if output.error is not None:
                raise output.error
        failed = self._unreported()
        errors = [feed.error for feed in failed if feed.error is not None]
        bugs = [error for error in errors if not isinstance(error, UserError)]
        if bugs:
            raise bugs[0]
        all_failed = all(feed.error is not None for feed in self._shared.feeds)
        self._log_failures(failed[1:] if all_failed else failed)
        if all_failed and errors:
            raise errors[0]
