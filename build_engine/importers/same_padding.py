"""`--padding same`: the same filters without Caffe's pad of 100, aligned by symmetric crops instead.

The pad exists so that a network with unpadded 7x7 filters still covers small pictures; it costs 1.68 times the
multiply-adds at 500 x 500 (Long et al., CVPR 2015, pad and crop between rounds of alignment). Here every convolution
keeps its input's size, every deconvolution of factor s multiplies it by s, and no crop remains to be done. Scores move
by a few pixels, so labels differ: how many is measured on pictures (padding_difference.py).
"""

from __future__ import annotations

import logging
from dataclasses import replace

from fcnedge.runtime.errors import UserError

from .layer_graph import NO_SIDES, Convolution, Crop, Deconvolution, Layer, LayerGraph, Pair, Pool, Sides

_LOG = logging.getLogger(__name__)


def same_padded(graph: LayerGraph) -> LayerGraph:
    """`graph` with "same" padding for pictures whose sides are multiples of its largest stride.

    Says what it changed in one log line. Raises UserError where a layer has no symmetric padding.
    """
    layers = tuple(_layer(layer) for layer in graph.layers)
    changes = [_change(old, new) for old, new in zip(graph.layers, layers, strict=True)]
    told = [change for change in changes if change]
    _LOG.info("--padding same changes %s.", ", ".join(told) or "nothing: the network is padded so already")
    return replace(graph, layers=layers)


def _layer(layer: Layer) -> Layer:
    if isinstance(layer, Convolution) and layer.stride == (1, 1):
        kernel = layer.filters.shape[:2]
        return replace(layer, pads=_halves(layer, [(k - 1) * d for k, d in zip(kernel, layer.dilation, strict=True)]))
    if isinstance(layer, Deconvolution):
        kernel = layer.filters.shape[:2]
        return replace(layer, crop=_halves(layer, [k - s for k, s in zip(kernel, layer.stride, strict=True)]))
    if isinstance(layer, Pool) and layer.kernel == layer.stride:
        return replace(layer, pads=NO_SIDES, ceil=False)
    if isinstance(layer, Crop):
        return replace(layer, before=(0, 0))
    return layer


def _halves(layer: Layer, amounts: list[int]) -> Sides:
    if any(amount < 0 or amount % 2 for amount in amounts):
        raise UserError(f"the layer {layer.name} cannot be padded symmetrically; import it with --padding caffe.")
    rows, columns = (amount // 2 for amount in amounts)
    return rows, rows, columns, columns


def _change(old: Layer, new: Layer) -> str:
    """What became of a layer, in a few words, "" for nothing."""
    if isinstance(old, Convolution) and isinstance(new, Convolution) and old.pads != new.pads:
        return f"{old.name}'s pad from {_short(old.pads)} to {_short(new.pads)}"
    if isinstance(old, Deconvolution) and isinstance(new, Deconvolution) and old.crop != new.crop:
        return f"{old.name}'s crop from {_short(old.crop)} to {_short(new.crop)}"
    if isinstance(old, Crop) and isinstance(new, Crop) and old.before != new.before:
        return f"{old.name}'s offset from {_short(old.before or (0, 0))} to 0"
    return ""


def _short(numbers: Pair | Sides) -> str:
    return str(numbers[0]) if len(set(numbers)) == 1 else str(numbers)
