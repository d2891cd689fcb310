"""Does a built graph say what Keras says? Checked on real pictures before a bundle may appear.

Keras runs first and leaves its answers on disk, so that its weights can be released before the graph's are loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fcnedge.runtime import Backend, BilinearHead
from fcnedge.runtime.errors import UserError

from .keras_graph import last_upsampling_layer

MAX_SCORE_DIFFERENCE = 1e-3
"""Largest |graph - Keras| score, as a share of the range of Keras's scores."""
MIN_MARGIN = 1e-4
"""Labels must be equal where Keras's best class leads the second by more than this share of the range."""


@dataclass(frozen=True)
class Reference:
    """Keras's answer on one picture.

    image: (H, W, 3) uint8 BGR at the network's size; scores: (C, h, w) float32 before the last upsampling, or None
    when the model has no bilinear tail; labels: (H, W) uint8; margin: (H, W) float32 lead of the best class over the
    second; score_range: max - min of the full-size scores; offset: of the head that `scores` are for (HeadGeometry),
    NaN where the model does not tell.
    """

    name: str
    image: np.ndarray
    scores: np.ndarray | None
    labels: np.ndarray
    margin: np.ndarray
    score_range: float
    offset: tuple[float, float] = (float("nan"), float("nan"))


@dataclass(frozen=True)
class Agreement:
    """Graph against Keras over all pictures.

    max_abs_score_diff and score_range in score units (NaN for a labels head); labels_equal: share of equal labels
    among pixels whose margin counts.
    """

    pictures: int
    max_abs_score_diff: float
    score_range: float
    relative_score_diff: float
    labels_equal: float
    pixels_compared: int
    pixels_unequal: int

    @property
    def holds(self) -> bool:
        """Whether the bundle may be written."""
        scores_agree = np.isnan(self.relative_score_diff) or self.relative_score_diff <= MAX_SCORE_DIFFERENCE
        return bool(scores_agree and self.pixels_unequal == 0)


def keras_references(model: Any, preprocessing: Any, images: list[tuple[str, np.ndarray]], folder: Path) -> list[Path]:
    """Run `model` on `images` (name, (H, W, 3) uint8 BGR) and store one Reference per picture under `folder`."""
    import keras

    upsampling = last_upsampling_layer(model)
    outputs = {"full": model.output} | ({} if upsampling is None else {"scores": upsampling.input})
    runner = keras.Model(model.input, outputs)  # from a list of one output Keras would make that output itself
    paths = []
    for name, image in images:
        answers = runner.predict_on_batch(preprocessing.apply(image)[None])
        full = np.asarray(answers["full"][0])
        if not np.isfinite(full).all():
            raise UserError(f"the Keras model gives NaN or infinite scores on {name}; check its weights.")
        top = np.partition(full, full.shape[-1] - 2, axis=-1)[..., -2:]
        paths.append(folder / f"reference{len(paths):04d}.npz")
        np.savez(
            paths[-1],
            name=name,
            image=image,
            scores=np.asarray(answers["scores"][0]).transpose(2, 0, 1) if "scores" in answers else np.empty(0),
            labels=full.argmax(-1).astype(np.uint8),
            margin=top[..., 1] - top[..., 0],
            score_range=full.max() - full.min(),
            offset=_head_offset(model, upsampling),
        )
    return paths


def _head_offset(model: Any, deconvolution: Any) -> tuple[float, float]:
    """The crop before, less half a stride, of an unpadded deconvolution and the crops right after it; else NaN."""
    import keras

    if not isinstance(deconvolution, keras.layers.Conv2DTranspose) or deconvolution.padding != "valid":
        return float("nan"), float("nan")
    rows, columns, value = 0, 0, deconvolution.output
    crops = [layer for layer in model.layers if isinstance(layer, keras.layers.Cropping2D)]
    while (crop := next((layer for layer in crops if layer.input is value), None)) is not None:
        rows, columns, value = rows + crop.cropping[0][0], columns + crop.cropping[1][0], crop.output
    return rows - deconvolution.strides[0] / 2, columns - deconvolution.strides[1] / 2


def compare(backend: Backend, head: BilinearHead | None, references: list[Path]) -> Agreement:
    """Run every reference picture through `backend` (and `head`, None for a labels graph) and compare.

    Raises UserError where no pixel's margin counts: labels that nothing decides would prove nothing.
    """
    score_diff, score_range, unequal, compared = 0.0, 0.0, 0, 0
    for path in references:
        reference = _read(path)
        output = backend.infer(reference.image[None])
        size = (reference.image.shape[0], reference.image.shape[1])
        labels = output[0] if head is None else head.labels(output, size, size)
        if head is None or reference.scores is None:
            score_diff = float("nan")
        else:
            expected = _seen_by(head, reference, output.shape[2:])
            score_diff = (
                float("nan") if expected is None else max(score_diff, float(np.abs(output[0] - expected).max()))
            )
        score_range = max(score_range, reference.score_range)
        counted = reference.margin > MIN_MARGIN * reference.score_range
        compared += int(counted.sum())
        unequal += int((labels[counted] != reference.labels[counted]).sum())
    if not compared:
        raise UserError(
            f"no class leads on any pixel of the {len(references)} pictures, so there is nothing to compare; "
            "check the model's weights, or verify on other pictures."
        )
    return Agreement(
        pictures=len(references),
        max_abs_score_diff=score_diff,
        score_range=score_range,
        relative_score_diff=score_diff / score_range,
        labels_equal=1.0 - unequal / compared,
        pixels_compared=compared,
        pixels_unequal=unequal,
    )


def _seen_by(head: BilinearHead, reference: Reference, points: tuple[int, ...]) -> np.ndarray | None:
    """The part of the reference's scores that the graph still computes: fusion drops rows that no pixel reads.

    None when the model does not tell where its scores lie: then labels alone are compared.
    """
    assert reference.scores is not None
    if reference.scores.shape[1:] == points:
        return reference.scores
    if np.isnan(reference.offset).any():
        return None
    top, left = (
        round((whole - own) / head.geometry.stride)
        for whole, own in zip(reference.offset, head.geometry.offset, strict=True)
    )
    return reference.scores[:, top : top + points[0], left : left + points[1]]


def _read(path: Path) -> Reference:
    with np.load(path) as data:
        scores = data["scores"]
        return Reference(
            str(data["name"]),
            data["image"],
            scores if scores.size else None,
            data["labels"],
            data["margin"],
            float(data["score_range"]),
            (float(data["offset"][0]), float(data["offset"][1])) if "offset" in data else Reference.offset,
        )
