"""Our rows beside what a user would do by hand and other runtimes: same model, pictures, threads, taken in turns.

Each row lives in a process of its own. docs/compare.md says how it is measured and lists the keys of its JSON.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fcnedge.benchmarks.machine import machine_facts
from fcnedge.benchmarks.measured_bundle import measured_bundle
from fcnedge.benchmarks.peers.comparison import CompareReport
from fcnedge.benchmarks.peers.comparison_page import comparison_html, comparison_markdown
from fcnedge.benchmarks.peers.line_up import Ingredients, line_up
from fcnedge.benchmarks.peers.measurement import Plan, measure
from fcnedge.benchmarks.peers.original import Original
from fcnedge.benchmarks.report.page import write_page
from fcnedge.benchmarks.timing.stages import scaled
from fcnedge.calibration.spacing import evenly_spaced
from fcnedge.calibration.voc import VocSample, read_voc, read_voc_images, splits
from fcnedge.runtime import Bundle
from fcnedge.runtime.backends.opening import MAX_THREADS
from fcnedge.runtime.command import Progress, write_json
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.manifest import FITS
from fcnedge.runtime.options import option


@dataclass(frozen=True)
class CompareOptions:
    """Command line of fcn-bench compare."""

    data: Path = option("folder in VOC layout", metavar="VOC")
    model: str | None = option(
        "bundle folder or shipped model; default: the shipped one, built into the cache if need be", None
    )
    original: str | None = option(
        "what the bundle was built from, as fcn-build model takes it; default: its name", None
    )
    weights: Path | None = option("weights of that architecture", None, metavar="FILE")
    fc_channels: int = option("width of VGG16's fc6 and fc7", 4096)
    deeplab: tuple[Path, ...] = option("DeepLabs for VOC as .tflite: RGB uint8 in, class ids out", (), metavar="FILE")
    deeplab_fit: str = option("how frames are brought to its size", "letterbox", choices=FITS)
    rows: str | None = option("only rows whose names begin with one of these words, with commas", None)
    reference: str | None = option("row that the others are divided by; default: by rule", None, metavar="ROW")
    threads: int | None = option("CPU threads of every row; default: one per core", None)
    frames: int = option("pictures to time, evenly spaced over the split", 8)
    frame_size: tuple[int, int] = option("WIDTHxHEIGHT that they are scaled to, outside the clock", (375, 500))
    rounds: int = option("times that all rows take turns", 15)
    split: str = option("list of pictures to time and to score", "val")
    pictures: int | None = option("pictures to score, evenly spaced over the split; default: all", None)
    calibration_split: str | None = option("list for LiteRT's INT8; default: calibration, or train without it", None)
    calibration_images: int = option("pictures of it, evenly spaced", 100)
    json: Path | None = option("write the result as JSON", None, metavar="FILE")
    html: Path | None = option("write the report as one HTML file", None, metavar="FILE")
    markdown: Path | None = option("write the tables as Markdown, for an issue", None, metavar="FILE")


def compare(options: CompareOptions) -> CompareReport:
    """Measure every row that can be opened. Raises UserError in one sentence.

    A row that cannot be opened or fails says why, the others go on. An interrupt once a frame was timed gives a
    partial report; before that it is raised.
    """
    _check(options)
    samples = read_voc(options.data, options.split)
    calibration_split, calibration = _calibration(options, samples)
    bundle = measured_bundle(options.model)
    given = _ingredients(options, bundle, calibration)
    with tempfile.TemporaryDirectory(prefix="fcnedge-") as folder, contextlib.closing(Progress()) as progress:
        entries = line_up(given, Path(folder), _wanted(options.rows), progress)
        names = [entry.name for entry in entries]
        if not entries:
            raise UserError(f"--rows {options.rows} names no row; docs/compare.md has their names.")
        if options.reference is not None and options.reference not in names:
            raise UserError(f"--reference is {options.reference!r}; the rows are {', '.join(names)}.")
        plan = Plan(
            threads=options.threads or machine_facts().usable_cores,
            rounds=options.rounds,
            frames=tuple(
                scaled(sample.read_image(), options.frame_size) for sample in evenly_spaced(samples, options.frames)
            ),
            samples=tuple(evenly_spaced(samples, options.pictures or len(samples))),
            split=options.split,
            reference=options.reference,
            calibration=f"{len(calibration)} pictures of {calibration_split}",
        )
        return measure(bundle, entries, plan, progress)


def write_report(report: CompareReport, options: CompareOptions) -> None:
    """Write the files that `options` name. Raises UserError when one cannot be written."""
    if options.json is not None:
        write_json(report, options.json)
    if options.html is not None:
        write_page(comparison_html(report), options.html)
    if options.markdown is not None:
        write_page(comparison_markdown(report), options.markdown)


def _ingredients(options: CompareOptions, bundle: Bundle, calibration: tuple[Path, ...]) -> Ingredients:
    try:
        original: Original | str = Original.of(bundle.manifest, options.original, options.weights, options.fc_channels)
    except UserError as error:
        if options.original is not None or options.weights is not None:
            raise
        original = str(error)
    deeplabs = tuple((path, options.deeplab_fit) for path in options.deeplab)
    return Ingredients(bundle, original, calibration, deeplabs)


def _wanted(words: str | None) -> Callable[[str], bool]:
    """Whether a row's name begins with one of the words between commas, in any case; all rows for None."""
    if words is None:
        return lambda name: True
    beginnings = tuple(word.strip().lower() for word in words.split(",") if word.strip())
    return lambda name: name.lower().startswith(beginnings)


def _calibration(options: CompareOptions, samples: Sequence[VocSample]) -> tuple[str, tuple[Path, ...]]:
    """(split, pictures) for LiteRT's ranges. Raises UserError where one of them is a picture that is scored."""
    split = options.calibration_split or ("calibration" if "calibration" in splits(options.data) else "train")
    pictures = read_voc_images(options.data, split)
    both = {name for name, _ in pictures} & {sample.name for sample in samples}
    if both:
        raise UserError(
            f"{len(both)} pictures of {split} are in {options.split} too, {min(both)} among them; ranges are never "
            "taken from pictures that are scored: choose another --calibration-split."
        )
    return split, tuple(path.resolve() for _, path in evenly_spaced(pictures, options.calibration_images))


def _check(options: CompareOptions) -> None:
    if options.threads is not None and not 1 <= options.threads <= MAX_THREADS:
        raise UserError(f"--threads is {options.threads}; it must be from 1 to {MAX_THREADS}.")
    for name in ("frames", "rounds", "pictures", "calibration_images", "fc_channels"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} is {value}; it must be 1 or more.")
    stems = [path.stem for path in options.deeplab]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise UserError(f"--deeplab has two files named {twice}, which would be one row; rename one of them.")
    for path in options.deeplab:
        if not path.is_file():
            raise UserError(f"there is no model {path}; --deeplab takes .tflite files.")
    for flag in ("json", "html", "markdown"):
        path: Path | None = getattr(options, flag)
        if path is not None and path.is_dir():
            raise UserError(f"{path} is a folder; choose the name of a file for --{flag}.")


if __name__ == "__main__":
    from fcnedge.benchmarks.cli import main

    sys.exit(main(["compare", *sys.argv[1:]]))
