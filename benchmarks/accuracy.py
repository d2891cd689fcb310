"""mIoU of a bundle on a VOC split, per precision and backend, through the runtime that users run."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fcnedge.calibration.miou import MIOU_7, ConfusionMatrix, usual_subset
from fcnedge.calibration.voc import VocSample, read_voc
from fcnedge.runtime import Bundle, Segmentation, Segmenter
from fcnedge.runtime.backends.cpu_target import cpu_target
from fcnedge.runtime.command import Progress, table
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.manifest import PRECISIONS
from fcnedge.runtime.options import option


@dataclass(frozen=True)
class AccuracyOptions:
    """Command line of fcn-bench accuracy."""

    bundle: Path = option("bundle folder", positional=True)
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


@dataclass(frozen=True)
class AccuracyRow:
    """One graph with one backend. mIoU, IoU, accuracy and equality are shares of 1.

    graph_bytes: size of the graph with the files that hold its weights. iou: per class that occurs.
    drop_points: percentage points of miou_subset below the first row's.
    labels_equal: share of all pixels, void too, that have the first row's label.
    p50_ms: median of one frame through the segmenter, milliseconds, in turns with the other rows.
    """

    precision: str
    backend: str
    graph_bytes: int
    miou: float
    miou_subset: float
    drop_points: float
    labels_equal: float
    pixel_accuracy: float
    p50_ms: float
    iou: dict[str, float]

    @property
    def title(self) -> str:
        """`int8 openvino`."""
        return f"{self.precision} {self.backend}"


@dataclass(frozen=True)
class AccuracyReport:
    """All rows, on the same pictures at the pictures' own size. threads: of one inference, None for one per core."""

    model: str
    size: str
    split: str
    pictures: int
    subset: tuple[str, ...]
    threads: int | None
    rows: tuple[AccuracyRow, ...]

    def text(self) -> str:
        """The report as text tables."""
        mean, first = f"mIoU-{len(self.subset)} %", self.rows[0]
        header = ("precision", "backend", "MB", "mIoU %", mean, "drop", "labels equal %", "pixels right %", "p50 ms")
        rows = [
            (
                *(row.precision, row.backend, round(row.graph_bytes / 1e6, 2), 100 * row.miou, 100 * row.miou_subset),
                *(round(row.drop_points, 2), 100 * row.labels_equal, 100 * row.pixel_accuracy, row.p50_ms),
            )
            for row in self.rows
        ]
        classes = [(name, *(round(100 * row.iou[name], 2) for row in self.rows)) for name in first.iou]
        threads = "one thread per core" if self.threads is None else f"{self.threads} threads"
        return "\n\n".join(
            (
                table(rows, header),
                table(classes, ("IoU %", *(row.title for row in self.rows))),
                f"{self.model} at {self.size} on {self.split}, {len(first.iou)} classes occur, {threads}; "
                f"drop in points of {mean[:-2]}, and equal labels, against {first.title}",
            )
        )


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
        model=report.model,
        size=report.size,
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
    bundle = Bundle.load(options.bundle)
    manifest = bundle.manifest
    precisions = _precisions(options.precision, bundle)
    backends = _listed("--backend", options.backend)
    subset = _subset(options.subset, manifest.classes)
    samples = read_voc(options.data, options.split)
    with contextlib.ExitStack() as opened, contextlib.closing(Progress()) as progress:
        runs = [
            _Run(opened.enter_context(Segmenter(bundle, backend, precision, options.threads)), precision)
            for precision in precisions
            for backend in backends
        ]
        for index, sample in enumerate(samples):
            progress("accuracy", index, len(samples))
            _score(sample, runs, random.Random(index))
        rows = [run.row(subset, runs[0]) for run in runs]
    return AccuracyReport(
        model=manifest.name,
        size=f"{manifest.input.width}x{manifest.input.height} {manifest.input.fit}",
        split=f"{options.split}, {len(samples)} pictures",
        pictures=len(samples),
        subset=subset,
        threads=options.threads,
        rows=tuple(rows),
    )


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
        names = self.segmenter.classes
        ids = [names.index(name) for name in subset]
        iou = zip(names, self.matrix.iou(), strict=True)
        return AccuracyRow(
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


def _score(sample: VocSample, runs: Sequence[_Run], order: random.Random) -> None:
    """One picture through all runs, in another order each time: a backend's threads may spin on after their work."""
    image, truth = sample.read_image(), sample.read_mask()
    found = {run: run.segmenter.segment(image) for run in order.sample(runs, len(runs))}
    try:
        for run in runs:
            run.add(truth, found[run], found[runs[0]].mask)
    except ValueError as error:
        raise UserError(f"{sample.mask_path} does not fit its picture or the model: {error}.") from error


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
