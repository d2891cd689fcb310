"""`fcn-build train`: from the command line's words to weights, a safetensors file and a curve."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fcnedge.calibration.voc import VOID, VocSample, read_voc
from fcnedge.runtime.command import Progress
from fcnedge.runtime.errors import UserError, missing_package

from ..model_source import ModelSource, keras_model, resolve_source, shipped_models
from ..models.names import SIZE_MULTIPLE_PX, check_size

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
    """Checked options: what is trained, and on how many pictures."""

    source: ModelSource
    images: int


def plan_training(options: TrainOptions) -> TrainingPlan:
    """Check model, options and data before Keras is loaded. Raises UserError."""
    source = resolve_source(
        options.model, weights=options.weights, classes=options.classes, size=options.size, fit=options.fit
    )
    check_size(options.size)
    _check(options)
    if importlib.util.find_spec("matplotlib") is None:  # draws the curve, after hours
        raise missing_package("matplotlib", extra="train")
    samples = [sample for root in options.data for sample in read_voc(root, options.split)]
    if len(samples) < options.batch_size:
        raise UserError(
            f"{len(samples)} training pictures do not fill one batch of {options.batch_size}; lower --batch-size."
        )
    held_out = read_voc(options.data[0], options.val_split) if options.val_images else []
    _check_masks([*samples, *held_out], len(source.classes))
    return TrainingPlan(source, len(samples))


def train_command(options: TrainOptions, plan: TrainingPlan) -> TrainResult:
    """Train, and save `<output>/<model>.safetensors` and the curve as a picture. Raises UserError."""
    from ..models.weights_file import WeightsInfo, save_weights
    from .curve import draw_curve
    from .train import read_curve, train

    import keras

    source = plan.source
    keras.utils.set_random_seed(options.seed)  # the score layers start from random numbers
    model, preprocessing = keras_model(source, fc_channels=options.fc_channels, fixed_size=False)
    if source.weights is None:
        _initialise(model, source)
    curve = train(model, preprocessing, source, options)
    name = source.name if source.name not in shipped_models() else source.arch
    weights = options.output / f"{name}.safetensors"
    info = WeightsInfo(name, source.arch, source.classes, options.size, options.fit)
    save_weights(model, weights, info)
    rows = read_curve(curve)
    picture = draw_curve(rows, options.output / "curve.png")
    return TrainResult(str(weights), str(curve), str(picture), len(rows), plan.images, rows[-1])


def _initialise(model, source: ModelSource) -> None:
    from ..models.imagenet_weights import load_lite0_imagenet

    if source.arch.endswith("lite0"):
        layers = load_lite0_imagenet(model)
        sys.stderr.write(f"fcn-build train: {layers} trunk layers start from ImageNet.\n")
    else:
        sys.stderr.write("fcn-build train: the trunk starts from random weights; pass --weights for better ones.\n")


def _check_masks(samples: list[VocSample], classes: int) -> None:
    """Every mask is readable and holds classes that the model has: a few seconds, before hours."""
    progress = Progress()
    for index, sample in enumerate(samples):
        progress("check masks", index, len(samples))
        mask = sample.read_mask()
        highest = int(mask[mask != VOID].max(initial=0))
        if highest >= classes:
            raise UserError(
                f"{sample.mask_path} holds class {highest}, the model has {classes} classes; "
                "name all of them with --classes or mend the mask."
            )
    progress.close()


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
    if options.head_lr <= 0 or options.trunk_factor < 0 or options.weight_decay < 0 or options.val_images < 0:
        raise UserError("--head-lr must be positive; --trunk-factor, --weight-decay and --val-images not negative.")
    taken = options.output.exists() and not options.output.is_dir()
    if taken:
        raise UserError(f"{Path(options.output)} is a file; -o names a folder.")
