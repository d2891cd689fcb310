"""How much `--padding same` changes on real pictures, against the same file padded as published."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .origin import importer

if TYPE_CHECKING:
    from ..model_source import ModelSource


def labels_as_published(source: ModelSource, pictures: list[tuple[str, np.ndarray]]) -> list[np.ndarray] | None:
    """Labels (H, W) uint8 of `pictures` (name, (H, W, 3) uint8 BGR at the network's size) by the published padding.

    None for a model that is built as published. The model is gone when this returns: two of VGG16's size would not fit
    into a small machine.
    """
    origin = source.origin
    if origin is None or origin.padding != "same":
        return None
    model, preprocessing = importer(origin).load(replace(origin, padding="caffe"), source.size)
    labels = [
        np.asarray(model.predict_on_batch(preprocessing.apply(image)[None])[0]).argmax(-1).astype(np.uint8)
        for _, image in pictures
    ]
    del model
    gc.collect()
    return labels


def padding_difference(as_published: list[np.ndarray], references: list[Path]) -> str:
    """One sentence: the share of labels that differ from the stored references' (agreement.py), all and the worst."""
    shares = []
    for labels, path in zip(as_published, references, strict=True):
        with np.load(path) as reference:
            shares.append(float(np.mean(labels != reference["labels"])))
    return (
        f"--padding same gives {100 * np.mean(shares):.2f}% of the labels of {len(shares)} pictures another class than "
        f"the published padding does, {100 * max(shares):.2f}% on the worst."
    )
