"""The page's HTTP server: a fixed table of paths on asyncio.

Why asyncio and not ThreadingHTTPServer: fifty viewers are fifty sockets here, not fifty threads that want the GIL from
the pipeline at each frame; one loop knows without locks who looks at what, so a picture is encoded once and for nobody
when nobody looks; and timeouts, limits and "the newest frame only" are properties of a wait, which a blocking `sendall`
has not. The standard library's request handler, besides, has no limit of connections and no time limit for headers.

A viewer that is slow gets fewer pictures: the next one is chosen when the last has left. What the kernel keeps unsent
is held small (TCP_NOTSENT_LOWAT), else seconds of old pictures would wait in its buffer. A viewer that takes nothing is
dropped after `send_timeout_s`. Nothing here can make `Board.put` wait.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .access import Access
from .board import Board, Published
from .feed import Feed
from .pictures import BOUNDARY, JPEG_KINDS, PictureEncoder, multipart
from .report import status_json
from .request import MAX_REQUEST_BYTES, Refusal, Request, read_request
from .response import head, sentence

_log = logging.getLogger(__name__)

_UNSENT_BYTES = 16384
_LINGER_BYTES = 65536
_LINGER_S = 2.0
_STREAMS = {f"/stream/{kind}.mjpg": kind for kind in JPEG_KINDS} | {"/stream/layers": "layers"}
_MJPEG = f"multipart/x-mixed-replace; boundary={BOUNDARY}"


@dataclass(frozen=True)
class Limits:
    """connections: at once, more are answered 503; send_timeout_s: longest wait for a viewer to take one picture.

    fps: pictures per second and kind at most: the eye has enough, and the CPU belongs to the network.
    """

    connections: int = 100
    send_timeout_s: float = 10.0
    fps: float = 25.0


class PageServer:
    """Serves `board`, by `pictures`; `model` gives the words that name the model. Belongs to one event loop."""

    def __init__(
        self, board: Board, pictures: PictureEncoder, model: Callable[[], str], access: Access, limits: Limits
    ) -> None:
        self._board, self._pictures, self._model = board, pictures, model
        self._access, self._limits = access, limits
        self._page, self._policy = _load_page()
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="fcnedge-page-encoder")
        self._feeds: dict[tuple[int, str], Feed[Published]] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._news: asyncio.Event
        self._loop: asyncio.AbstractEventLoop

    async def run(self, listener: socket.socket, stop: asyncio.Event) -> None:
        """Answer on `listener` until `stop` is set; then drop every viewer and let go of all."""
        self._loop, self._news = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accept, sock=listener, limit=MAX_REQUEST_BYTES)
        try:
            await stop.wait()
        finally:
            # Nobody more is let in, and who just was is made a connection, before the server is closed: asyncio leaves
            # the socket of a connection open that is half made by then (its transport refuses a closed server).
            self._loop.remove_reader(listener)
            await _settled()
            server.close()
            while self._connections:
                for task in self._connections:
                    task.cancel()
                # Again and again: before Python 3.12 wait_for takes a cancellation that comes with its result for none.
                await asyncio.wait(self._connections, timeout=0.1)
            await server.wait_closed()
            self._encoder.shutdown()

    @property
    def viewers(self) -> int:
        """Streams that are being watched."""
        return sum(feed.viewers for feed in self._feeds.values())

    # Connections

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= 2 * self._limits.connections:
            writer.transport.abort()  # a flood gets no sentence
            return
        task = self._loop.create_task(self._answer(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        # Not in `_answer` alone: a task that is cancelled before it begins runs none of its lines.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        crowded = len(self._connections) > self._limits.connections
        try:
            _tune(writer)
            try:
                request = await read_request(reader)
                if request is None:
                    return
                if crowded:
                    raise Refusal(503, "Too many are looking at this page.", (("Retry-After", "5"),))
                await self._access.check(request)
                await self._respond(request, reader, writer)
            except Refusal as refusal:
                parts = sentence(refusal.status, str(refusal), refusal.headers)
                await self._send(writer, b"".join(parts))
                await _linger(reader, writer)
            await self._finish(writer)
        except (OSError, asyncio.TimeoutError):  # the viewer went away, or takes nothing
            pass
        except Exception:
            _log.exception("the live page failed to answer")
        finally:
            writer.transport.abort()  # no effect on one that was closed in order

    async def _respond(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if request.path == "/":
            kind, body, policy = "text/html; charset=utf-8", self._page, self._policy
        elif request.path == "/status.json":
            work = (self._board, self._pictures.look, self._model(), self.viewers)
            body = await self._loop.run_in_executor(self._encoder, status_json, *work)
            kind, policy = "application/json", ""
        elif request.path in _STREAMS:
            await self._stream(request, reader, writer)
            return
        else:
            raise Refusal(404, "There is no such page; the live page is at /.")
        answer = head(200, kind, len(body), policy=policy)
        await self._send(writer, answer if request.method == "HEAD" else answer + body)

    async def _stream(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind = _STREAMS[request.path]
        source = self._source(request.query.get("source", "0"))
        layers = kind == "layers"
        await self._send(writer, head(200, "application/octet-stream" if layers else _MJPEG))
        if request.method == "HEAD":
            return
        if not layers:
            await self._send(writer, f"--{BOUNDARY}\r\n".encode())
        sending = self._loop.create_task(self._send_pictures(self._feed(source, kind), writer))
        gone = self._loop.create_task(_until_gone(reader))
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            gone.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
        if not sending.cancelled():
            sending.result()  # raises what ended it

    async def _send_pictures(self, feed: Feed[Published], writer: asyncio.StreamWriter) -> None:
        number = 0
        with feed.viewer():
            while True:
                picture = await feed.after(number)
                await self._send(writer, picture.data)
                number = picture.number

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        """Return once all of it is the kernel's; a viewer that takes too long is cut off. Raises OSError."""
        writer.write(data)
        watchdog = self._loop.call_later(self._limits.send_timeout_s, writer.transport.abort)
        try:
            await writer.drain()
        finally:
            watchdog.cancel()

    async def _finish(self, writer: asyncio.StreamWriter) -> None:
        writer.close()
        await asyncio.wait_for(writer.wait_closed(), self._limits.send_timeout_s)

    # Feeds

    def _source(self, text: str) -> int:
        count = max(1, len(self._board.sources()))  # the first may be watched before it has said a word
        if not re.fullmatch(r"\d{1,3}", text) or int(text) >= count:
            raise Refusal(404, f"There is no such source; there are {count}, counted from 0.")
        return int(text)

    def _feed(self, source: int, kind: str) -> Feed[Published]:
        feed = self._feeds.get((source, kind))
        if feed is None:
            feed = self._feeds[source, kind] = Feed(
                lambda: self._newest(source),
                lambda item: self._encode(item, kind),
                news=self._news,
                ask=lambda: self._board.call_once(self._wake),
                executor=self._encoder,
                fps=self._limits.fps,
            )
        return feed

    def _newest(self, source: int) -> Published | None:
        sources = self._board.sources()
        return self._board.newest(sources[source]) if source < len(sources) else None

    def _encode(self, item: Published, kind: str) -> bytes:
        data = self._pictures.encoded(item, kind)
        return data if kind == "layers" else multipart(data)

    def _wake(self) -> None:
        """Called on the pipeline's thread: let the feeds look for something newer."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._news.set()
        self._news.clear()


def _tune(writer: asyncio.StreamWriter) -> None:
    """Let `drain` wait until the kernel has all, and the kernel hold little; notice viewers that vanished."""
    writer.transport.set_write_buffer_limits(high=0)
    peer: socket.socket = writer.get_extra_info("socket")
    options = [("TCP_NOTSENT_LOWAT", _UNSENT_BYTES), ("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)]
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in options:
        if hasattr(socket, name):  # each system has some of them
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _settled() -> None:
    """Let asyncio finish the connections that it is making: each takes some turns of the loop."""
    for _ in range(8):
        await asyncio.sleep(0)


async def _until_gone(reader: asyncio.StreamReader) -> None:
    """Return when the other side has closed; what it sends meanwhile is thrown away."""
    while await reader.read(1024):
        pass


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read a little of what a refused request still holds: closing on it would reset the connection too early."""
    writer.write_eof()
    with contextlib.suppress(asyncio.TimeoutError, OSError):
        await asyncio.wait_for(_read_rest(reader), _LINGER_S)  # however slowly it drips: there are better visitors


async def _read_rest(reader: asyncio.StreamReader) -> None:
    left = _LINGER_BYTES
    while left > 0 and (data := await reader.read(4096)):
        left -= len(data)


def _load_page() -> tuple[bytes, str]:
    """The page, and what its policy must allow: the very style and script that it has, by their hashes."""
    page = Path(__file__).with_name("page.html").read_bytes()
    allowed = {kind: _digest(page, kind) for kind in (b"script", b"style")}
    policy = "; ".join(f"{kind.decode()}-src 'sha256-{digest}'" for kind, digest in allowed.items())
    return page, f"{policy}; img-src 'self' data:; connect-src 'self'"


def _digest(page: bytes, tag: bytes) -> str:
    """Base64 of the SHA-256 of what stands in the page's only `tag`: CSP level 3, section 2.3.1."""
    _, _, rest = page.partition(b"<" + tag + b">")
    inside, _, _ = rest.partition(b"</" + tag + b">")
    return base64.b64encode(hashlib.sha256(inside).digest()).decode()
