"""The pictures of a training run: all of its lists to train on, some of one list to validate on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fcnedge.calibration.voc import VocSample, read_voc

if TYPE_CHECKING:
    from ..cli import TrainOptions


def training_samples(options: TrainOptions) -> list[VocSample]:
    """The pictures of --split in every folder of --data. Raises UserError."""
    return [sample for root in options.data for sample in read_voc(root, options.split)]


def validation_samples(options: TrainOptions) -> list[VocSample]:
    """--val-images pictures of --val-split in the first folder of --data, or all if it has fewer. Raises UserError."""
    if not options.val_images:
        return []
    return evenly_spaced(read_voc(options.data[0], options.val_split), options.val_images)


def evenly_spaced(samples: Sequence[VocSample], count: int) -> list[VocSample]:
    """`count` of `samples`, whose places differ by len(samples) / count rounded up or down; all when there are fewer.

    A list is sorted, often by recording: its first `count` would look alike.
    """
    count = min(count, len(samples))
    return [samples[index * len(samples) // count] for index in range(count)]
