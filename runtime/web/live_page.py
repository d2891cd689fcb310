"""The live page in one object: results go in, people look at them in their browsers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from ..look import Look
from ..streams.result import StreamResult
from ..streams.status import SourceStatus
from .access import Access
from .address import PageAddress, url_of
from .board import Board
from .pictures import PictureEncoder
from .server import Limits, PageServer

if TYPE_CHECKING:
    from typing_extensions import Self

_log = logging.getLogger(__name__)

_CLOSING_S = 5.0
"""Longest wait for `statuses`, when it does not return; the thread is a daemon."""


class LivePage:
    """A page with picture, mask, classes and state of one or more sources; serves from its construction on.

    address: `http://127.0.0.1:8080`; port 0 takes any that is free. palette: (n, 3) uint8 RGB. classes: a name per
    class id. model: words that name model, backend and precision; an attribute, to be changed when they do. token: what
    a viewer must know; needed for every address but loopback's. ignore: class ids that are left unpainted at first;
    alpha: opacity at first, 0..1. limits: of connections, rate and patience.

    Raises UserError, in one sentence, for a port in use, an address that is none of ours, a token missing or too short.

        with LivePage("http://127.0.0.1:8080", segmenter.palette, segmenter.classes, "my-model, int8") as page:
            page.statuses = lambda: [stream.status]
            for result in stream:
                page.publish(result)

    Two threads of its own serve and encode, the latter only while somebody looks. All methods may be called from any
    thread. The page never writes to what it is given, and reads it later: give it arrays that nobody changes any more.
    """

    def __init__(
        self,
        address: str,
        palette: np.ndarray,
        classes: Sequence[str],
        model: str,
        *,
        token: str | None = None,
        ignore: Collection[int] = (0,),
        alpha: float = 0.5,
        limits: Limits | None = None,
    ) -> None:
        look = Look(np.array(palette, np.uint8), tuple(classes), alpha, frozenset(ignore))
        self.model = model
        self._board = Board()
        listener = PageAddress.parse(address).listen()
        try:
            host, port = listener.getsockname()[:2]
            access = Access(host, port, token)
            server = PageServer(self._board, PictureEncoder(look), lambda: self.model, access, limits or Limits())
        except BaseException:
            listener.close()
            raise
        self.url = url_of(listener)
        self._stop: Callable[[], object] | None = None
        ready = threading.Event()

        async def serve() -> None:
            loop, stop = asyncio.get_running_loop(), asyncio.Event()
            self._stop = lambda: loop.call_soon_threadsafe(stop.set)
            ready.set()
            await server.run(listener, stop)

        def run() -> None:
            try:
                asyncio.run(serve())
            except Exception:
                _log.exception("the live page has ended")
            finally:
                ready.set()
                listener.close()

        self._thread = threading.Thread(target=run, name="fcnedge-page", daemon=True)
        self._thread.start()
        ready.wait()

    @property
    def statuses(self) -> Callable[[], Sequence[SourceStatus]] | None:
        """Gives the status of each source, in the order of the page; called from the page's threads. None at first."""
        return self._board.statuses

    @statuses.setter
    def statuses(self, statuses: Callable[[], Sequence[SourceStatus]] | None) -> None:
        self._board.statuses = statuses

    def publish(self, result: StreamResult, overlay: np.ndarray | None = None) -> None:
        """Show a result from now on; returns at once, however many look and however slow they are.

        overlay: (H, W, 3) uint8 BGR for /stream/overlay.mjpg; when None, the result's own, or it is painted when
        somebody looks.
        """
        self._board.put(result, overlay)

    def close(self) -> None:
        """Drop every viewer and free the port; more than once does no harm."""
        stop, self._stop = self._stop, None
        if stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                stop()
        self._thread.join(_CLOSING_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
