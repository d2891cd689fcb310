"""`fcn-build train`: from the command line's words to weights, a safetensors file and a curve."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fcnedge.calibration.voc import check_voc
from fcnedge.runtime.command import captured_stderr
from fcnedge.runtime.errors import UserError, missing_package

from ..model_source import ModelSource, keras_model, resolve_source, shipped_models
from ..models.names import LITES, SIZE_MULTIPLE_PX, Architecture, check_size, pretrained_packages
from .run_folder import RunIdentity, check_writable, disk_errors, finished_epochs
from .samples import training_samples, validation_samples

if TYPE_CHECKING:
    from ..cli import TrainOptions

MIN_ZOOM, MAX_ZOOM = 0.25, 16.0
"""Below, more than fifteen sixteenths of a window are void; above, a window of a VOC picture has 30 pixels a side."""


@dataclass(frozen=True)
class TrainResult:
    """Where training left its files, and the last row of the curve."""

    weights: str
    curve: str
    picture: str
    epochs: int
    images: int
    last: dict[str, float]


@dataclass(frozen=True)
class TrainingPlan:
    """Checked options: what is trained, on how many pictures, what tells this run from another, epochs it has done."""

    source: ModelSource
    images: int
    identity: RunIdentity
    finished_epochs: int


def plan_training(options: TrainOptions) -> TrainingPlan:
    """Check model, options and data before Keras is loaded. Raises UserError."""
    source = resolve_source(
        options.model,
        weights=options.weights,
        classes=options.classes,
        size=options.size,
        fit=options.fit,
        new_scores=True,
    )
    check_size(options.size)
    _check(options)
    _check_packages(source)
    samples = training_samples(options)
    if len(samples) < options.batch_size:
        raise UserError(
            f"{len(samples)} training pictures do not fill one batch of {options.batch_size}; lower --batch-size."
        )
    held_out = validation_samples(options)
    identity = RunIdentity.of(source, options, samples, held_out)
    identity.check(options.output)
    check_voc([*samples, *held_out], len(source.classes))  # a few seconds, before hours
    return TrainingPlan(source, len(samples), identity, finished_epochs(options.output))


def train_command(options: TrainOptions, plan: TrainingPlan) -> TrainResult:
    """Train, and save `<output>/<model>.safetensors` and the curve as a picture. Raises UserError."""
    load_quietly()
    import keras

    from ..models.weights_file import WeightsInfo, save_weights
    from .curve import draw_curve
    from .train import read_curve, train

    source = plan.source
    _say_what_is_done(options, plan.finished_epochs)
    keras.utils.set_random_seed(options.seed)  # the score layers start from random numbers
    model, preprocessing = keras_model(source, fc_channels=options.fc_channels, fixed_size=False, new_scores=True)
    if source.weights is None:
        _initialise(model, source)
    name = source.name if source.name not in shipped_models() else source.arch
    weights = options.output / f"{name}.safetensors"
    info = WeightsInfo(name, source.arch, source.classes, options.size, options.fit)
    with disk_errors(options.output):
        options.output.mkdir(parents=True, exist_ok=True)
        plan.identity.write(options.output)
        curve = train(model, preprocessing, source, options)
        save_weights(model, weights, info)
        rows = read_curve(curve)
        picture = draw_curve(rows, options.output / "curve.png")
    return TrainResult(str(weights), str(curve), str(picture), len(rows), plan.images, rows[-1])


def load_quietly() -> None:
    """Import Keras and the TensorFlow under it without the lines that they greet every user with.

    TensorFlow 2.21 says that oneDNN is on whatever TF_CPP_MIN_LOG_LEVEL is, past the log that the variable is for
    (https://github.com/tensorflow/tensorflow/issues/100442). With TF_CPP_MIN_LOG_LEVEL=0 it may speak.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        return
    words: list[str] = []
    try:
        with captured_stderr() as words:
            import keras  # noqa: F401
    finally:
        for line in without_start_up_lines(words):
            sys.stderr.write(f"{line}\n")


_START_UP_LINE = re.compile(
    r"[IW]\d{4} \d\d:\d\d:|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IW] |WARNING: All log messages before absl::"
    r"|To enable the following instructions: "
)
"""Information and warnings as absl and, before it, TensorFlow's own log begin them, and what goes with them."""


def without_start_up_lines(lines: Iterable[str]) -> list[str]:
    """What of TensorFlow's words at import a user may have to know: errors, and all that is not its log's."""
    return [line for line in lines if not _START_UP_LINE.match(line)]


def _initialise(model, source: ModelSource) -> None:
    from ..models.imagenet_weights import load_lite_imagenet

    trunk = Architecture.parse(source.arch).trunk
    if trunk in LITES:
        layers = load_lite_imagenet(model, trunk)
        sys.stderr.write(f"fcn-build train: {layers} trunk layers start from ImageNet.\n")
    else:
        sys.stderr.write("fcn-build train: the trunk starts from random weights; pass --weights for better ones.\n")


def _say_what_is_done(options: TrainOptions, done: int) -> None:
    if done >= options.epochs:
        sys.stderr.write(
            f"fcn-build train: {options.output} has finished its {options.epochs} epochs already; none is trained, the "
            "files are written again.\n"
        )
    elif done:
        sys.stderr.write(f"fcn-build train: {options.output} goes on after epoch {done} of {options.epochs}.\n")


def _check_packages(source: ModelSource) -> None:
    """Raise UserError for a package that would be missed after TensorFlow has loaded, or after hours."""
    if importlib.util.find_spec("matplotlib") is None:  # draws the curve
        raise missing_package("matplotlib", extra="train")
    trunk = Architecture.parse(source.arch).trunk
    if source.weights is not None or trunk not in LITES:
        return
    for module, package in pretrained_packages(trunk).items():
        if importlib.util.find_spec(module) is None:
            instead = ", or start from fcn8s-lite0-voc, which needs no torch" if trunk == "lite0" else ""
            raise UserError(
                f"{missing_package(package, extra='pretrained')} ({source.name} starts from ImageNet weights, which "
                f"are a PyTorch file){instead}."
            )


def _check(options: TrainOptions) -> None:
    for name in ("epochs", "batch_size", "crop", "fc_channels"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(options, name)}; it must be 1 or more.")
    if options.crop % SIZE_MULTIPLE_PX:
        raise UserError(f"--crop is {options.crop}; it must be a multiple of {SIZE_MULTIPLE_PX}.")
    if not MIN_ZOOM <= options.min_zoom <= options.max_zoom <= MAX_ZOOM:
        raise UserError(
            f"--min-zoom is {options.min_zoom} and --max-zoom {options.max_zoom}; "
            f"they must lie between {MIN_ZOOM} and {MAX_ZOOM}, in order."
        )
    if not 0 <= options.copy_paste <= 1:
        raise UserError(f"--copy-paste is {options.copy_paste}; it is a probability from 0 to 1.")
    if options.head_lr <= 0 or options.trunk_factor < 0 or options.weight_decay < 0 or options.val_images < 0:
        raise UserError("--head-lr must be positive; --trunk-factor, --weight-decay and --val-images not negative.")
    check_writable(options.output)
