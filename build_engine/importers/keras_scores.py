"""The scores that a Keras model of somebody else's ends in, at the size of its input.

Argmax over the classes, softmax, reshapes and casts behind them are left off, because the class that wins stays the
same; scores on a coarser grid get the bilinear upsampling that their user would do.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from fcnedge.runtime.errors import UserError

from ..keras_graph import producer

_LOG = logging.getLogger(__name__)
_KEEPS_WINNER = ("Reshape", "ExpandDims", "Squeeze", "Cast", "Softmax", "Activation", "Dropout", "Identity")
_ARGMAX_OVER_CLASSES = (-1, 3)


def scores_model(model: Any, path: Path, size: tuple[int, int], output_name: str | None) -> Any:
    """`model` with one input and one output, (N, H, W, 3) → (N, H, W, classes) at `size` (height, width).

    output_name: the output of several, by its layer's name. Raises UserError for a model that gives no such scores.
    """
    import keras

    if len(model.inputs) != 1:
        raise UserError(f"{path} has {len(model.inputs)} inputs; fcnedge runs models of one picture.")
    scores = _before_argmax(_output(model, path, output_name), path)
    classes = scores.shape[3]
    if classes is None or not 2 <= classes <= 255:
        raise UserError(
            f"{path} gives {classes} channel{'s' * (classes != 1)} per pixel, a model has 2 to 255 classes; give the "
            "background a channel of its own."
        )
    return keras.Model(model.inputs, _upsampled(scores, path, size), name=model.name)


def _output(model: Any, path: Path, name: str | None) -> Any:
    named = {producer(value)[0].name: value for value in model.outputs}
    if name is None and len(model.outputs) == 1:
        return model.outputs[0]
    if name not in named:
        wanted = "several outputs" if name is None else f"no output {name}"
        raise UserError(f"{path} has {wanted}; choose one of {', '.join(named)} with --output-name.")
    return named[name]


def _before_argmax(value: Any, path: Path) -> Any:
    """The last (N, h, w, classes) tensor before an argmax, or before a reshape to fewer axes."""
    given = value
    while True:
        operation, inputs = producer(value)
        kind = type(operation).__name__
        argmax = kind == "Argmax" and operation.axis in _ARGMAX_OVER_CLASSES and len(inputs[0].shape) == 4
        if argmax or (kind == "Reshape" and len(inputs[0].shape) == 4 and len(value.shape) == 3):
            return inputs[0]
        if kind not in _KEEPS_WINNER or len(inputs) != 1:
            break
        value = inputs[0]
    if len(given.shape) == 4:
        return given
    raise UserError(
        f"{path} gives {_sides(given.shape)}, expected scores of (N, height, width, classes); leave the last layers "
        "off, or choose the output that holds them with --output-name."
    )


def _upsampled(scores: Any, path: Path, size: tuple[int, int]) -> Any:
    import keras

    points = tuple(scores.shape[1:3])
    if points == size:
        return scores
    if None in points or any(side % point for side, point in zip(size, points, strict=True)):
        raise UserError(
            f"{path} gives scores of {_sides(points)} (height x width) for a picture of {_sides(size)}; they must be "
            "its size or a whole share of it, so pad the convolutions with 'same' or choose another --size."
        )
    factors = (size[0] // points[0], size[1] // points[1])
    _LOG.info("%s gives scores of %s; they are upsampled to %s bilinearly.", path.name, _sides(points), _sides(size))
    return keras.layers.UpSampling2D(factors, interpolation="bilinear", name="upsampled_scores")(scores)


def _sides(shape: Any) -> str:
    return " x ".join("any" if side is None else str(side) for side in shape)
