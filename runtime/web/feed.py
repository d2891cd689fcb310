"""The newest picture of one source in one kind, encoded once, and only while somebody looks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

_log = logging.getLogger(__name__)

_AFTER_FAILURE_S = 0.2


class Numbered(Protocol):
    """What is encoded: newer ones have another number."""

    @property
    def number(self) -> int:
        """Counts what one source gave."""
        ...


_Item = TypeVar("_Item", bound=Numbered)


@dataclass(frozen=True)
class Picture:
    """number: of what it shows; data: as it is sent, shared by all viewers."""

    number: int
    data: bytes


class Feed(Generic[_Item]):
    """Belongs to one event loop. newest: gives what is to be shown, None before there is any.

    news: set, and cleared at once, when there may be something newer; ask: called before waiting for it. encode: runs
    in `executor`. fps: pictures per second at most.
    """

    def __init__(
        self,
        newest: Callable[[], _Item | None],
        encode: Callable[[_Item], bytes],
        *,
        news: asyncio.Event,
        ask: Callable[[], None],
        executor: Executor,
        fps: float,
    ) -> None:
        self._newest, self._encode = newest, encode
        self._news, self._ask = news, ask
        self._executor, self._interval_s = executor, 1 / fps
        self._picture: Picture | None = None
        self._encoded = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.viewers = 0

    @contextlib.contextmanager
    def viewer(self) -> Iterator[None]:
        """Look, for the time of the block: the first to come starts the encoding, the last to leave ends it."""
        self.viewers += 1
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            yield
        finally:
            self.viewers -= 1
            if not self.viewers:
                self._task.cancel()
                self._task = self._picture = None

    async def after(self, number: int) -> Picture:
        """The newest picture, as soon as it is another than `number`: what a viewer was too slow for is gone."""
        while self._picture is None or self._picture.number == number:
            await self._encoded.wait()
        return self._picture

    async def _run(self) -> None:
        failed = False
        while True:
            error = await self._failure_to_show()
            # One picture that cannot be encoded must not end the page; a run of them is one bug, logged once.
            if error is not None and not failed:
                _log.error("a picture of the live page was not encoded", exc_info=error)
            failed = error is not None
            if failed:
                await asyncio.sleep(_AFTER_FAILURE_S)

    async def _failure_to_show(self) -> Exception | None:
        try:
            await self._show_next()
        except Exception as error:
            return error
        return None

    async def _show_next(self) -> None:
        """Wait for something newer than what is shown, encode it, show it, and rest until the next is due."""
        loop = asyncio.get_running_loop()
        while (item := self._newest()) is None or (self._picture is not None and item.number == self._picture.number):
            self._ask()  # before the last look, so that nothing slips in between
            if self._newest() is item:
                await self._news.wait()
        due = loop.time() + self._interval_s
        self._picture = Picture(item.number, await loop.run_in_executor(self._executor, self._encode, item))
        self._encoded.set()
        self._encoded.clear()
        await asyncio.sleep(due - loop.time())
