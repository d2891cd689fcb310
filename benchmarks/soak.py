"""Streams under strain, each figure beside its bar: `python benchmarks/soak.py`, some four minutes.

An RTSP server that is killed and started again, a model slower than its camera, a film, the pipeline's own cost, and
20,000 frames. Run it from a checkout: the RTSP server is the tests' (GStreamer's, by the system's Python).
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fcnedge.benchmarks.machine import machine
from fcnedge.runtime import Bundle, FakeBackend, Frame, Segmenter, Source
from fcnedge.runtime.command import Parser, Progress, run_command, table, write_json
from fcnedge.runtime.demo import demo_clip_frames
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.look import Look
from fcnedge.runtime.options import add_options, option, read_options
from fcnedge.runtime.streams import Pipeline, SourceState, SourceStatus, Stream, StreamResult

RTSP_SERVER = Path(__file__).resolve().parents[1] / "tests" / "runtime" / "streams" / "rtsp_server.py"
SYSTEM_PYTHON = "/usr/bin/python3"

RESTARTS, RETURN_S = 5, 2.0
MODEL_MS, CAMERA_FPS = 200.0, 30.0
OVERHEAD_MS, OVERHEAD_SHARE = 1.5, 0.05
FRAMES, SETTLED_FRAMES, GROWTH_MB = 20_000, 1_000, 5.0
FRAME_SIZE = (480, 640)


@dataclass(frozen=True)
class SoakOptions:
    """Command line of benchmarks/soak.py."""

    model: Path = option("bundle folder", Path("build/demo/fcn8s-lite0-voc"), metavar="BUNDLE")
    seconds: float = option("length of the run with a model slower than its camera", 60.0)
    only: str | None = option("one part alone", None, choices=("rtsp", "newest", "film", "overhead", "endurance"))
    json: Path | None = option("write the result as JSON", None, metavar="FILE")


@dataclass(frozen=True)
class Figure:
    """One number beside its bar. kept: value <= bar, or value == bar where `exact`."""

    part: str
    name: str
    value: float
    bar: float
    unit: str
    exact: bool
    kept: bool


@dataclass(frozen=True)
class Soak:
    """All figures of a run. load: the machine's load average (1 minute) before and after it."""

    machine: str
    opencv: str
    load: tuple[float, float]
    seconds: float
    figures: tuple[Figure, ...]


def soak(options: SoakOptions) -> Soak:
    """Run all parts, or the one asked for. Raises UserError for a missing bundle or RTSP server."""
    import cv2

    bundle = Bundle.load(options.model)
    parts: dict[str, Callable[[], Iterator[Figure]]] = {
        "rtsp": lambda: rtsp_restarts(bundle),
        "newest": lambda: slow_model(bundle, options.seconds),
        "film": lambda: film(bundle),
        "overhead": lambda: overhead(bundle),
        "endurance": lambda: endurance(bundle),
    }
    load, began = os.getloadavg()[0], time.monotonic()
    figures: list[Figure] = []
    with contextlib.closing(Progress()) as progress:
        for name, run in parts.items():
            if options.only in (None, name):
                progress(name)
                figures += run()
    return Soak(
        machine=machine(),
        opencv=cv2.__version__,
        load=(load, os.getloadavg()[0]),
        seconds=round(time.monotonic() - began, 1),
        figures=tuple(figures),
    )


def rtsp_restarts(bundle: Bundle) -> Iterator[Figure]:
    """Kill a real RTSP server and start it again, after one to eight seconds; what is held is counted while live."""
    chance = random.Random(5)
    returns, held, memory = [], [], []
    with RtspServer() as server, fake_segmenter(bundle) as segmenter:
        with Stream(server.address, segmenter) as stream, iterated(stream):
            live_again(stream, frames=30)
            for _ in range(RESTARTS):
                server.kill()
                wait(lambda: stream.status.state is SourceState.LOST)
                time.sleep(chance.uniform(1, 8))
                captured = stream.status.captured
                server.start()
                began = time.monotonic()
                live_again(stream, frames=captured + 1)
                returns.append(time.monotonic() - began)
                live_again(stream, frames=captured + 60)
                held.append((threads(), descriptors()))
                memory.append(rss_mb())
        status = stream.status
    yield at_most("rtsp", f"live again after its return, worst of {RESTARTS}", max(returns), RETURN_S, "s")
    yield exactly("rtsp", "connections", status.connections, RESTARTS + 1, "")
    yield exactly("rtsp", "threads gained, first to last restart", held[-1][0] - held[0][0], 0, "")
    yield exactly("rtsp", "descriptors gained, first to last restart", held[-1][1] - held[0][1], 0, "")
    yield at_most("rtsp", "memory gained, first to last restart", memory[-1] - memory[0], GROWTH_MB, "MB")
    yield exactly("rtsp", "captured - processed - dropped", unaccounted(status), 0, "frames")


def slow_model(bundle: Bundle, seconds: float) -> Iterator[Figure]:
    """A model of 200 ms on a camera of 30 frames per second."""
    frame_ms = 1000 / CAMERA_FPS
    ages, inferences = [], []
    with Segmenter(bundle, SleepingBackend(bundle, MODEL_MS / 1000)) as segmenter:
        with Stream(ClockCamera(CAMERA_FPS), segmenter) as stream:
            began = time.monotonic()
            for result in stream:
                ages.append(result.age_ms)
                inferences.append(result.segmentation.total_ms)
                if time.monotonic() - began > seconds:
                    break
        status = stream.status
    third = max(1, len(ages) // 3)
    growth = statistics.median(ages[-third:]) - statistics.median(ages[:third])
    slowest = float(np.percentile(inferences, 99))
    yield at_most("newest", "frame age, p99", float(np.percentile(ages, 99)), slowest + 2 * frame_ms, "ms")
    yield at_most("newest", "growth of the median age, last third over first", growth, frame_ms, "ms")
    yield exactly("newest", "captured - processed - dropped", unaccounted(status), 0, "frames")
    yield exactly("newest", "results - processed", len(ages) - status.processed, 0, "frames")


def film(bundle: Bundle) -> Iterator[Figure]:
    """Every frame of a video file, in order: the frame's brightness is its number."""
    import cv2

    length, step = 2000, 8
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "film.avi")
        writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 30, (64, 48))
        for index in range(length):
            writer.write(np.full((48, 64, 3), index * step % 256, np.uint8))
        writer.release()
        with fake_segmenter(bundle) as segmenter, Stream(path, segmenter) as stream:
            seen = [(result.sequence, round(float(result.frame.image.mean()) / step) % 32) for result in stream]
    yield exactly("film", "results", len(seen), length, "frames")
    wrong = sum(each != (index, index % 32) for index, each in enumerate(seen))
    yield exactly("film", "results out of order", wrong, 0, "frames")


def overhead(bundle: Bundle, frames: int = 40, rounds: int = 25) -> Iterator[Figure]:
    """What a pipeline adds to bare calls of the segmenter, with and without an overlay, drawn as fcn-run draws it.

    The same pictures, photographs with classes on them to be drawn, go all three ways, in short rounds by turns, so
    that whatever else the machine does falls on each, long enough for the start of a pipeline to weigh little; the
    median of the differences within a round is the figure.
    """
    pictures = list(demo_clip_frames(seconds=frames / 2, fps=2, size=(FRAME_SIZE[1], FRAME_SIZE[0])))
    with Segmenter(bundle) as segmenter:
        look = Look(segmenter.palette, segmenter.classes)

        def draw(result: StreamResult) -> np.ndarray:
            return look.draw(result.frame.image, result.segmentation.mask)

        def bare() -> None:
            for each in pictures:
                segmenter(each)

        def piped(*, drawn: bool) -> None:
            shown: list[tuple[int, ...]] = []

            def show(result: StreamResult) -> None:
                if result.picture is not None:
                    shown.append(result.picture.shape)

            with Pipeline([ReadyPictures(pictures)], segmenter, [show]) as pipeline:
                if drawn:
                    pipeline.draw(draw)
                pipeline.run()
            assert shown == [each.shape for each in pictures] * drawn

        ways = (bare, lambda: piped(drawn=False), lambda: piped(drawn=True))
        bare()
        times = np.empty((rounds, len(ways)))
        for each in range(rounds):
            for place in range(len(ways))[:: -1 if each % 2 else 1]:  # each comes before and after each other
                times[each, place] = timed_ms(ways[place]) / frames
    plain = float(np.median(times[:, 0]))
    bar = max(OVERHEAD_MS, OVERHEAD_SHARE * plain)
    added = np.median(times[:, 1:] - times[:, :1], axis=0)
    yield at_most("overhead", f"pipeline, added to {plain:.1f} ms a frame", float(added[0]), bar, "ms")
    yield at_most("overhead", f"pipeline and overlay, added to {plain:.1f} ms a frame", float(added[1]), bar, "ms")


def endurance(bundle: Bundle) -> Iterator[Figure]:
    """20,000 frames through one stream; what is held after the first 1,000 and at the end."""
    held: list[tuple[int, int]] = []
    memory: list[float] = []
    with fake_segmenter(bundle) as segmenter, Stream(Pictures(FRAMES), segmenter) as stream:
        for result in stream:
            if result.sequence + 1 == SETTLED_FRAMES or (result.sequence + 1) % 5000 == 0:
                gc.collect()
                held.append((threads(), descriptors()))
                memory.append(rss_mb())
                if result.sequence + 1 == FRAMES:
                    break
    name = f"gained over {FRAMES:,} frames, after the first {SETTLED_FRAMES:,}"
    yield at_most("endurance", f"memory {name}", max(memory) - memory[0], GROWTH_MB, "MB")
    yield exactly("endurance", f"threads {name}", max(t for t, _ in held) - held[0][0], 0, "")
    yield exactly("endurance", f"descriptors {name}", max(d for _, d in held) - held[0][1], 0, "")


class SleepingBackend(FakeBackend):
    """The fake backend, after a sleep."""

    def __init__(self, bundle: Bundle, seconds: float) -> None:
        super().__init__(bundle.manifest)
        self._seconds = seconds

    def infer(self, image: np.ndarray) -> np.ndarray:
        """As the fake backend's, later."""
        time.sleep(self._seconds)
        return super().infer(image)


class ClockCamera(Source):
    """A camera that makes a frame at each tick, whether anybody looks or not."""

    def __init__(self, fps: float) -> None:
        super().__init__("clock camera", live=True, is_video=True, fps=fps)
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        assert self.fps is not None
        began, index = time.monotonic(), 0
        while not self._closed.wait(max(0.0, began + index / self.fps - time.monotonic())):
            yield Frame(picture(index), f"tick_{index}", index, time.monotonic())
            index += 1

    def close(self) -> None:
        """End at the next tick."""
        self._closed.set()


class Pictures(Source):
    """A film of many frames, made as they are asked for."""

    def __init__(self, length: int) -> None:
        super().__init__("pictures", is_video=True, fps=30.0, length=length)

    def __iter__(self) -> Iterator[Frame]:
        assert self.length is not None
        for index in range(self.length):
            yield Frame(picture(index), f"picture_{index}", index, index / 30)


class ReadyPictures(Source):
    """A film whose frames lie in memory."""

    def __init__(self, pictures: Sequence[np.ndarray]) -> None:
        super().__init__("ready pictures", is_video=True, fps=30.0, length=len(pictures))
        self._pictures = pictures

    def __iter__(self) -> Iterator[Frame]:
        for index, each in enumerate(self._pictures):
            yield Frame(each, f"picture_{index}", index, index / 30)


class RtspServer:
    """GStreamer's RTSP server in a process of its own, on one port of loopback."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._port = 0

    @property
    def address(self) -> str:
        """Where the clip is."""
        return f"rtsp://127.0.0.1:{self._port}/clip"

    def start(self) -> None:
        """Start it and wait until it listens."""
        words = [SYSTEM_PYTHON, str(RTSP_SERVER), str(self._port)]
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        word, _, port = self._process.stdout.readline().partition(" ")
        if word != "ready":
            raise UserError(
                "the RTSP server does not start; run this from a checkout, and install python3-gi "
                "gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly"
            )
        self._port = int(port)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None and self._process.stdout is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()

    def __enter__(self) -> RtspServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@contextlib.contextmanager
def iterated(stream: Stream) -> Iterator[None]:
    """While the block runs another thread takes the stream's results."""
    thread = threading.Thread(target=lambda: stream.run(lambda result: None))
    thread.start()
    try:
        yield
    finally:
        stream.close()
        thread.join()


def fake_segmenter(bundle: Bundle) -> Segmenter:
    """The bundle's segmenter without its network."""
    return Segmenter(bundle, FakeBackend(bundle.manifest))


def live_again(stream: Stream, frames: int) -> None:
    """Wait until that many frames were captured, and the source is live."""
    wait(lambda: stream.status.captured >= frames and stream.status.state is SourceState.LIVE)


def wait(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something to become true, to within 5 ms. Raises UserError when it does not."""
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            raise UserError(f"nothing came back within {seconds:g} seconds")
        time.sleep(0.005)


def timed_ms(work: Callable[[], None]) -> float:
    """Milliseconds that it takes."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def unaccounted(status: SourceStatus) -> int:
    """Frames captured that are neither processed nor dropped, of a stream that is closed."""
    return status.captured - status.processed - status.dropped


def picture(index: int) -> np.ndarray:
    """(480, 640, 3) uint8 BGR, a new array each time: a bright band that wanders."""
    image = np.zeros((*FRAME_SIZE, 3), np.uint8)
    image[:, index % FRAME_SIZE[1] : index % FRAME_SIZE[1] + 100] = (200, 60, 220)
    return image


def threads() -> int:
    """Threads of this process, those of libraries too."""
    return len(list(Path("/proc/self/task").iterdir()))


def descriptors() -> int:
    """Open descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def rss_mb() -> float:
    """Resident memory of this process, in 10**6 bytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def at_most(part: str, name: str, value: float, bar: float, unit: str) -> Figure:
    """A figure that must not be above its bar."""
    return Figure(part, name, round(value, 3), round(bar, 3), unit, exact=False, kept=value <= bar)


def exactly(part: str, name: str, value: float, bar: float, unit: str) -> Figure:
    """A figure that must be its bar."""
    return Figure(part, name, value, bar, unit, exact=True, kept=value == bar)


def build_parser() -> Parser:
    """The command line, from SoakOptions."""
    parser = Parser(prog="soak.py", description=__doc__)
    add_options(parser, SoakOptions)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 2 when a bar is not kept."""
    options = read_options(SoakOptions, build_parser().parse_args(arguments))
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")  # as fcn-run has it
    return run_command(lambda: _report(soak(options), options), "soak.py")


def _report(result: Soak, options: SoakOptions) -> None:
    if options.json is not None:
        write_json(result, options.json)
    rows = [
        (
            figure.part,
            figure.name,
            f"{figure.value:g} {figure.unit}".strip(),
            f"{'=' if figure.exact else '<='} {figure.bar:g} {figure.unit}".strip(),
            "kept" if figure.kept else "MISSED",
        )
        for figure in result.figures
    ]
    print(table(rows, ("part", "figure", "measured", "bar", "")))
    print(f"{result.machine}; load {result.load[0]:.1f} before, {result.load[1]:.1f} after; {result.seconds:g} seconds")
    missed = [figure.name for figure in result.figures if not figure.kept]
    if missed:
        raise UserError(f"{len(missed)} of {len(rows)} bars missed: {'; '.join(missed)}")


if __name__ == "__main__":
    sys.exit(main())
