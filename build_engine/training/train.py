"""Fine-tune an FCN on a VOC-format folder: resumable, with a curve at the end."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from fcnedge.calibration.voc import VOID
from fcnedge.runtime.preprocessing import Preprocessing

from ..model_source import ModelSource
from .augmentation import Augmentation
from .dataset import TrainingBatches, ValidationBatches
from .optimizer import OneCycle, SlowTrunkAdamW
from .run_folder import CURVE_FILE, RESUME_FOLDER, SNAPSHOT_FILE, check_room, finished_epochs
from .samples import training_samples, validation_samples

if TYPE_CHECKING:
    from ..cli import TrainOptions


def train(model: keras.Model, preprocessing: Preprocessing, source: ModelSource, options: TrainOptions) -> Path:
    """Fit `model` and return the path of its curve, `<output>/curve.csv`; `model` then holds the last weights.

    model: FCN of `build_model`; deconvolutions stay bilinear (the paper found no loss in fixing them).
    An interrupted run continues after its last finished epoch when it is started again with the same output folder;
    that it is the same run is for the caller to check (RunIdentity.check).
    `<output>/model.weights.h5` holds the weights after every epoch.
    Raises UserError when the disk has no room for these files, at the start or before an epoch's are written.
    """
    options.output.mkdir(parents=True, exist_ok=True)
    batches = training_batches(preprocessing, options)
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
    held_out = validation_samples(options)
    validation = ValidationBatches(held_out, preprocessing, size=options.size, fit=options.fit) if held_out else None
    curve = options.output / CURVE_FILE
    snapshot = str(options.output / SNAPSHOT_FILE)
    trainee.fit(
        batches,
        epochs=options.epochs,
        shuffle=False,  # TrainingBatches shuffles by seed and epoch; Keras would reorder its batches without a seed
        validation_data=validation,
        callbacks=[
            _SetEpoch(batches, model, options.seed),
            _CheckRoom(options.output, model),
            # double: a run that is killed while it writes one state goes on from the state before
            keras.callbacks.BackupAndRestore(
                str(options.output / RESUME_FOLDER), double_checkpoint=True, delete_checkpoint=False
            ),
            keras.callbacks.CSVLogger(str(curve), append=finished_epochs(options.output) > 0),
            keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: model.save_weights(snapshot)),
        ],
        verbose=1 if sys.stdout.isatty() else 2,
    )
    return curve


def training_batches(preprocessing: Preprocessing, options: TrainOptions) -> TrainingBatches:
    """The batches that `options` ask for. Raises UserError for data that is not there."""
    return TrainingBatches(
        training_samples(options),
        training_augmentation(options),
        preprocessing,
        batch_size=options.batch_size,
        seed=options.seed,
        copy_paste=options.copy_paste,
    )


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


class _CheckRoom(keras.callbacks.Callback):
    """Find a full disk before the first epoch, and again before what an epoch leaves is written."""

    def __init__(self, output: Path, model: keras.Model):
        super().__init__()
        self._output, self._weights = output, model

    def on_train_begin(self, logs=None):
        self._check()

    def on_epoch_end(self, epoch, logs=None):
        self._check()

    def _check(self):
        if not self.model.optimizer.built:  # its moments are two thirds of a state
            self.model.optimizer.build(self.model.trainable_variables)
        state = _file_bytes([*self.model.variables, *self.model.optimizer.variables])
        check_room(self._output, state, _file_bytes(self._weights.variables))


def _file_bytes(variables: Sequence[keras.Variable]) -> int:
    """Upper bound for an HDF5 file of `variables`: it spends up to 2 KiB on the name and place of each."""
    return sum(math.prod(variable.shape) * np.dtype(variable.dtype).itemsize + 2048 for variable in variables)


def read_curve(path: Path) -> list[dict[str, float]]:
    """Rows of curve.csv: epoch, loss, miou, val_loss, val_miou; what Keras wrote as "NA" is left out."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: float(value) for key, value in row.items() if value not in ("", "NA")} for row in rows]
