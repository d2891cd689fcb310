"""mIoU of a bundle on a VOC split, per precision and backend, through the runtime that users run."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fcnedge.benchmarks.machine import machine_facts
from fcnedge.benchmarks.report.accuracy_html import accuracy_html, accuracy_markdown, pareto_file
from fcnedge.benchmarks.report.accuracy_report import FORMAT, TOOL, AccuracyReport, AccuracyRow
from fcnedge.benchmarks.report.page import write_page
from fcnedge.calibration.miou import MIOU_7, ConfusionMatrix, usual_subset
from fcnedge.calibration.voc import VocSample, read_voc
from fcnedge.runtime import Bundle, Segmentation, Segmenter
from fcnedge.runtime.backends.cpu_target import cpu_target
from fcnedge.runtime.command import Progress, write_json
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.manifest import PRECISIONS
from fcnedge.runtime.options import option


@dataclass(frozen=True)
class AccuracyOptions:
    """Command line of fcn-bench accuracy."""

    bundles: tuple[Path, ...] = option("bundle folders: of one model at several sizes, or several", positional=True)
    data: Path = option("folder in VOC layout", metavar="VOC")
    split: str = option("list of pictures, ImageSets/Segmentation/NAME.txt", "val")
    precision: str = option(
        "graphs to compare: fp32, fp16 and int8 with commas, all, or auto for the most exact", "all"
    )
    backend: str = option("what runs them: backends with commas, or auto for the best that works here", "auto")
    subset: str | None = option(
        f"classes of the subset mean, with commas; default: {','.join(MIOU_7)}, or all where the model lacks one", None
    )
    threads: int | None = option("CPU threads of one inference; default: one per core", None)
    json: Path | None = option("write the result as JSON", None, metavar="FILE")
    html: Path | None = option("write tables and Pareto picture as one HTML file", None, metavar="FILE")
    picture: Path | None = option("write the Pareto picture as SVG", None, metavar="FILE")
    markdown: Path | None = option("write the tables as Markdown", None, metavar="FILE")


@dataclass(frozen=True)
class Accuracy:
    """One row by itself. mIoU as shares of 1; iou: per class that occurs; p50_ms: median of one frame."""

    model: str
    size: str
    precision: str
    split: str
    pictures: int
    miou: float
    subset: tuple[str, ...]
    miou_subset: float
    pixel_accuracy: float
    iou: dict[str, float]
    p50_ms: float


def measure_accuracy(options: AccuracyOptions) -> Accuracy:
    """Score the bundle's most exact graph in ONNX Runtime, whatever `options` names. Raises UserError."""
    report = compare_accuracy(replace(options, precision="auto", backend="onnxruntime"))
    (row,) = report.rows
    return Accuracy(
        model=row.model,
        size=row.size,
        precision=row.precision,
        split=report.split,
        pictures=report.pictures,
        miou=row.miou,
        subset=report.subset,
        miou_subset=row.miou_subset,
        pixel_accuracy=row.pixel_accuracy,
        iou=row.iou,
        p50_ms=row.p50_ms,
    )


def compare_accuracy(options: AccuracyOptions) -> AccuracyReport:
    """Segment every picture of the split with each precision in each backend, and score them. Raises UserError.

    Every picture is decoded once and goes through all rows before the next, so that whatever else the machine does
    falls on all of them. All rows are open at once, with the memory that takes.
    """
    bundles = [Bundle.load(path) for path in options.bundles]
    classes = _classes(bundles)
    precisions = [_precisions(options.precision, bundle) for bundle in bundles]
    backends = _listed("--backend", options.backend)
    subset = _subset(options.subset, classes)
    samples = read_voc(options.data, options.split)
    with contextlib.ExitStack() as opened, contextlib.closing(Progress()) as progress:
        groups = [
            [
                _Run(opened.enter_context(Segmenter(bundle, backend, precision, options.threads)), precision)
                for precision in names
                for backend in backends
            ]
            for bundle, names in zip(bundles, precisions, strict=True)
        ]
        for index, sample in enumerate(samples):
            progress("accuracy", index, len(samples))
            _score(sample, groups, random.Random(index))
        rows = [run.row(subset, group[0]) for group in groups for run in group]
    return AccuracyReport(
        tool=TOOL,
        format=FORMAT,
        machine=machine_facts(),
        split=f"{options.split}, {len(samples)} pictures",
        pictures=len(samples),
        subset=subset,
        threads=options.threads,
        rows=tuple(rows),
    )


def write_files(report: AccuracyReport, options: AccuracyOptions) -> None:
    """Write the files that `options` name. Raises UserError when one cannot be written."""
    if options.json is not None:
        write_json(report, options.json)
    written = ((options.html, accuracy_html), (options.picture, pareto_file), (options.markdown, accuracy_markdown))
    for path, write in written:
        if path is not None:
            write_page(write(report), path)


class _Run:
    """One graph in one backend, and what has been counted so far."""

    def __init__(self, segmenter: Segmenter, precision: str):
        self.segmenter, self.precision = segmenter, precision
        self.matrix = ConfusionMatrix(len(segmenter.classes))
        self.times_ms: list[float] = []
        self.equal = self.pixels = 0

    def add(self, truth: np.ndarray, found: Segmentation, first: np.ndarray) -> None:
        self.matrix.add(truth, found.mask)
        self.times_ms.append(found.total_ms)
        self.equal += int(np.count_nonzero(found.mask == first))
        self.pixels += found.mask.size

    def row(self, subset: Sequence[str], first: _Run) -> AccuracyRow:
        manifest, names = self.segmenter.bundle.manifest, self.segmenter.classes
        ids = [names.index(name) for name in subset]
        iou = zip(names, self.matrix.iou(), strict=True)
        return AccuracyRow(
            model=manifest.name,
            size=f"{manifest.input.width}x{manifest.input.height} {manifest.input.fit}",
            precision=self.precision,
            backend=self.segmenter.backend.name,
            graph_bytes=_graph_bytes(self.segmenter.bundle, self.precision, self.segmenter.backend.name),
            miou=self.matrix.mean_iou(),
            miou_subset=self.matrix.mean_iou(ids),
            drop_points=100 * (first.matrix.mean_iou(ids) - self.matrix.mean_iou(ids)),
            labels_equal=self.equal / self.pixels,
            pixel_accuracy=self.matrix.pixel_accuracy(),
            p50_ms=float(np.median(self.times_ms)),
            iou={name: float(value) for name, value in iou if not np.isnan(value)},
        )


def _score(sample: VocSample, groups: Sequence[Sequence[_Run]], order: random.Random) -> None:
    """One picture through all runs, in another order each time: a backend's threads may spin on after their work."""
    image, truth = sample.read_image(), sample.read_mask()
    runs = [run for group in groups for run in group]
    found = {run: run.segmenter.segment(image) for run in order.sample(runs, len(runs))}
    try:
        for group in groups:
            for run in group:
                run.add(truth, found[run], found[group[0]].mask)
    except ValueError as error:
        raise UserError(f"{sample.mask_path} does not fit its picture or the model: {error}.") from error


def _classes(bundles: Sequence[Bundle]) -> tuple[str, ...]:
    """The classes of all bundles. Raises UserError when they are not the same."""
    first = bundles[0]
    for bundle in bundles[1:]:
        if bundle.manifest.classes != first.manifest.classes:
            raise UserError(f"{bundle.path} has other classes than {first.path}; compare models of the same classes.")
    return first.manifest.classes


def _precisions(text: str, bundle: Bundle) -> tuple[str, ...]:
    """The precisions that `text` names, in its order; all: most exact first."""
    held = bundle.manifest.precisions
    if not held or text == "auto":
        bundle.model()  # says so when there is no graph at all
        return held[:1]
    if text == "all":
        return held
    names = _listed("--precision", text)
    unknown = [name for name in names if name not in PRECISIONS]
    if unknown:
        raise UserError(f"--precision has {unknown[0]!r}; it takes {', '.join(PRECISIONS)} with commas, all, or auto.")
    return names


def _subset(text: str | None, classes: Sequence[str]) -> tuple[str, ...]:
    if text is None:
        return usual_subset(classes)
    subset = _listed("--subset", text)
    unknown = [name for name in subset if name not in classes]
    if unknown:
        raise UserError(
            f"--subset names {', '.join(unknown)}, which the model does not have; it has {', '.join(classes)}."
        )
    return subset


def _listed(name: str, text: str) -> tuple[str, ...]:
    """The words of `text` between commas, each once."""
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    if "" in words:
        raise UserError(f"{name} is {text!r}; it takes names with commas between them.")
    return words


def _graph_bytes(bundle: Bundle, precision: str, backend: str) -> int:
    """Bytes of the graph that `backend` runs, or that its engine was compiled from, and of its weights."""
    target = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt", "onnxruntime_cuda": None}.get(backend, cpu_target())
    return sum(spec.bytes for spec in bundle.graph_files(bundle.model(precision, target)).values())


if __name__ == "__main__":
    from fcnedge.benchmarks.cli import main

    sys.exit(main(["accuracy", *sys.argv[1:]]))
