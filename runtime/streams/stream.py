"""One source and one model as an iterator: the shortest way from a camera to masks in a program of one's own."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from ..sources import InputOptions, Source
from .result import StreamResult
from .shared_model import FrameSegmenter, SharedModel, opened
from .status import SourceStatus

if TYPE_CHECKING:
    from typing_extensions import Self


class Stream:
    """Masks of a source's frames, one `StreamResult` after another. An iterator and a context manager.

        with Segmenter("fcn8s-lite0-voc") as segmenter, Stream("/dev/video0", segmenter) as stream:
            for result in stream:
                drive(result.segmentation.mask, result.age_ms)

    A camera is read on a thread of the stream's own and only its newest frame is kept, so that each result is of what
    the camera saw last, however slow the loop; what was passed over is counted in `status.dropped`. A camera that is
    lost is tried again for ever and the loop waits meanwhile; `status` says so from another thread. A film or folder
    gives every frame in order, read one ahead.

    source: a URI as `open_source` takes it, or a `Source`, which the stream closes. segmenter: a `Segmenter`, or
    anything with its `segment`; the stream does not close it. stall_timeout_s: silent seconds after which a camera is
    `stalled`, and a network camera given up and connected anew. reconnect: False raises SourceError where a camera is
    lost. options: what to ask of a URI's source.

    Threads. The model runs in the thread that iterates; one thread at a time may. `status` and `close` may be used from
    any thread; `close` ends the iteration in another one once the model is done with its frame. Frames and masks are
    the caller's own: nothing writes to them later. `close` waits two seconds at most: a driver's read that has not
    returned by then is left to its thread, a daemon, which releases the camera when it does. FFmpeg returns within
    the stall timeout, MJPEG over HTTP at once, V4L2 after ten seconds.

    Raises SourceError for a source that cannot be opened (a network camera is tried again instead), and when a film
    turns out damaged; UserError for options that cannot be.
    """

    def __init__(
        self,
        source: str | Source,
        segmenter: FrameSegmenter,
        *,
        stall_timeout_s: float = 5.0,
        reconnect: bool = True,
        options: InputOptions | None = None,
    ) -> None:
        self._shared = SharedModel(
            {0: opened(source, options, stall_timeout_s)},
            segmenter,
            stall_timeout_s=stall_timeout_s,
            reconnect=reconnect,
        )

    @property
    def source(self) -> Source:
        """The source that is read."""
        return self._shared.feeds[0].source

    @property
    def status(self) -> SourceStatus:
        """State and counts of the source, now."""
        return self._shared.statuses()[0]

    def run(self, callback: Callable[[StreamResult], object]) -> None:
        """Call `callback` with each result, in this thread, until the source ends or `close` is called."""
        for result in self:
            callback(result)

    def close(self) -> None:
        """End iteration and release the source; more than once does no harm."""
        self._shared.stop()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamResult:
        found = self._shared.next_result()
        if found is not None:
            return found[1]
        error, self._shared.feeds[0].error = self._shared.feeds[0].error, None
        if error is not None:
            raise error
        raise StopIteration

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamResult:
        """As `__next__`, on a thread of asyncio's: the event loop goes on while the camera and the model work."""
        import asyncio

        result = await asyncio.to_thread(next, self, None)
        if result is None:
            raise StopAsyncIteration
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
