"""Build the Keras model that a LayerGraph describes, pad for pad and crop for crop.

Pads and crops are numbers of pixels that depend on the size, so the model is built at one size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from fcnedge.runtime.errors import UserError

from .keras_convolutions import build_convolution, build_deconvolution
from .keras_step import Step
from .layer_graph import (
    Convolution,
    Crop,
    Deconvolution,
    Layer,
    LayerGraph,
    Pair,
    Pool,
    Relu,
    Same,
    Scale,
    Softmax,
    Sum,
)

_LOWEST = float(np.finfo(np.float32).min)


def build_layers(graph: LayerGraph, size: tuple[int, int]) -> keras.Model:
    """Build `graph` at `size` (height, width) with its weights: (N, H, W, 3) float32 → (N, H, W, classes) float32.

    Raises UserError where shapes disagree, with both of them, and for a network whose output is not the picture's size.
    """
    image = keras.Input((*size, 3), name="image")
    values = {graph.input: image}
    weights: list[tuple[Any, list[np.ndarray]]] = []
    names: set[str] = set()
    for layer in graph.layers:
        step = Step(layer, [values[name] for name in layer.inputs], _unique(layer.name, names), weights)
        values[layer.output] = _BUILDERS[type(layer)](step, layer)
    scores = values[graph.output]
    if tuple(scores.shape[1:3]) != tuple(size):
        raise UserError(
            f"{graph.name} gives scores of {scores.shape[2]}x{scores.shape[1]} pixels for a picture of "
            f"{size[1]}x{size[0]}; fcnedge needs one score per pixel."
        )
    model = keras.Model(image, scores, name=_unique(graph.name, set()))
    for built, arrays in weights:
        for variable, array in zip(built.weights, arrays, strict=True):
            _assign(variable, array)
    return model


def _assign(variable: Any, array: np.ndarray) -> None:
    """Fill a Keras variable row by row of its first axis: VGG16's fc6 has 411 MB, and `assign` holds three copies."""
    if tuple(variable.shape) != array.shape:
        raise ValueError(f"{variable.path} has shape {tuple(variable.shape)}, got {array.shape}")
    for row in range(len(array)):
        variable.value[row : row + 1].assign(np.ascontiguousarray(array[row : row + 1]))


def _pool(step: Step, layer: Pool) -> Any:
    before, after = zip(*(_pool_pads(step, layer, axis) for axis in (0, 1)), strict=True)
    pads = (before[0], after[0], before[1], after[1])
    if layer.mean and any(pads):
        raise step.error("it averages over padding, which libraries count differently")
    x = step.inputs[0]
    same = any(pads) and all(pads[2 * axis : 2 * axis + 2] == _same_pool_pads(step, layer, axis) for axis in (0, 1))
    if any(pads) and not same:
        x = keras.ops.pad(x, ((0, 0), pads[:2], pads[2:], (0, 0)), constant_values=_LOWEST)
    kind = layers.AveragePooling2D if layer.mean else layers.MaxPooling2D
    return kind(layer.kernel, strides=layer.stride, padding="same" if same else "valid", name=step.name)(x)


def _pool_pads(step: Step, layer: Pool, axis: int) -> Pair:
    """(before, after) of an axis, as far as its windows reach: what no window sees is not padded."""
    length, kernel, stride = step.size[axis], layer.kernel[axis], layer.stride[axis]
    before, after = layer.pads[2 * axis : 2 * axis + 2]
    if before >= kernel or after >= kernel:
        raise step.error(f"its pads {layer.pads} hold whole windows of {kernel} pixels")
    step.check_reach(layer.kernel, layer.pads)
    spare = length + before + after - kernel
    windows = (math.ceil(spare / stride) if layer.ceil else spare // stride) + 1
    if layer.ceil and (windows - 1) * stride >= length + before:
        windows -= 1  # Caffe: a window begins inside the picture or its padding before it
    return before, max(0, (windows - 1) * stride + kernel - length - before)


def _same_pool_pads(step: Step, layer: Pool, axis: int) -> Pair:
    """What Keras calls "same", which every backend has inside its pooling."""
    length, kernel, stride = step.size[axis], layer.kernel[axis], layer.stride[axis]
    total = max(0, (math.ceil(length / stride) - 1) * stride + kernel - length)
    return total // 2, total - total // 2


def _crop(step: Step, layer: Crop) -> Any:
    crop: list[int] = []
    assert layer.before is not None, "aligned_crops comes first"
    for axis, offset in enumerate(layer.before):
        have, want = step.size[axis], step.inputs[1].shape[1 + axis]
        before = min(offset, have - want) if layer.at_most else offset
        if have < want or before + want > have:
            raise step.error(f"it cuts {want} pixels after the first {offset} out of {have}")
        crop += [before, have - want - before]
    top, bottom, left, right = crop
    return step.cropped(step.inputs[0], (top, bottom, left, right))


def _sum(step: Step, _: Sum) -> Any:
    shapes = [tuple(value.shape[1:]) for value in step.inputs]
    if len(set(shapes)) != 1:
        raise step.error(f"it adds {' and '.join(map(str, shapes))} (rows, columns, channels)")
    return layers.Add(name=step.name)(step.inputs) if len(step.inputs) > 1 else step.inputs[0]


def _relu(step: Step, layer: Relu) -> Any:
    return layers.ReLU(negative_slope=layer.slope, name=step.name)(step.inputs[0])


def _scale(step: Step, layer: Scale) -> Any:
    shift = 0.0 if layer.shift is None else layer.shift
    for array in (layer.factor, shift):
        if np.size(array) not in (1, step.channels):
            raise step.error(f"it scales {np.size(array)} channels, its input has {step.channels}")
    factor, shift = (np.broadcast_to(array, step.channels).tolist() for array in (layer.factor, shift))
    return layers.Rescaling(factor, shift, name=step.name)(step.inputs[0])


def _softmax(step: Step, _: Softmax) -> Any:
    return layers.Softmax(name=step.name)(step.inputs[0])


def _same(step: Step, _: Same) -> Any:
    return step.inputs[0]


_BUILDERS: dict[type[Layer], Callable[[Step, Any], Any]] = {
    Convolution: build_convolution,
    Deconvolution: build_deconvolution,
    Pool: _pool,
    Crop: _crop,
    Sum: _sum,
    Relu: _relu,
    Scale: _scale,
    Softmax: _softmax,
    Same: _same,
}


def _unique(name: str, taken: set[str]) -> str:
    """A name that Keras and ONNX accept, and that no other layer has."""
    wanted = re.sub(r"\W", "_", name, flags=re.ASCII)
    wanted = wanted if wanted[:1].isalpha() else f"layer_{wanted}"
    unique, number = wanted, 1
    while unique in taken:
        unique, number = f"{wanted}_{number}", number + 1
    taken.add(unique)
    return unique
