"""What fifty viewers of the live page cost the pipeline, half of them not reading: `python benchmarks/soak_page.py`.

A film without end runs through a real pipeline as fast as it goes, its results published on a page. Rounds without
viewers and rounds with them take turns, so that what else the machine does falls on both. The viewers are a process of
their own, on the last core, as they are elsewhere in life; pipeline and page share the other cores, in both kinds of
round. A viewer that does not read has a receive buffer of 4 kB and is never dropped while it is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from fcnedge.benchmarks.machine import machine
from fcnedge.runtime import FakeBackend, Segmenter, Source
from fcnedge.runtime.command import Parser, run_command, table, write_json
from fcnedge.runtime.cores import usable_cores
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.options import add_options, option, read_options
from fcnedge.runtime.sources import Frame
from fcnedge.runtime.streams import Pipeline, StreamResult
from fcnedge.runtime.web import LivePage
from fcnedge.runtime.web.server import Limits

FALL_BAR = 0.10
"""The pipeline's rate may fall by less than this share of itself (issue 5)."""
_FRAMES = 16


@dataclass(frozen=True)
class SoakPageOptions:
    """Command line of soak_page."""

    model: Path = option("bundle folder", Path("fcn8s-lite0-voc"), metavar="BUNDLE")
    fake: bool = option("a fake backend instead of the bundle's graph: the pipeline alone, at its fastest", False)
    viewers: int = option("viewers, half of them not reading", 50)
    seconds: float = option("length of a round", 5.0)
    rounds: int = option("rounds of each kind", 5)
    json: Path | None = option("write the result as JSON", None, metavar="FILE")


@dataclass(frozen=True)
class PageSoak:
    """Rates in frames per second, per round. fall: 1 - with / without viewers, median over pairs of rounds.

    cores: those of pipeline and page. page_cores: CPU time of the page's own threads per second while it is watched,
    which another program on the machine changes less than the rates. shown_per_second: pictures that one reading viewer
    got. gaps: results of the pipeline that were not published.
    """

    machine: str
    backend: str
    frame: str
    cores: int
    viewers: int
    alone: list[float]
    watched: list[float]
    fall: float
    bar: float
    page_cores: float
    shown_per_second: float
    gaps: int

    @property
    def passed(self) -> bool:
        """Whether the bar is held."""
        return self.fall < self.bar and self.gaps == 0


def measure_page(options: SoakPageOptions) -> PageSoak:
    """Run the rounds. Raises UserError for a bundle that does not load, or rounds that cannot be."""
    if options.viewers < 2 or options.seconds <= 0 or options.rounds < 1:
        raise UserError("the page is measured with 2 viewers or more, in rounds of some seconds, 1 or more.")
    with _cores_kept_free() as viewers_core, Segmenter(options.model, precision="auto", threads=1) as segmenter:
        if options.fake:
            segmenter = Segmenter(segmenter.bundle, FakeBackend(segmenter.bundle.manifest))
        limits = Limits(connections=2 * options.viewers, send_timeout_s=3600.0)
        with LivePage("http://127.0.0.1:0", segmenter.palette, segmenter.classes, "soak", limits=limits) as page:
            return _rounds(segmenter, page, options, viewers_core)


def _rounds(segmenter: Segmenter, page: LivePage, options: SoakPageOptions, viewers_core: int | None) -> PageSoak:
    counter = _Counter(page)
    film = EndlessFilm()
    with Pipeline([film], segmenter, [counter]) as pipeline:
        page.statuses = lambda: pipeline.statuses
        thread = threading.Thread(target=pipeline.run)
        thread.start()
        try:
            counter.rate(options.seconds)  # warm-up
            alone, watched, shown, busy = [], [], [], []
            for _ in range(options.rounds):
                alone.append(counter.rate(options.seconds))
                with _viewers(page.url, options.viewers, viewers_core) as pictures:
                    before = _page_cpu_s()
                    watched.append(counter.rate(options.seconds))
                    busy.append((_page_cpu_s() - before) / options.seconds)
                shown.append(pictures())
        finally:
            pipeline.close()
            thread.join()
        made = pipeline.outputs[0].taken
    falls = [1 - with_viewers / without for without, with_viewers in zip(alone, watched, strict=True)]
    return PageSoak(
        machine=machine(),
        backend=f"{segmenter.backend.name} {segmenter.backend.precision}, 1 thread",
        frame="640x480",
        cores=usable_cores(),
        viewers=options.viewers,
        alone=alone,
        watched=watched,
        fall=statistics.median(falls),
        bar=FALL_BAR,
        page_cores=statistics.median(busy),
        shown_per_second=statistics.median(shown),
        gaps=made - counter.frames,
    )


def _page_cpu_s() -> float:
    """CPU seconds of the page's threads so far."""
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("fcnedge-page")]
    clocks = [time.pthread_getcpuclockid(thread.ident) for thread in threads if thread.ident is not None]
    return sum(time.clock_gettime(clock) for clock in clocks)


class EndlessFilm(Source):
    """A bright square that wanders over noise, 640x480: JPEGs of an ordinary size."""

    def __init__(self) -> None:
        super().__init__("endless://", is_video=True)
        noise = np.random.default_rng(1).integers(0, 40, (480, 640, 3), np.uint8)
        self._images = []
        for step in range(_FRAMES):
            image = noise.copy()
            image[100:300, 20 * step : 20 * step + 200] += 200
            self._images.append(image)

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while True:
            yield Frame(self._images[index % _FRAMES], f"film_{index:06d}", index, 0.0)
            index += 1


class _Counter:
    """A consumer that publishes, and counts."""

    def __init__(self, page: LivePage) -> None:
        self.frames = 0
        self._page = page

    def __call__(self, result: StreamResult) -> None:
        self._page.publish(result)
        self.frames += 1

    def rate(self, seconds: float) -> float:
        """Results per second, over the next `seconds`."""
        frames, started = self.frames, time.perf_counter()
        time.sleep(seconds)
        return (self.frames - frames) / (time.perf_counter() - started)


@contextlib.contextmanager
def _cores_kept_free() -> Iterator[int | None]:
    """Keep this process off the last core, which is given; None where there is but one, or nobody can say."""
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        yield None
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores - {max(cores)})
    try:
        yield max(cores)
    finally:
        os.sched_setaffinity(0, cores)


@contextlib.contextmanager
def _viewers(url: str, count: int, core: int | None) -> Iterator[Callable[[], float]]:
    """Let `count` viewers look during the block; the function says, after it, what a reader got per second."""
    command = [sys.executable, __file__, "--look", url, str(count), "" if core is None else str(core)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        if child.stdout.readline() != "all are looking\n":
            raise UserError("the viewers could not be started; the page answered fewer than were asked for.")
        yield lambda: float(words)
        words, _ = child.communicate("enough\n", timeout=60)
    finally:
        child.kill()
        child.wait()


async def _look(url: str, count: int) -> None:
    """Be the viewers, until a line comes; say what each reader got."""
    address = urlsplit(url)
    sockets = []
    for number in range(count):
        viewer = socket.create_connection((address.hostname or "", address.port or 0))
        if number % 2:
            viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        viewer.sendall(f"GET /stream/layers HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
        viewer.recv(12, socket.MSG_PEEK | socket.MSG_WAITALL)
        viewer.setblocking(False)
        sockets.append(viewer)
    sys.stdout.write("all are looking\n")
    sys.stdout.flush()
    loop = asyncio.get_running_loop()
    seen = [0]
    reading = [loop.create_task(_read(viewer, seen)) for viewer in sockets[::2]]
    started = time.perf_counter()
    await loop.run_in_executor(None, sys.stdin.readline)
    seconds = time.perf_counter() - started
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    for viewer in sockets:
        viewer.close()
    sys.stdout.write(f"{seen[0] / len(reading) / seconds}\n")


async def _read(viewer: socket.socket, seen: list[int]) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(viewer, 1 << 18):
        seen[0] += data.count(b'{"number":')


def _report(soak: PageSoak, options: SoakPageOptions) -> None:
    if options.json is not None:
        write_json(soak, options.json)
    rows = [("alone", statistics.median(soak.alone)), ("watched", statistics.median(soak.watched))]
    print(table(rows, ("rounds", "frames/s")))
    verdict = "held" if soak.passed else "MISSED"
    print(
        f"{soak.viewers} viewers, half not reading: rate falls by {soak.fall:.1%}, bar {soak.bar:.0%}: {verdict}; "
        f"the page took {soak.page_cores:.2f} of a core, a reader got {soak.shown_per_second:.1f} pictures/s "
        f"({soak.backend}; {soak.machine}, {soak.cores} for pipeline and page)"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `python benchmarks/soak_page.py`; returns the exit code."""
    parser = Parser(prog="soak_page", description="Measure what viewers of the live page cost the pipeline.")
    add_options(parser, SoakPageOptions)
    options = read_options(SoakPageOptions, parser.parse_args(arguments))
    return run_command(lambda: _report(measure_page(options), options), "soak_page")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--look"]:
        if sys.argv[4]:
            os.sched_setaffinity(0, {int(sys.argv[4])})
        asyncio.run(_look(sys.argv[2], int(sys.argv[3])))
        sys.exit(0)
    sys.exit(main())
