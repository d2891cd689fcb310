"""Which form of an INT8 graph each CPU backend runs fastest, and what it costs: how the forms of a bundle were chosen.

Forms differ in the integers of the activations, signed (S8S8) or unsigned (U8S8; weights are signed in both), and in
whether depthwise convolutions are quantised; the rest is float32. Every picture goes through all forms and backends in
turn, in another order each time, so that whatever else the machine does falls on all of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fcnedge.benchmarks.machine import machine
from fcnedge.build_engine.bundle_writer import file_specs, write_manifest
from fcnedge.build_engine.export import save_onnx
from fcnedge.build_engine.precision import place, to_int8
from fcnedge.build_engine.precision.variant import graph_bytes
from fcnedge.calibration.activations import load_graph
from fcnedge.calibration.miou import ConfusionMatrix, usual_subset
from fcnedge.calibration.ranges import Ranges, read_ranges
from fcnedge.calibration.spacing import evenly_spaced
from fcnedge.calibration.voc import VocSample, read_voc
from fcnedge.runtime import Bundle, Segmenter
from fcnedge.runtime.backends.cpu_target import cpu_target
from fcnedge.runtime.command import Parser, Progress, run_command, table, write_json
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.options import add_options, option, read_options

BACKENDS = ("onnxruntime", "openvino")


@dataclass(frozen=True)
class FormsOptions:
    """Command line of benchmarks/int8_forms.py."""

    bundle: Path = option("bundle folder with its ranges.json", positional=True)
    data: Path = option("folder in VOC layout", metavar="VOC")
    split: str = option("list of pictures, ImageSets/Segmentation/NAME.txt", "val")
    images: int = option("pictures, evenly spaced over the list", 150)
    threads: int | None = option("CPU threads of one inference; default: one per core", None)
    json: Path | None = option("write the result as JSON", None, metavar="FILE")


@dataclass(frozen=True)
class FormRow:
    """One form in one backend. drop_points: of the mean IoU over `subset`, below FP32's in the same backend.

    share: bytes of the graph, of FP32's; p50_ms: median of one frame through the segmenter; ratio: median over the
    pictures of this form's time to FP32's in the same backend; labels_equal: share of pixels with that one's label.
    """

    form: str
    backend: str
    share: float
    p50_ms: float
    ratio: float
    drop_points: float
    labels_equal: float


@dataclass(frozen=True)
class FormsReport:
    """target: the graph of a bundle that its readers take on this machine."""

    model: str
    machine: str
    target: str | None
    threads: int | None
    pictures: int
    subset: tuple[str, ...]
    rows: tuple[FormRow, ...]

    def text(self) -> str:
        """The report as a text table."""
        rows = [
            (
                *(row.form, row.backend, f"{row.share:.1%}", row.p50_ms, f"{row.ratio:.2f}"),
                *(f"{row.drop_points:.2f}", f"{row.labels_equal:.2%}"),
            )
            for row in self.rows
        ]
        header = ("form", "backend", "of fp32", "p50 ms", "to fp32", "drop", "labels equal")
        threads = "one thread per core" if self.threads is None else f"{self.threads} threads"
        return "\n".join(
            (
                table(rows, header),
                f"{self.model} on {self.pictures} pictures, {threads}; drop in points of mIoU-{len(self.subset)}",
            )
        )


@dataclass(frozen=True)
class _Form:
    activations: Literal["int8", "uint8"]
    depthwise: bool

    @property
    def title(self) -> str:
        kind = {"int8": "S8S8", "uint8": "U8S8"}[self.activations]
        return f"{kind}, depthwise {'INT8' if self.depthwise else 'float'}"


_FORMS = (_Form("int8", False), _Form("int8", True), _Form("uint8", False), _Form("uint8", True))


class _Run:
    """One open graph, and what has been counted so far."""

    def __init__(self, form: str, segmenter: Segmenter, share: float, fp32: _Run | None) -> None:
        self.form, self.segmenter, self.share, self.fp32 = form, segmenter, share, fp32
        self.matrix = ConfusionMatrix(len(segmenter.classes))
        self.times_ms: list[float] = []
        self.equal = self.pixels = 0
        self.mask = np.zeros((0, 0), np.uint8)

    def segment(self, image: np.ndarray) -> None:
        found = self.segmenter.segment(image)
        self.mask = found.mask
        self.times_ms.append(found.total_ms)

    def count(self, truth: np.ndarray) -> None:
        self.matrix.add(truth, self.mask)
        if self.fp32 is not None:
            self.equal += int(np.count_nonzero(self.mask == self.fp32.mask))
            self.pixels += self.mask.size

    def row(self, ids: Sequence[int]) -> FormRow:
        fp32 = self if self.fp32 is None else self.fp32
        return FormRow(
            form=self.form,
            backend=self.segmenter.backend.name,
            share=self.share,
            p50_ms=float(np.median(self.times_ms)),
            ratio=float(np.median(np.divide(self.times_ms, fp32.times_ms))),
            drop_points=100 * (fp32.matrix.mean_iou(ids) - self.matrix.mean_iou(ids)),
            labels_equal=self.equal / self.pixels if self.pixels else 1.0,
        )


def measure_forms(options: FormsOptions) -> FormsReport:
    """Write every form, run all over the pictures. Raises UserError for a bundle without ranges and pictures."""
    if options.images < 1:
        raise UserError(f"--images is {options.images}; it must be 1 or more.")
    bundle = Bundle.load(options.bundle)
    ranges = read_ranges(bundle.path / "ranges.json")
    chosen = evenly_spaced(read_voc(options.data, options.split), options.images)
    classes = bundle.manifest.classes
    subset = usual_subset(classes)
    with contextlib.ExitStack() as stack, contextlib.closing(Progress()) as progress:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        runs = [run for backend in BACKENDS for run in _open(bundle, ranges, backend, folder, options.threads, stack)]
        for index, sample in enumerate(chosen):
            progress("forms", index, len(chosen))
            _score(sample, runs, random.Random(index))
        rows = tuple(run.row([classes.index(name) for name in subset]) for run in runs)
    return FormsReport(bundle.manifest.name, machine(), cpu_target(), options.threads, len(chosen), subset, rows)


def _open(
    bundle: Bundle, ranges: Ranges, backend: str, folder: Path, threads: int | None, stack: contextlib.ExitStack
) -> list[_Run]:
    """FP32 and every form in one backend."""
    reference = _Run("FP32", stack.enter_context(Segmenter(bundle, backend, "fp32", threads)), 1.0, None)
    runs, size = [reference], graph_bytes(bundle.model("fp32"))
    for index, form in enumerate(_FORMS):
        written = _written(bundle, ranges, form, folder / f"{backend}{index}")
        segmenter = stack.enter_context(Segmenter(written, backend, "int8", threads))
        runs.append(_Run(form.title, segmenter, graph_bytes(written.model("int8")) / size, reference))
    return runs


def _written(bundle: Bundle, ranges: Ranges, form: _Form, folder: Path) -> Bundle:
    """A bundle of one INT8 graph, that of `form`."""
    folder.mkdir()
    model = load_graph(bundle.model("fp32"))
    placement = place(model, depthwise=form.depthwise)
    to_int8(model, ranges.tensors, placement, elsewhere="fp32", activations=form.activations)
    names = [path.name for path in save_onnx(model, folder / "model.int8.onnx")]
    return write_manifest(folder, dataclasses.replace(bundle.manifest, files=file_specs(folder, names)))


def _score(sample: VocSample, runs: Sequence[_Run], order: random.Random) -> None:
    image, truth = sample.read_image(), sample.read_mask()
    for run in order.sample(runs, len(runs)):
        run.segment(image)
    for run in runs:
        run.count(truth)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = Parser(prog="int8_forms.py", description=(__doc__ or "").splitlines()[0])
    add_options(parser, FormsOptions)
    options = read_options(FormsOptions, parser.parse_args(arguments))
    return run_command(lambda: _run(options), "int8_forms.py")


def _run(options: FormsOptions) -> None:
    report = measure_forms(options)
    if options.json is not None:
        write_json(report, options.json)
    print(report.text())


if __name__ == "__main__":
    sys.exit(main())
