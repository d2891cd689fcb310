"""Fine-tune an FCN on a VOC-format folder: resumable, with a curve at the end."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from fcnedge.calibration.voc import VOID, read_voc
from fcnedge.runtime.preprocessing import Preprocessing

from ..model_source import ModelSource
from .augmentation import Augmentation
from .dataset import TrainingBatches, ValidationBatches
from .optimizer import OneCycle, SlowTrunkAdamW

if TYPE_CHECKING:
    from ..cli import TrainOptions


def train(model: keras.Model, preprocessing: Preprocessing, source: ModelSource, options: TrainOptions) -> Path:
    """Fit `model` and return the path of its curve, `<output>/curve.csv`; `model` then holds the last weights.

    model: FCN of `build_model`; deconvolutions stay bilinear (the paper found no loss in fixing them).
    An interrupted run continues after its last finished epoch when it is started again with the same output folder.
    `<output>/model.weights.h5` holds the weights after every epoch.
    """
    options.output.mkdir(parents=True, exist_ok=True)
    samples = [sample for root in options.data for sample in read_voc(root, options.split)]
    batches = TrainingBatches(
        samples,
        training_augmentation(options),
        preprocessing,
        batch_size=options.batch_size,
        seed=options.seed,
    )
    if not options.train_batch_norm:
        freeze_batch_norm(model)
    trainee = half_resolution_trainee(model)
    trainee.compile(
        optimizer=SlowTrunkAdamW(
            OneCycle(options.head_lr, options.epochs * len(batches)),
            weight_decay=options.weight_decay,
            global_clipnorm=5.0,
            trunk_factor=options.trunk_factor,
            fast_layers=tuple(layer.name for layer in model.layers if layer.name.startswith("score")),
        ),
        loss=half_resolution_loss,
        metrics=[HalfResolutionMeanIoU(len(source.classes), name="miou")],
    )
    validation = None
    if options.val_images:
        held_out = read_voc(options.data[0], options.val_split)
        step = max(1, len(held_out) // options.val_images)
        validation = ValidationBatches(held_out[::step], preprocessing, size=options.size, fit=options.fit)
    curve = options.output / "curve.csv"
    snapshot = str(options.output / "model.weights.h5")
    trainee.fit(
        batches,
        epochs=options.epochs,
        shuffle=False,  # TrainingBatches shuffles by seed and epoch; Keras would reorder its batches without a seed
        validation_data=validation,
        callbacks=[
            _SetEpoch(batches, model, options.seed),
            # double: a run that is killed while it writes one state goes on from the state before
            keras.callbacks.BackupAndRestore(
                str(options.output / "resume"), double_checkpoint=True, delete_checkpoint=False
            ),
            keras.callbacks.CSVLogger(str(curve), append=True),
            keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: model.save_weights(snapshot)),
        ],
        verbose=1 if sys.stdout.isatty() else 2,
    )
    return curve


def training_augmentation(options: TrainOptions) -> Augmentation:
    """The augmentation that `options` ask for; its windows have the proportions of what is deployed."""
    height, width = options.size
    return Augmentation(options.crop, options.fit, options.min_zoom, options.max_zoom, deployed_aspect=width / height)


def freeze_batch_norm(model: keras.Model) -> None:
    """Keep statistics, scale and shift of every batch norm as pretrained: half the time of a step.

    Batches of a few crops estimate statistics badly, and small data spoils pretrained ones.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def half_resolution_trainee(model: keras.Model) -> keras.Model:
    """`model` up to its summed scores, upsampled bilinearly to half the input's size: 1.3x the training speed.

    Shares its variables with `model`. The last deconvolution is bilinear and has nothing to learn.
    """
    deconvolution = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2DTranspose)]
    for layer in deconvolution:
        layer.trainable = False
    stride = deconvolution[-1].strides[0]
    scores = keras.layers.UpSampling2D(stride // 2, interpolation="bilinear")(deconvolution[-1].input)
    return keras.Model(model.input, scores)


def half_resolution_loss(y_true, y_pred):
    """Cross-entropy over every second label of both axes; void pixels weigh nothing."""
    return keras.losses.sparse_categorical_crossentropy(
        y_true[:, ::2, ::2], y_pred, from_logits=True, ignore_class=VOID
    )


class HalfResolutionMeanIoU(keras.metrics.MeanIoU):
    """Mean IoU of the argmax over every second label of both axes (a training signal, not the reported figure)."""

    def __init__(self, num_classes: int, name: str):
        super().__init__(num_classes, ignore_class=VOID, sparse_y_pred=False, name=name)

    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(y_true[:, ::2, ::2], y_pred, sample_weight)


class _SetEpoch(keras.callbacks.Callback):
    """Let batches and dropout depend on (seed, epoch) alone: Keras saves no state of a dropout's random numbers."""

    def __init__(self, batches: TrainingBatches, model: keras.Model, seed: int):
        super().__init__()
        self._batches, self._seed = batches, seed
        self._dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]

    def on_epoch_begin(self, epoch, logs=None):
        self._batches.epoch = epoch
        random = np.random.default_rng((self._seed, epoch))
        for layer in self._dropouts:
            layer.seed_generator.state.assign([random.integers(1 << 31), 0])


def read_curve(path: Path) -> list[dict[str, float]]:
    """Rows of curve.csv: epoch, loss, miou, val_loss, val_miou; what Keras wrote as "NA" is left out."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: float(value) for key, value in row.items() if value not in ("", "NA")} for row in rows]
