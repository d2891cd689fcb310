"""fcn-calibrate: measure how far a bundle's activations reach, so that they fit into int8."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from fcnedge.runtime import Bundle
from fcnedge.runtime.command import Parser, run_command, table, write_json
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.options import add_commands, option, read_options
from fcnedge.runtime.process_memory import peak_rss_bytes

from .sensitivity_cli import SensitivityOptions
from .sensitivity_cli import run as _sensitivity
from .thresholds import DEFAULT_PERCENTILE, METHODS

STATE_SUFFIX = ".partial.npz"
_SHOWN_TENSORS = 10


@dataclass(frozen=True)
class RangesOptions:
    """Command line of fcn-calibrate ranges."""

    bundle: Path = option("bundle folder", positional=True)
    data: Path = option("folder in VOC layout, or of pictures", metavar="DIR")
    output: Path = option("file to write", Path("ranges.json"), short="-o", metavar="FILE")
    split: str | None = option(
        "list of pictures, ImageSets/Segmentation/NAME.txt; default: calibration if there is one, else train", None
    )
    images: int = option("pictures to take, evenly spaced over the list", 512)
    method: str = option("where to clip each activation", "percentile", choices=METHODS)
    percentile: float = option("share of all values that --method percentile keeps", DEFAULT_PERCENTILE)
    cache: Path | None = option("write TensorRT's calibration cache too", None, metavar="FILE")
    tensorrt: int = option("release that the cache is for: 8502 is 8.5.2, 100300 is 10.3.0", 8502)
    keep: bool = option(f"keep the histograms (FILE{STATE_SUFFIX}): another --method then needs no pictures", False)
    threads: int | None = option("CPU threads; default: one per core", None)
    force: bool = option("replace the output", False)
    restart: bool = option("forget what an earlier run collected and collect it again", False)
    dry_run: bool = option("check options, bundle and pictures, collect nothing", False)
    json: Path | None = option("write the result as JSON", None, metavar="FILE")


@dataclass(frozen=True)
class RangesReport:
    """What fcn-calibrate ranges did. seconds: of collecting; clipping: peak / threshold by tensor, most clipped first.

    peak_rss_bytes: largest resident memory of this process.
    """

    model: str
    output: str
    cache: str | None
    method: str
    percentile: float | None
    images: int
    skipped: tuple[str, ...]
    tensors: int
    clipping: dict[str, float]
    seconds: float
    peak_rss_bytes: int


def build_parser() -> Parser:
    """The command line, from the option dataclasses."""
    parser = Parser(prog="fcn-calibrate", description="Measure what a bundle needs to keep its accuracy in int8.")
    add_commands(parser, _COMMANDS)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of fcn-calibrate; returns the exit code."""
    parsed = build_parser().parse_args(arguments)
    options, run, _ = _COMMANDS[parsed.command]
    return run_command(lambda: run(read_options(options, parsed)), f"fcn-calibrate {parsed.command}")


def _ranges(options: RangesOptions) -> None:
    from .collect import collect_histograms
    from .pictures import choose_pictures
    from .ranges import replace_file
    from .tensorrt_cache import write_cache

    _check(options)
    bundle = Bundle.load(options.bundle)
    pictures = choose_pictures(options.data, options.split, options.images)
    if options.dry_run:
        bundle.model("fp32")
        print(f"would collect {options.bundle}'s ranges on {len(pictures.paths)} pictures into {options.output}")
        return
    started, state = perf_counter(), options.output.with_name(options.output.name + STATE_SUFFIX)
    collected = collect_histograms(bundle, pictures, state=state, restart=options.restart, threads=options.threads)
    seconds = perf_counter() - started
    ranges = collected.ranges(options.method, options.percentile)
    cache = None if options.cache is None else write_cache(ranges.tensors, options.tensorrt)
    ranges.write(options.output)
    if options.cache is not None and cache is not None:
        replace_file(options.cache, cache.encode())
    if not options.keep:
        state.unlink(missing_ok=True)
    peaks = {name: max(-each.minimum, each.maximum) for name, each in ranges.tensors.items()}
    clipping = {name: peaks[name] / each.threshold for name, each in ranges.tensors.items() if each.threshold}
    report = RangesReport(
        model=bundle.manifest.name,
        output=str(options.output),
        cache=None if options.cache is None else str(options.cache),
        method=ranges.method,
        percentile=ranges.percentile,
        images=ranges.images,
        skipped=ranges.skipped,
        tensors=len(ranges.tensors),
        clipping=dict(sorted(clipping.items(), key=lambda item: -item[1])),
        seconds=round(seconds, 3),
        peak_rss_bytes=peak_rss_bytes(),
    )
    if options.json is not None:
        write_json(report, options.json)
    _print(report, {name: (peaks[name], each.threshold) for name, each in ranges.tensors.items()})


def _print(report: RangesReport, tensors: dict[str, tuple[float, float]]) -> None:
    most = list(report.clipping)[:_SHOWN_TENSORS]
    rows = [(name, *tensors[name], report.clipping[name]) for name in most]
    print(table(rows, ("most clipped", "peak", "threshold", "ratio")))
    method = report.method if report.percentile is None else f"{report.method} {report.percentile:g}"
    skipped = f", {len(report.skipped)} skipped" if report.skipped else ""
    print(
        f"{report.output}: {method} of {report.tensors} tensors on {report.images} pictures{skipped}, in "
        f"{report.seconds:.0f} s with {report.peak_rss_bytes / 1e6:,.0f} MB of memory"
    )


def _check(options: RangesOptions) -> None:
    from .tensorrt_cache import check_version

    if options.images < 1:
        raise UserError(f"--images is {options.images}; it must be 1 or more.")
    if not 0 < options.percentile <= 100:
        raise UserError(f"--percentile is {options.percentile}; it must be above 0 and at most 100.")
    if options.threads is not None and options.threads < 1:
        raise UserError(f"--threads is {options.threads}; it must be 1 or more.")
    check_version(options.tensorrt)
    for flag, path in (("-o", options.output), ("--cache", options.cache)):
        if path is not None and path.exists() and (path.is_dir() or not options.force):
            advice = f"choose another name for {flag}" if path.is_dir() else "add --force to replace it"
            raise UserError(f"{path} exists already; {advice}.")


_COMMANDS: dict[str, tuple[type, Callable[[Any], None], str]] = {
    "ranges": (RangesOptions, _ranges, "collect activation ranges on pictures"),
    "sensitivity": (SensitivityOptions, _sensitivity, "measure what each layer in INT8 costs in accuracy"),
}


if __name__ == "__main__":
    sys.exit(main())
