"""One source at work: the thread that captures, the one frame that waits, the counts and the state.

The frame that waits is a camera's newest or a film's next: a camera's is replaced by the one after it, and counted as
dropped; a film's is waited for. At any moment, and exactly: captured = processed + dropped + waiting + in the model.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import SourceError
from ..sources import Frame, Source
from .backoff import Backoff
from .status import SourceState, SourceStatus

_log = logging.getLogger(__name__)

FPS_WINDOW_S = 5.0
SETTLED_S = 2.0
"""How long a camera must have been live for its next loss to count as the first."""
KNOCK_S = 0.5
"""How often it is looked whether a lost camera is back, while the back-off runs."""
EXIT_S = 11.0
"""How long the end of the program waits at most for a call to a camera: V4L2's take ten seconds."""


@dataclass(frozen=True, eq=False)
class CapturedFrame:
    """A frame in hand. sequence: its number among all captured, from 0; dropped: frames dropped before it."""

    frame: Frame
    sequence: int
    dropped: int
    captured_s: float


class Feed:
    """Captures one source on a thread of its own, from `start` to its end or `stop`.

    changed: the condition, shared by all who work together, that guards everything here and is notified of each
    change that somebody waits for. stall_timeout_s: after how many silent seconds a live camera is stalled. reconnect:
    whether a lost one is tried again. place: of the source among all that were given. Methods marked "held" are called
    with `changed` held.
    """

    def __init__(
        self,
        source: Source,
        changed: threading.Condition,
        *,
        stall_timeout_s: float = 5.0,
        reconnect: bool = True,
        place: int = 0,
    ) -> None:
        self.source, self.place = source, place
        self.error: Exception | None = None
        self._changed = changed
        self.stall_timeout_s, self._reconnect = stall_timeout_s, reconnect
        self._waiting: CapturedFrame | None = None
        self._captured = self._processed = self._dropped = self._connections = 0
        self._state, self._reason = SourceState.CONNECTING, None
        self._times: deque[float] = deque(maxlen=256)
        self._begun_s: float | None = None
        self._lost_s: float | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"fcnedge capture {source.uri}", daemon=True)

    def start(self) -> None:
        """Begin to capture."""
        _started.add(self)
        self._begun_s = time.monotonic()
        self._thread.start()

    def ready(self) -> bool:
        """Whether a frame waits (held)."""
        return self._waiting is not None

    def done(self) -> bool:
        """Whether no frame waits and none will come (held)."""
        return self._waiting is None and self._state is SourceState.ENDED

    def take(self) -> CapturedFrame:
        """The waiting frame, for the model (held). `finish` must follow."""
        taken, self._waiting = self._waiting, None
        if taken is None:
            raise RuntimeError("no frame waits")
        self._changed.notify_all()
        return taken

    def finish(self, *, processed: bool) -> None:
        """Count the frame that `take` gave: its mask is there, or it came to nothing (held)."""
        self._processed += processed
        self._dropped += not processed

    def look(self) -> None:
        """Notice that a live camera has stalled, or that opening it takes that long (held)."""
        if not self.source.live or self._begun_s is None:
            return
        silent_s = time.monotonic() - (self._times[-1] if self._times else self._begun_s)
        if silent_s <= self.stall_timeout_s:
            return
        if self._state is SourceState.LIVE:
            self._state = SourceState.STALLED
        elif self._state is not SourceState.CONNECTING or self._reason is not None:
            return
        self._reason = f"{self.source.uri} has sent nothing for {self.stall_timeout_s:g} seconds"
        _log.warning("%s", self._reason)

    def status(self) -> SourceStatus:
        """What is known of the source now (held)."""
        self.look()
        return SourceStatus(
            uri=self.source.uri,
            state=self._state,
            captured=self._captured,
            processed=self._processed,
            dropped=self._dropped,
            connections=self._connections,
            fps=self._fps(),
            reason=self._reason,
        )

    def stop(self) -> None:
        """End the capture; a frame that waits is dropped. Waits for nothing; more than once does no harm."""
        with self._changed:
            self._stopping.set()
            self._drop_waiting()
            if not self._thread.is_alive():  # never started, or over
                self._state = SourceState.ENDED
            self._changed.notify_all()
        if self.source.live or not self._thread.is_alive():  # a film under way is closed by the thread that reads it
            self.source.close()

    def join(self, timeout_s: float) -> bool:
        """Wait for the capture thread; False when a call to the camera has not returned in time."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            if self.source.live:
                self._capture_live()
            else:
                self._deliver(iter(self.source))
        except Exception as error:
            self._end(error)
        else:
            self._end(None)
        finally:
            self.source.close()

    def _capture_live(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            started_s = time.monotonic()
            try:
                self._deliver(iter(self.source))
                return
            except SourceError as error:
                if not self._reconnect or self._stopping.is_set():
                    raise
                if self._was_live_since(started_s) and time.monotonic() - started_s > SETTLED_S:
                    backoff.reset()
                self._lose(str(error))
            self._wait_for_it(backoff)

    def _deliver(self, frames: Iterator[Frame]) -> None:
        with contextlib.ExitStack() as end:
            if hasattr(frames, "close"):  # a generator releases what it holds in the thread that used it
                end.callback(frames.close)  # pyright: ignore[reportAttributeAccessIssue]
            first = True
            for frame in frames:
                if not self._put(frame, connected=first):
                    return
                first = False

    def _put(self, frame: Frame, *, connected: bool) -> bool:
        now = time.monotonic()
        captured_s = frame.timestamp_s if self.source.live else now
        with self._changed:
            if self.source.live:
                self._drop_waiting()
            while self._waiting is not None and not self._stopping.is_set():
                self._changed.wait()
            if self._stopping.is_set():
                return False
            self._connections += connected
            self._become_live(now)
            self._waiting = CapturedFrame(frame, self._captured, self._dropped, captured_s)
            self._captured += 1
            self._times.append(now)
            self._changed.notify_all()
        return True

    def _become_live(self, now: float) -> None:
        if self._lost_s is not None:
            _log.warning("%s is live again after %.1f seconds", self.source.uri, now - self._lost_s)
        self._lost_s = None
        self._state, self._reason = SourceState.LIVE, None

    def _lose(self, reason: str) -> None:
        with self._changed:
            if self._reason != reason:  # once per reason, not once per attempt
                _log.warning("%s; trying again", reason.rstrip("."))
            self._state, self._reason = SourceState.LOST, reason
            self._lost_s = self._lost_s or time.monotonic()
            self._changed.notify_all()

    def _wait_for_it(self, backoff: Backoff) -> None:
        """Wait for as long as the back-off says, or until the camera, having been away, is there again."""
        until_s = time.monotonic() + backoff.next_s()
        was_away = False
        while (left_s := until_s - time.monotonic()) > 0:
            is_there = self.source.is_there()
            if is_there and was_away:
                backoff.reset()
                return
            was_away = was_away or is_there is False
            if self._stopping.wait(min(left_s, KNOCK_S)):
                return

    def _was_live_since(self, started_s: float) -> bool:
        with self._changed:
            return bool(self._times) and self._times[-1] >= started_s

    def _end(self, error: Exception | None) -> None:
        with self._changed:
            self.error = None if self._stopping.is_set() and isinstance(error, SourceError) else error
            self._state = SourceState.ENDED
            self._reason = str(self.error) if self.error is not None else None
            self._changed.notify_all()

    def _drop_waiting(self) -> None:
        self._dropped += self._waiting is not None
        self._waiting = None

    def _fps(self) -> float | None:
        if self._state is not SourceState.LIVE:
            return None
        since_s = time.monotonic() - FPS_WINDOW_S
        recent = [at_s for at_s in self._times if at_s >= since_s]
        if len(recent) < 2 or recent[-1] == recent[0]:
            return None
        return (len(recent) - 1) / (recent[-1] - recent[0])


_started: weakref.WeakSet[Feed] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """Stop what was left running when the program ends, and wait for it.

    A thread that returns from OpenCV while Python is being taken down ends the process with an abort (before Python
    3.14 it is unwound through C++ that forbids it).
    """
    left = [feed for feed in list(_started) if not feed.join(0)]
    for feed in left:
        feed.stop()
    ended_s = time.monotonic()
    for feed in left:
        until_s = ended_s + min(EXIT_S, feed.stall_timeout_s + 1)
        feed.join(max(0.0, until_s - time.monotonic()))
