"""Convolutions and deconvolutions of a LayerGraph as Keras layers.

Keras has no grouped deconvolution and no grouped convolution on a CPU: filters of groups are written out as dense ones
with zeros between the groups, which changes no score; fusion finds the diagonal ones again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from keras import layers

from .keras_step import Step
from .layer_graph import Convolution, Deconvolution, Pair, Sides


def build_convolution(step: Step, layer: Convolution) -> Any:
    """Conv2D, after ZeroPadding2D where Keras has no name for the pads."""
    if max(layer.stride) > 1 and max(layer.dilation) > 1:  # Keras has either, but not both
        layer = replace(layer, filters=_spread(layer.filters, layer.dilation), dilation=(1, 1))
    height, width, depth, out = layer.filters.shape
    groups = layer.groups or max(1, step.channels // depth)
    if layer.groups is None and out % groups:  # no groups after all: say so of one
        groups = 1
    if depth * groups != step.channels or out % groups:
        raise step.error(
            f"its filters {layer.filters.shape} take {depth * groups} channels in {groups} group(s), its input has "
            f"{step.channels}"
        )
    reach = tuple((side - 1) * dilation + 1 for side, dilation in zip((height, width), layer.dilation, strict=True))
    step.check_reach(reach, layer.pads)
    same = layer.pads == _same_pads(reach) and layer.stride == (1, 1)
    built = layers.Conv2D(
        out,
        (height, width),
        strides=layer.stride,
        padding="same" if same else "valid",
        dilation_rate=layer.dilation,
        use_bias=layer.bias is not None,
        kernel_initializer="zeros",
        name=step.name,
    )
    x = step.inputs[0] if same else step.padded(step.inputs[0], layer.pads)
    return step.weighted(built, _dense(layer.filters, groups), layer.bias, x)


def build_deconvolution(step: Step, layer: Deconvolution) -> Any:
    """Conv2DTranspose without padding, then Cropping2D."""
    height, width, out, depth = layer.filters.shape
    if depth != step.channels or depth % layer.groups:
        raise step.error(
            f"its filters {layer.filters.shape} in {layer.groups} group(s) take {depth} channels, its input has "
            f"{step.channels}"
        )
    built = layers.Conv2DTranspose(
        out * layer.groups,
        (height, width),
        strides=layer.stride,
        padding="valid",
        use_bias=layer.bias is not None,
        kernel_initializer="zeros",
        name=step.name,
    )
    y = step.weighted(built, _dense(layer.filters, layer.groups), layer.bias, step.inputs[0])
    # Where the stride exceeds the kernel Keras adds the rows up to the next input's; the files' formats do not.
    extra = [max(0, stride - side) for stride, side in zip(layer.stride, (height, width), strict=True)]
    top, bottom, left, right = layer.crop
    crop = top, bottom + extra[0], left, right + extra[1]
    if y.shape[1] <= crop[0] + crop[1] or y.shape[2] <= crop[2] + crop[3]:
        raise step.error(f"its crop {layer.crop} leaves nothing of {y.shape[2]}x{y.shape[1]} pixels")
    return step.cropped(y, crop)


def _dense(filters: np.ndarray, groups: int) -> np.ndarray:
    """Filters of groups as those of one: block diagonal over the last two axes.

    The third axis is one group's inputs (of a convolution) or outputs (of a deconvolution), the last goes over all.
    """
    if groups == 1:
        return filters
    height, width, part, whole = filters.shape
    dense = np.zeros((height, width, part * groups, whole), filters.dtype)
    share = whole // groups
    for group in range(groups):
        columns = slice(group * share, (group + 1) * share)
        dense[:, :, group * part : (group + 1) * part, columns] = filters[..., columns]
    return dense


def _spread(filters: np.ndarray, dilation: Pair) -> np.ndarray:
    """Dilated filters as plain ones, with zeros between their rows and columns."""
    rows, columns = ((side - 1) * step + 1 for side, step in zip(filters.shape[:2], dilation, strict=True))
    spread = np.zeros((rows, columns, *filters.shape[2:]), filters.dtype)
    spread[:: dilation[0], :: dilation[1]] = filters
    return spread


def _same_pads(reach: tuple[int, ...]) -> Sides:
    """What Keras calls "same" at stride 1."""
    rows, columns = (side - 1 for side in reach)
    return rows // 2, rows - rows // 2, columns // 2, columns - columns // 2
