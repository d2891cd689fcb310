"""mIoU of a bundle on a VOC split, through the runtime that users run, at the pictures' own size."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fcnedge.calibration.miou import ConfusionMatrix
from fcnedge.calibration.voc import read_voc
from fcnedge.runtime import Segmenter
from fcnedge.runtime.command import Parser, Progress, run_command, table, write_json
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.options import add_options, option, read_options

SUBSET = "background,cat,cow,dog,horse,person,sheep"


@dataclass(frozen=True)
class AccuracyOptions:
    """Command line of benchmarks/accuracy.py."""

    bundle: Path = option("bundle folder", positional=True)
    data: Path = option("folder in VOC layout", metavar="VOC")
    split: str = option("list of pictures, ImageSets/Segmentation/NAME.txt", "val")
    subset: str = option("classes of the subset mean, with commas", SUBSET)
    precision: str = option("which graph of the bundle runs", "auto")
    threads: int | None = option("CPU threads of one inference; default: one per core", None)
    json: Path | None = option("write the result as JSON", None, metavar="FILE")


@dataclass(frozen=True)
class Accuracy:
    """mIoU as shares of 1. iou: per class that occurs; p50_ms: median of one frame through the segmenter."""

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
    """Segment every picture of the split and score it. Raises UserError."""
    samples = read_voc(options.data, options.split)
    with Segmenter(options.bundle, precision=options.precision, threads=options.threads) as segmenter:
        names = segmenter.classes
        subset = tuple(name.strip() for name in options.subset.split(","))
        unknown = [name for name in subset if name not in names]
        if unknown:
            raise UserError(f"--subset names {', '.join(unknown)}, which the model does not have.")
        matrix, times, progress = ConfusionMatrix(len(names)), [], Progress()
        for index, sample in enumerate(samples):
            progress("accuracy", index, len(samples))
            result = segmenter.segment(sample.read_image())
            try:
                matrix.add(sample.read_mask(), result.mask)
            except ValueError as error:
                raise UserError(f"{sample.mask_path} does not fit its picture or the model: {error}.") from error
            times.append(result.total_ms)
        progress.close()
        manifest = segmenter.bundle.manifest
        iou = matrix.iou()
        return Accuracy(
            model=manifest.name,
            size=f"{manifest.input.width}x{manifest.input.height} {manifest.input.fit}",
            precision=segmenter.backend.precision,
            split=f"{options.split}, {len(samples)} pictures",
            pictures=len(samples),
            miou=matrix.mean_iou(),
            subset=subset,
            miou_subset=matrix.mean_iou([names.index(name) for name in subset]),
            pixel_accuracy=matrix.pixel_accuracy(),
            iou={name: float(value) for name, value in zip(names, iou, strict=True) if not np.isnan(value)},
            p50_ms=float(np.median(times)),
        )


def build_parser() -> Parser:
    """The command line, from AccuracyOptions."""
    parser = Parser(prog="accuracy.py", description="mIoU of a bundle on a VOC split.")
    add_options(parser, AccuracyOptions)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = read_options(AccuracyOptions, build_parser().parse_args(arguments))
    return run_command(lambda: _report(measure_accuracy(options), options), "accuracy.py")


def _report(accuracy: Accuracy, options: AccuracyOptions) -> None:
    if options.json is not None:
        write_json(accuracy, options.json)
    print(table(((name, 100 * value) for name, value in accuracy.iou.items()), ("class", "IoU %")))
    print(
        f"{accuracy.model} {accuracy.precision} at {accuracy.size} on {accuracy.split}: mIoU over {len(accuracy.iou)} "
        f"classes {accuracy.miou:.4f}, mIoU-{len(accuracy.subset)} {accuracy.miou_subset:.4f}, pixel accuracy "
        f"{accuracy.pixel_accuracy:.4f}, {accuracy.p50_ms:.1f} ms per frame"
    )


if __name__ == "__main__":
    sys.exit(main())
