"""mIoU against milliseconds over network sizes: how the size that a model ships with is chosen."""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fcnedge.benchmarks.accuracy import Accuracy, AccuracyOptions, measure_accuracy
from fcnedge.benchmarks.machine import machine
from fcnedge.build_engine.build import build_bundle
from fcnedge.build_engine.model_source import ModelSource, resolve_source
from fcnedge.build_engine.models.names import check_size
from fcnedge.calibration.ranges import replace_file
from fcnedge.calibration.voc import read_voc
from fcnedge.runtime.command import Parser, run_command, table, write_json
from fcnedge.runtime.errors import UserError, missing_package
from fcnedge.runtime.manifest import FITS
from fcnedge.runtime.options import add_options, image_size, option, read_options


@dataclass(frozen=True)
class SizesOptions:
    """Command line of benchmarks/sizes.py."""

    model: str = option("a shipped model, or an architecture with --weights", positional=True)
    data: Path = option("folder in VOC layout", metavar="VOC")
    sizes: str = option("WIDTHxHEIGHT of each, with commas", "384x384,416x416,448x448,480x480,512x384,512x512")
    fits: str = option("stretch, letterbox, or both with a comma", "stretch")
    weights: Path | None = option("weights to load", None, metavar="FILE")
    split: str = option("list of pictures", "val")
    threads: int | None = option("CPU threads of one inference; default: one per core", None)
    picture: Path | None = option("draw the plot into this PNG", None, metavar="FILE")
    json: Path | None = option("write the result as JSON", None, metavar="FILE")


@dataclass(frozen=True)
class SizesResult:
    """One Accuracy per size and fit, measured one after the other on one machine."""

    machine: str
    threads: int
    rows: tuple[Accuracy, ...]


def measure_sizes(options: SizesOptions) -> SizesResult:
    """Build and score the model at every size. Raises UserError."""
    sources = _sources(options)
    read_voc(options.data, options.split)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for index, source in enumerate(sources):
            bundle = Path(folder) / str(index)
            build_bundle(source, bundle)
            accuracy = AccuracyOptions((bundle,), options.data, split=options.split, threads=options.threads)
            rows.append(measure_accuracy(accuracy))
            sys.stderr.write(f"{_row(rows[-1])}\n")
    return SizesResult(machine(), options.threads or os.cpu_count() or 1, tuple(rows))


def _sources(options: SizesOptions) -> list[ModelSource]:
    """One ModelSource per size and fit, all checked before the first is built. Raises UserError."""
    source = resolve_source(options.model, weights=options.weights)
    sources = []
    for text in options.sizes.split(","):
        try:
            size = image_size(text.strip())
        except argparse.ArgumentTypeError as error:
            raise UserError(f"--sizes: {error}.") from error
        check_size(size)
        for fit in options.fits.split(","):
            if fit.strip() not in FITS:
                raise UserError(f"--fits has {fit.strip()!r}; it takes {' and '.join(FITS)}.")
            sources.append(replace(source, size=size, fit=fit.strip()))
    return sources


def draw_sizes(result: SizesResult, path: Path) -> None:
    """Plot mIoU against milliseconds per frame as a PNG, creating its folder.

    Raises UserError without matplotlib, and when `path` cannot be written.
    """
    _check_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for row in result.rows:
        axes.scatter(row.p50_ms, 100 * row.miou_subset, color="tab:blue")
        axes.annotate(row.size, (row.p50_ms, 100 * row.miou_subset), xytext=(5, 4), textcoords="offset points", size=8)
    axes.set_xlabel(f"ms per frame, {result.threads} CPU threads, camera frame to mask")
    axes.set_ylabel(_mean_title(result))
    axes.margins(0.15)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)  # points above the grid
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    replace_file(path, picture.getvalue())


def build_parser() -> Parser:
    """The command line, from SizesOptions."""
    parser = Parser(prog="sizes.py", description="mIoU against milliseconds over network sizes.")
    add_options(parser, SizesOptions)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = read_options(SizesOptions, build_parser().parse_args(arguments))
    return run_command(lambda: _run(options), "sizes.py")


def _run(options: SizesOptions) -> None:
    _check(options)
    result = measure_sizes(options)
    rows = [(row.size, 100 * row.miou_subset, 100 * row.miou, row.p50_ms) for row in result.rows]
    print(table(rows, ("size", _mean_title(result), "mIoU %", "ms per frame")), flush=True)  # before what may fail
    if options.json is not None:
        write_json(result, options.json)
    if options.picture is not None:
        draw_sizes(result, options.picture)


def _check(options: SizesOptions) -> None:
    """Raise UserError for what would else fail when hours of measuring are over."""
    if options.threads is not None and options.threads < 1:
        raise UserError(f"--threads is {options.threads}; it must be 1 or more.")
    for flag, path in (("--json", options.json), ("--picture", options.picture)):
        if path is not None:
            _check_writable(flag, path)
    if options.picture is not None:
        _check_matplotlib()


def _check_writable(flag: str, path: Path) -> None:
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder; choose the name of a file for {flag}.")
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another place for {flag}.") from error
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path.parent} cannot be written to; choose another place for {flag}.")


def _check_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise missing_package("matplotlib", extra="train") from error


def _mean_title(result: SizesResult) -> str:
    return f"mIoU-{len(result.rows[0].subset)} %"


def _row(row: Accuracy) -> str:
    return f"{row.size}: mIoU-{len(row.subset)} {row.miou_subset:.4f}, {row.p50_ms:.1f} ms"


if __name__ == "__main__":
    sys.exit(main())
