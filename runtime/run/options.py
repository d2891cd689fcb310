"""The command line of fcn-run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..backends import BACKENDS
from ..backends.opening import MAX_THREADS
from ..command import Parser
from ..errors import UserError
from ..head import FILTER_MODES
from ..manifest import PRECISIONS
from ..options import add_options, option, read_options
from ..sources import InputOptions
from ..sources.input_options import CODECS, FLIPS


@dataclass(frozen=True)
class RunOptions:
    """Command line of fcn-run. sink: None for null://."""

    sources: tuple[str, ...] = option(
        "picture, folder, glob, video file, webcam (0, /dev/video0), csi://0, rtsp://, http:// (MJPEG), a GStreamer "
        "pipeline, demo:// (photographs), demo://clip or demo://camera; several take turns at the model",
        metavar="SOURCE",
        positional=True,
    )
    sink: str | None = option(
        "the last of two words or more: a folder (masks and overlays), picture, .mp4/.avi video, display://, "
        "rtp://HOST:PORT, rtsp://HOST:PORT/PATH, http://127.0.0.1:8080 (live page), or null://, which writes nothing. "
        "Several sources share a live page, have a window each, or a folder each in the one that is named: video0, "
        "host_path, name of the file",
        None,
        metavar="SINK",
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
    filter_mode: str = option(
        "how scores become pixels: interpolated, or the class of the nearest grid point",
        "linear",
        choices=FILTER_MODES,
    )
    visualize: str | None = option(
        "overlay, mask, or overlay,mask for both: which folders are written, or what a picture, film or window shows "
        "side by side; default: both in a folder, overlay elsewhere",
        None,
        metavar="WHAT",
    )
    alpha: float = option("opacity of the class colours, 0 to 1", 0.5)
    ignore_class: str | None = option(
        "classes that are left unpainted, names or ids with commas; default: the first, the background",
        None,
        metavar="NAMES",
    )
    labels: Path | None = option("names of the classes, one per line, in place of the bundle's", None, metavar="FILE")
    colors: Path | None = option(
        "colours of the classes, 'R G B' or '#rrggbb' per line, in place of the bundle's", None, metavar="FILE"
    )
    no_legend: bool = option("leave the legend off the overlays", False)
    frames: int | None = option("stop after this many results are written, of all sources together", None)
    input_width: int | None = option("pixels to ask a camera for, with --input-height", None)
    input_height: int | None = option("pixels to ask a camera for", None)
    input_rate: float | None = option("frames per second to ask a camera for", None)
    input_codec: str | None = option("what a camera sends; default: as it comes", None, choices=CODECS)
    input_flip: str = option("how to turn every frame", "none", choices=FLIPS)
    input_loop: int = option("how often to play pictures or a film again, -1 for ever", 0)
    input_latency: int = option("milliseconds to wait for late RTSP packets (GStreamer)", 10)
    stall_timeout: float = option("seconds after which a silent camera counts as stalled or lost", 5.0)
    token: str | None = option("what a viewer of the live page must know; needed on every address but loopback's", None)
    ray: str | None = option(
        "mask recordings by the thousand, into a folder or s3:// and the like, with one model per core or GPU of a Ray "
        "cluster: its address, or local; sources may be @FILE, a list of them; started again it goes on with the rest",
        None,
        metavar="ADDRESS",
    )
    json: Path | None = option("write the result as JSON", None, metavar="FILE")

    @property
    def input(self) -> InputOptions:
        """What is asked of every source."""
        return InputOptions(
            width=self.input_width,
            height=self.input_height,
            rate=self.input_rate,
            codec=self.input_codec,
            flip=self.input_flip,
            loop=self.input_loop,
            latency_ms=self.input_latency,
            timeout_s=self.stall_timeout,
        )


def build_parser() -> Parser:
    """The command line, from RunOptions."""
    parser = Parser(prog="fcn-run", description="Segment pictures, videos and cameras with a bundle.")
    add_options(parser, RunOptions)
    return parser


def read_command_line(arguments: Sequence[str] | None = None) -> RunOptions:
    """The options; of two sources or more the last is the sink."""
    # intermixed: the sink may stand after options too, `fcn-run photo.jpg --model BUNDLE out/`
    options = read_options(RunOptions, build_parser().parse_intermixed_args(arguments))
    if options.sink is None and len(options.sources) > 1:
        *sources, sink = options.sources
        options = dataclasses.replace(options, sources=tuple(sources), sink=sink)
    return options


def check_numbers(options: RunOptions) -> None:
    """Raise UserError for a number that cannot be."""
    if not 0 <= options.alpha <= 1:
        raise UserError(f"--alpha is {options.alpha}; it must lie between 0 (frame only) and 1 (colour only).")
    if options.threads is not None and not 1 <= options.threads <= MAX_THREADS:
        raise UserError(f"--threads is {options.threads}; it must be from 1 to {MAX_THREADS}.")
    if options.frames is not None and options.frames < 1:
        raise UserError(f"--frames is {options.frames}; it must be 1 or more.")
