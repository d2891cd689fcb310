"""A thread that works on the newest item only: what a camera gives while it is busy is dropped, and counted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

_Item = TypeVar("_Item")


class NewestWorker(Generic[_Item]):
    """Calls `work(item)` on a thread of its own, one item at a time, the newest first and no other.

    Of `received` items each is worked on, dropped, waiting (one at most) or in work (one at most).
    failed: told of an exception that `work` raised; no item is worked on after it. `put` may be called by any thread.
    """

    def __init__(self, work: Callable[[_Item], None], failed: Callable[[BaseException], None]):
        self._work, self._failed = work, failed
        self._waiting: list[_Item] = []
        self._received = self._dropped = 0
        self._closed = False
        self._changed = threading.Condition()
        # A daemon: work that hangs in a driver must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="fcnedge-newest", daemon=True)
        self._thread.start()

    def put(self, item: _Item) -> None:
        """Hand over an item; what waited is dropped. Never waits for work."""
        with self._changed:
            self._received += 1
            if self._closed:
                self._dropped += 1
                return
            self._dropped += len(self._waiting)
            self._waiting = [item]
            self._changed.notify()

    @property
    def counts(self) -> tuple[int, int]:
        """(received, dropped), of the same moment."""
        with self._changed:
            return self._received, self._dropped

    def close(self, timeout_s: float = 10.0) -> bool:
        """Drop what waits, let work that has begun end; whether it did within the timeout. May be called again."""
        self._stop()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while (item := self._next()) is not None:
                self._work(item[0])
        except BaseException as error:  # whatever it is, somebody must hear of it
            self._stop()
            self._failed(error)

    def _next(self) -> tuple[_Item] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return (self._waiting.pop(),) if self._waiting else None

    def _stop(self) -> None:
        with self._changed:
            self._closed = True
            self._dropped += len(self._waiting)
            self._waiting.clear()
            self._changed.notify()
