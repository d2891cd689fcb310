"""fcn-build: build bundles out of FCNs, compile engines, export and train models, look into bundles and machines."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnedge.calibration.sensitivity_cli import SensitivityOptions
from fcnedge.runtime.command import Parser, jsonable, run_command, table, write_json
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.manifest import FITS, HEADS
from fcnedge.runtime.options import add_commands, option, read_options

from .engines.command import EngineOptions
from .engines.command import run as _engine
from .exporters.command import ExportOptions
from .exporters.command import run as _export
from .importers.flags import read_flags
from .importers.origin import PADDINGS
from .models.names import ARCHITECTURES, check_size

if TYPE_CHECKING:
    from .build import BuildReport

_CLASSES_HELP = (
    "a text file with one name per line, in the order of the masks' ids (the first line is id 0, the background), "
    "names with commas in that order, or how many; default: those of the weights, else VOC's 21"
)


@dataclass(frozen=True)
class ModelOptions:
    """Command line of fcn-build model."""

    model: str = option(
        f"a shipped model (fcn8s-lite0-voc), one of {', '.join(ARCHITECTURES)}, or a model file of another program "
        "(.mat, .caffemodel, .keras, .h5, .onnx, a SavedModel folder)",
        positional=True,
    )
    output: Path = option("bundle folder to write", short="-o", metavar="BUNDLE")
    weights: Path | None = option("weights to load (.safetensors, .weights.h5); default: random", None, metavar="FILE")
    classes: str | None = option(_CLASSES_HELP, None)
    size: tuple[int, int] | None = option(
        "network input as WIDTHxHEIGHT, multiples of 32; default: what the weights were trained for, else 512x512", None
    )
    fit: str | None = option("how frames of another shape get to that size; default: as trained", None, choices=FITS)
    padding: str | None = option(
        "how a .mat or .caffemodel is padded: as published (caffe, the default), or without the pad of 100 (same)",
        None,
        choices=PADDINGS,
    )
    mean: str | None = option("mean of a model file's input, R,G,B in 0..255; default: as the file says", None)
    scale: str | None = option("what a model file's input is multiplied by after that, S or R,G,B", None)
    channel_order: str | None = option("channel order of a model file's input", None, choices=("rgb", "bgr"))
    rgb: bool = option("short for --channel-order rgb", False)
    layout: str | None = option("layout of an .onnx file's input", None, choices=("nchw", "nhwc"))
    output_name: str | None = option("which of a model file's outputs holds the scores", None, metavar="NAME")
    fc_channels: int = option("width of VGG16's fc6 and fc7", 4096)
    head: str = option(
        "last upsampling and argmax: in the runtime, the fast way (bilinear), or in the graph (labels)",
        "bilinear",
        choices=HEADS,
    )
    verify: Path | None = option(
        "pictures on which the bundle must agree with Keras; default: the demo photographs", None, metavar="DIR"
    )
    precision: str = option("graphs to write: fp32, fp16 and int8 with commas; fp32 always is", "fp32")
    ranges: Path | None = option(
        "activation ranges for fp16 and int8, from fcn-calibrate; default: the shipped model's own",
        None,
        metavar="FILE",
    )
    exclude: str | None = option("convolutions that int8 leaves in float, with commas", None, metavar="LAYERS")
    data: Path | None = option("folder in VOC layout to measure each precision's mIoU on", None, metavar="VOC")
    split: str = option("list of labelled pictures, ImageSets/Segmentation/NAME.txt", "val")
    subset: str | None = option("classes to take that mIoU over, with commas; default: all that occur", None)
    max_drop: float | None = option(
        "most points of mIoU that a precision may lose; int8 first leaves layers in float", None, metavar="POINTS"
    )
    force: bool = option("replace a bundle that is there already, and the engines in it", False)
    dry_run: bool = option("check the options and say what would be built", False)
    json: Path | None = option("write the result as JSON", None, metavar="FILE")


@dataclass(frozen=True)
class TrainOptions:
    """Command line of fcn-build train."""

    model: str = option(f"a shipped model to start from, or one of {', '.join(ARCHITECTURES)}", positional=True)
    data: tuple[Path, ...] = option("folders in VOC layout; validation comes from the first", metavar="VOC")
    output: Path = option("folder for weights, checkpoints and curve", short="-o", metavar="DIR")
    weights: Path | None = option("weights to start from; default: ImageNet for the lite ones, random for vgg16", None)
    classes: str | None = option(_CLASSES_HELP, None)
    split: str = option("list of training pictures, ImageSets/Segmentation/NAME.txt", "train")
    val_split: str = option("list of validation pictures", "val")
    val_images: int = option("validation pictures per epoch; 0 for none", 100)
    size: tuple[int, int] = option("size to deploy at, WIDTHxHEIGHT", (384, 384))
    fit: str = option("how frames of another shape get to that size", "stretch", choices=FITS)
    crop: int = option("side of the training crops in pixels, a multiple of 32", 320)
    epochs: int = option("passes over the training pictures", 14)
    batch_size: int = option("pictures per step", 16)
    head_lr: float = option("peak learning rate of the score layers", 2e-3)
    trunk_factor: float = option("learning rate of the trunk, as a share of the head's", 0.15)
    weight_decay: float = option("AdamW weight decay", 0.05)
    min_zoom: float = option(
        "smallest random zoom: 1 trains on the whole picture, less than 1 on a smaller picture with void around it", 0.9
    )
    max_zoom: float = option("largest random zoom: 2 trains on windows with half of the picture's sides", 2.0)
    copy_paste: float = option("probability that the objects of another picture are pasted on a training picture", 0.0)
    train_batch_norm: bool = option(
        "train the batch norms too: a step takes twice the time, and small data spoils pretrained ones", False
    )
    fc_channels: int = option("width of VGG16's fc6 and fc7", 4096)
    seed: int = option("seed of order, augmentation and dropout", 0)
    dry_run: bool = option("check data and options, train nothing", False)
    json: Path | None = option("write the result as JSON", None, metavar="FILE")


@dataclass(frozen=True)
class InspectOptions:
    """Command line of fcn-build inspect."""

    bundle: Path = option("bundle folder", positional=True)
    json: Path | None = option("write the result as JSON", None, metavar="FILE")


@dataclass(frozen=True)
class DoctorOptions:
    """Command line of fcn-build doctor."""

    json: Path | None = option("write the result as JSON", None, metavar="FILE")


def build_parser() -> Parser:
    """The command line, from the option dataclasses."""
    parser = Parser(prog="fcn-build", description="Build, train and inspect FCN segmentation bundles.")
    add_commands(parser, _COMMANDS)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of fcn-build; returns the exit code."""
    parsed = build_parser().parse_args(arguments)
    options, run, _ = _COMMANDS[parsed.command]
    _quiet_libraries(hide_gpu=parsed.command == "model")
    return run_command(lambda: _naming_extras(run, read_options(options, parsed)), f"fcn-build {parsed.command}")


def _naming_extras(run: Callable[[Any], None], options: Any) -> None:
    """Call `run`; a package that is not installed becomes the UserError that names its extra."""
    from .doctor import missing_extra

    try:
        run(options)
    except ModuleNotFoundError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        raise missing from error


def _model(options: ModelOptions) -> None:
    from .bundle_writer import check_output
    from .model_source import resolve_source
    from .typed_plan import plan_precisions
    from .verify_pictures import read_verify_pictures

    source = resolve_source(
        options.model,
        weights=options.weights,
        classes=options.classes,
        size=options.size,
        fit=options.fit,
        imports=read_flags(options),
    )
    if source.origin is None or source.origin.kind != "onnx":  # an .onnx file takes the sizes that it takes
        check_size(source.size)
    _check_positive("--fc-channels", options.fc_channels)
    if source.origin is not None and options.fc_channels != ModelOptions.fc_channels:
        raise UserError(f"--fc-channels says nothing about {source.origin.path.name}, which has its own; leave it out.")
    plan = plan_precisions(
        source,
        options.precision,
        head=options.head,
        ranges=options.ranges,
        exclude=options.exclude,
        data=options.data,
        split=options.split,
        subset=options.subset,
        max_drop=options.max_drop,
    )
    if options.dry_run:
        check_output(options.output, force=options.force)
        read_verify_pictures(options.verify)
        named = source.weights or (source.origin and source.origin.path)
        weights = named.name if named else "random weights"
        size = f"{source.size[1]}x{source.size[0]}"
        also = f" as {', '.join(plan.precisions)}" if len(plan.precisions) > 1 else ""
        print(
            f"would build {source.arch} ({weights}, {len(source.classes)} classes, {size}){also} into {options.output}"
        )
        return
    from .build import build_bundle

    report = build_bundle(
        source,
        options.output,
        verify=options.verify,
        fc_channels=options.fc_channels,
        head=options.head,
        force=options.force,
        plan=plan,
    )
    if options.json is not None:
        write_json(report, options.json)
    if source.weights is None and source.origin is None:
        sys.stderr.write("fcn-build model: the weights are random; train them or pass --weights.\n")
    _print_build(report)


def _print_build(report: BuildReport) -> None:
    from .inspect import precision_table

    rules = report.fusion.rules.items()
    print(table(((name, rule.applied, len(rule.refused)) for name, rule in rules), ("fusion", "applied", "refused")))
    before, after = report.fusion.before, report.fusion.after
    print(
        f"nodes {before.nodes} → {after.nodes}, multiply-adds {before.multiply_adds / 1e9:.2f} G → "
        f"{after.multiply_adds / 1e9:.2f} G, activations {before.activation_bytes / 1e6:.0f} MB → "
        f"{after.activation_bytes / 1e6:.0f} MB"
    )
    agreement = report.agreement
    scores = (
        ""
        if isnan(agreement.relative_score_diff)
        else (f"scores within {agreement.relative_score_diff:.1e} of their range, ")
    )
    print(
        f"agreement with {report.compared_with} on {agreement.pictures} pictures: {scores}"
        f"{100 * agreement.labels_equal:.4f}% of {agreement.pixels_compared:,} labels equal"
    )
    for note in report.notes:
        print(note)
    if report.precisions or report.accuracy:
        print(precision_table(jsonable(report)))
    print(
        f"{report.output}: {report.name} at {report.size}, built with {report.peak_rss_bytes / 1e6:,.0f} MB of memory"
    )


def _train(options: TrainOptions) -> None:
    from .training.command import plan_training, train_command

    plan = plan_training(options)
    if options.dry_run:
        print(
            f"would train {plan.source.arch} on {plan.images} pictures, "
            f"{max(0, options.epochs - plan.finished_epochs)} epochs, into {options.output}"
        )
        return
    result = train_command(options, plan)
    if options.json is not None:
        write_json(result, options.json)
    print(f"trained {plan.source.arch} on {plan.images} pictures: {result.weights}, curve {result.picture}")


def _sensitivity(options: SensitivityOptions) -> None:
    from .precision.sensitivity_command import run

    run(options)


def _inspect(options: InspectOptions) -> None:
    from .inspect import describe_bundle

    description = describe_bundle(options.bundle)
    if options.json is not None:
        write_json(description, options.json)
    print(description.text())


def _doctor(options: DoctorOptions) -> None:
    from .doctor import examine

    report = examine()
    if options.json is not None:
        write_json(report, options.json)
    print(report.text())


_COMMANDS: dict[str, tuple[type, Callable[[Any], None], str]] = {
    "model": (ModelOptions, _model, "build a bundle from a shipped model or an architecture"),
    "engine": (EngineOptions, _engine, "compile a bundle's graph with TensorRT or TensorRT-RTX"),
    "export": (ExportOptions, _export, "write a bundle for Triton, DeepStream, trtexec, or as one ONNX file"),
    "sensitivity": (SensitivityOptions, _sensitivity, "measure what each layer in INT8 costs in accuracy"),
    "train": (TrainOptions, _train, "fine-tune a model on pictures in VOC layout"),
    "inspect": (InspectOptions, _inspect, "show what a bundle holds and how it was verified"),
    "doctor": (DoctorOptions, _doctor, "show what is installed, which backends work, and what would fix the others"),
}


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise UserError(f"{name} is {value}; it must be 1 or more.")


def _quiet_libraries(*, hide_gpu: bool) -> None:
    """TensorFlow prints a dozen lines at import that say nothing to our users; its errors still come through."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if hide_gpu:  # TensorFlow would take all of its memory for an export
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


if __name__ == "__main__":
    sys.exit(main())
