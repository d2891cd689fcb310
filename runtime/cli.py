"""fcn-run: mask pictures, folders, videos and cameras with a bundle."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns

import numpy as np

from .backends import BACKENDS
from .backends.opening import MAX_THREADS
from .command import Parser, Progress, captured_stderr, run_command, table, write_json
from .errors import UserError
from .manifest import PRECISIONS
from .options import add_options, option, read_options
from .overlay import blend, class_shares, legend
from .page_sink import PageSink
from .segmenter import Segmentation, Segmenter
from .sinks import NullSink, Sink, open_sink
from .sources import Frame, InputOptions, Source, open_source
from .sources.input_options import CODECS, FLIPS
from .stage_times import StageClock, StageTimes
from .streams import Stream, StreamResult

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """Command line of fcn-run."""

    source: str = option(
        "picture, folder, glob, video file, webcam (0, /dev/video0), csi://0, rtsp://, http:// (MJPEG), a GStreamer "
        "pipeline, demo:// (photographs), demo://clip or demo://camera",
        positional=True,
    )
    sink: str = option(
        "folder (masks and overlays), picture, .mp4/.avi video, http://127.0.0.1:8080 (live page), or null://",
        "null://",
        positional=True,
    )
    model: Path = option("bundle folder made by fcn-build model", Path("fcn8s-lite0-voc"), metavar="BUNDLE")
    backend: str = option(
        "what runs the network; auto is the best that works here, cpu the best without a GPU",
        "auto",
        choices=("auto", "cpu", *BACKENDS),
    )
    fallback: str | None = option("what goes on when the backend fails in mid-run, a lost GPU", None, choices=("cpu",))
    precision: str = option("which graph of the bundle runs", "auto", choices=("auto", *PRECISIONS))
    threads: int | None = option("CPU threads of one inference; default: one per core", None)
    alpha: float = option("opacity of the class colours, 0 to 1", 0.5)
    no_legend: bool = option("leave the legend off the overlays", False)
    frames: int | None = option("stop after this many frames", None)
    input_width: int | None = option("pixels to ask a camera for, with --input-height", None)
    input_height: int | None = option("pixels to ask a camera for", None)
    input_rate: float | None = option("frames per second to ask a camera for", None)
    input_codec: str | None = option("what a camera sends; default: as it comes", None, choices=CODECS)
    input_flip: str = option("how to turn every frame", "none", choices=FLIPS)
    input_loop: int = option("how often to play pictures or a film again, -1 for ever", 0)
    input_latency: int = option("milliseconds to wait for late RTSP packets (GStreamer)", 10)
    stall_timeout: float = option("seconds after which a silent camera counts as stalled or lost", 5.0)
    token: str | None = option("what a viewer of the live page must know; needed on every address but loopback's", None)
    json: Path | None = option("write the result as JSON", None, metavar="FILE")


@dataclass(frozen=True)
class LiveStats:
    """What a camera did. captured = processed + dropped; connections: how often it was opened; age: capture to mask."""

    captured: int
    dropped: int
    connections: int
    age: StageTimes | None


@dataclass(frozen=True)
class RunResult:
    """What fcn-run did. stages: preprocess, infer, head, overlay and total; classes: share of all pixels, by name."""

    source: str
    sink: str
    model: str
    backend: str
    precision: str
    frames: int
    skipped_files: int
    frames_per_second: float
    stages: dict[str, StageTimes]
    classes: dict[str, float]
    warning: str | None
    live: LiveStats | None = None


def build_parser() -> Parser:
    """The command line, from RunOptions."""
    parser = Parser(prog="fcn-run", description="Segment pictures, videos and cameras with a bundle.")
    add_options(parser, RunOptions)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of fcn-run; returns the exit code."""
    # intermixed: the sink may stand after options too, `fcn-run photo.jpg --model BUNDLE out/`
    options = read_options(RunOptions, build_parser().parse_intermixed_args(arguments))
    # OpenCV and its FFmpeg read these when they load. What they would print comes again in our own sentence.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    return run_command(lambda: _report(run(options), options), "fcn-run")


def run(options: RunOptions) -> RunResult:
    """Segment every frame of the source and write it to the sink. Raises UserError in one sentence.

    A live source has no end of its own: Ctrl-C or SIGTERM is its end, and no error.
    """
    _check(options)
    with (
        Segmenter(options.model, options.backend, options.precision, options.threads, options.fallback) as segmenter,
        open_source(options.source, _input_options(options)) as source,
        _sink(options, source, segmenter) as sink,
        contextlib.closing(Progress()) as progress,
    ):
        loop = _Loop(segmenter, sink, options)
        stream = Stream(source, segmenter, stall_timeout_s=options.stall_timeout) if source.live else None
        if isinstance(sink, PageSink):
            print(f"live page: {sink.url}", flush=True)
            if stream is not None:
                sink.show_statuses(lambda: [stream.status])
        started = perf_counter_ns()
        end_of_live = contextlib.suppress(KeyboardInterrupt) if source.live else contextlib.nullcontext()
        with stream or contextlib.nullcontext(), end_of_live, _saying_what_is_written(sink):
            for result in stream or _results(source, segmenter):
                loop.step(result)
                progress(f"{result.frame.name}: {loop.last.total_ms:.1f} ms", sink.written, source.length)
                if options.frames is not None and sink.written >= options.frames:
                    break
        seconds = (perf_counter_ns() - started) / 1e9
        sink.close()
        return loop.result(source, seconds, stream)


def _input_options(options: RunOptions) -> InputOptions:
    return InputOptions(
        width=options.input_width,
        height=options.input_height,
        rate=options.input_rate,
        codec=options.input_codec,
        flip=options.input_flip,
        loop=options.input_loop,
        latency_ms=options.input_latency,
        timeout_s=options.stall_timeout,
    )


def _sink(options: RunOptions, source: Source, segmenter: Segmenter) -> Sink:
    if options.sink.startswith("http://"):
        return PageSink(options.sink, segmenter, token=options.token, alpha=options.alpha)
    if options.token is not None:
        raise UserError("--token is for the live page; name an address such as http://127.0.0.1:8080 as the output.")
    return open_sink(options.sink, source=source, palette=segmenter.palette)


def _results(source: Source, segmenter: Segmenter) -> Iterator[StreamResult]:
    """Every frame of pictures or a film, in order, and its mask: one after another on this thread."""
    frames = iter(source if source.is_video else _pictures(source))
    for number in itertools.count():
        frame = next(frames, None)
        if frame is None:
            return
        captured_s = time.monotonic()
        found = segmenter.segment(frame.image)
        yield StreamResult(frame, found, source.uri, number, 0, captured_s, time.monotonic())


@contextlib.contextmanager
def _saying_what_is_written(sink: Sink) -> Iterator[None]:
    """Add to the UserError that ends the run how many frames are written, and where."""
    try:
        yield
    except UserError as error:
        if not sink.written or isinstance(sink, NullSink):
            raise
        were = "was" if sink.written == 1 else "were"
        written = f"{_counted(sink.written, 'frame')} before it {were} written to {sink.uri}"
        raise type(error)(f"{str(error).removesuffix('.')}; {written}") from error


def _pictures(source: Source) -> Iterator[Frame]:
    """The frames of `source`, with what libpng and libjpeg say about a file they could still decode logged by name.

    They write to file descriptor 2 themselves, past sys.stderr and every log level. About a file that they could not
    decode the source's own error says enough.
    """
    frames = iter(source)
    while True:
        with captured_stderr() as words:
            frame = next(frames, None)
        if frame is None:
            return
        if words:
            _log.warning("%s: %s", frame.name, words[0])
        yield frame


class _Loop:
    """Frame by frame: segment, draw, write, and keep the times."""

    def __init__(self, segmenter: Segmenter, sink: Sink, options: RunOptions):
        self._segmenter, self._sink, self._options = segmenter, sink, options
        self._clock = StageClock(("preprocess", "infer", "head", "overlay", "total"))
        self._ages = StageClock(("age",))
        self._pixels = np.zeros(256, np.int64)
        self.last: Segmentation

    def step(self, result: StreamResult) -> None:
        self.last, frame = result.segmentation, result.frame
        mask = self.last.mask
        started = perf_counter_ns()
        overlay = blend(frame.image, mask, self._segmenter.palette, alpha=self._options.alpha)
        if not self._options.no_legend:
            shares = {class_id: share for class_id, share in class_shares(mask).items() if class_id}
            overlay = legend(overlay, shares, self._segmenter.classes, self._segmenter.palette)
        drawn = (perf_counter_ns() - started) / 1e6
        last = self.last
        # Before the frame is written: an interrupt may come between any two lines, and what is written has its times.
        self._clock.add((last.preprocess_ms, last.infer_ms, last.head_ms, drawn, last.total_ms + drawn))
        self._ages.add((result.age_ms,))
        self._pixels += np.bincount(mask.ravel(), minlength=256)
        self._sink.take(result, overlay)

    def result(self, source: Source, seconds: float, stream: Stream | None) -> RunResult:
        share = self._pixels / max(1, self._pixels.sum())
        return RunResult(
            source=source.uri,
            sink=self._sink.uri,
            model=self._segmenter.bundle.manifest.name,
            backend=self._segmenter.backend.name,
            precision=self._segmenter.backend.precision,
            frames=self._sink.written,
            skipped_files=source.skipped,
            frames_per_second=self._sink.written / seconds if seconds else 0.0,
            stages=self._clock.summary(),
            classes={
                name: float(share[class_id]) for class_id, name in enumerate(self._segmenter.classes) if share[class_id]
            },
            warning=source.warning,
            live=None if stream is None else self._live(stream),
        )

    def _live(self, stream: Stream) -> LiveStats:
        status = stream.status
        return LiveStats(status.captured, status.dropped, status.connections, self._ages.summary().get("age"))


def _check(options: RunOptions) -> None:
    if not 0 <= options.alpha <= 1:
        raise UserError(f"--alpha is {options.alpha}; it must lie between 0 (frame only) and 1 (colour only).")
    if options.threads is not None and not 1 <= options.threads <= MAX_THREADS:
        raise UserError(f"--threads is {options.threads}; it must be from 1 to {MAX_THREADS}.")
    if options.frames is not None and options.frames < 1:
        raise UserError(f"--frames is {options.frames}; it must be 1 or more.")


def _report(result: RunResult, options: RunOptions) -> None:
    if options.json is not None:
        write_json(result, options.json)
    if result.skipped_files:
        sys.stderr.write(f"fcn-run: files passed over because they are no pictures: {result.skipped_files}\n")
    rows = [(name, times.p50_ms, times.p90_ms, times.max_ms) for name, times in result.stages.items()]
    print(table(rows, ("stage", "p50 ms", "p90 ms", "max ms")))
    if result.live is not None:
        _report_live(result.live)
    seen = ", ".join(f"{name} {100 * share:.1f}%" for name, share in _by_share(result.classes))
    print(f"classes  {seen}")
    where = "" if result.sink == "null://" else f", written to {result.sink}"
    print(
        f"{_counted(result.frames, 'frame')} with {result.model} ({result.backend} {result.precision}), "
        f"{result.stages['total'].p50_ms:.1f} ms per frame{where}"
        if result.frames
        else f"no frames{where}"
    )


def _report_live(live: LiveStats) -> None:
    times = live.age
    age = "" if times is None else f", {times.p50_ms:.1f} ms old (p90 {times.p90_ms:.1f}, max {times.max_ms:.1f})"
    again = f", connected {live.connections} times" if live.connections > 1 else ""
    print(f"camera   {_counted(live.captured, 'frame')}, {live.dropped:,} dropped{age}{again}")


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _by_share(classes: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(classes.items(), key=lambda item: -item[1])


if __name__ == "__main__":
    sys.exit(main())
