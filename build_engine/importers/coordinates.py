"""Where a layer's pixels lie in the picture: what the crops of Caffe's first FCNs are computed from.

Every layer here maps a pixel x of its output to a·x + b of its input, in pixels, the centre of a window of k (dilated)
pixels being its place: a convolution or pooling of stride s and padding p has a = s, b = (k - 1) / 2 - p; its transpose
with crop p the inverse, a = 1 / s, b = (p - (k - 1) / 2) / s; a crop of c, a = 1, b = c. Composed down to the picture,
two layers of the same a are aligned by cropping (b₂ - b₁) / a. For the published networks that gives 19 (FCN-32s),
5 and 27 (FCN-16s), 5, 9 and 31 (FCN-8s), the numbers in their authors' later files.
"""

from __future__ import annotations

from dataclasses import replace

from fcnedge.runtime.errors import UserError

from .layer_graph import Convolution, Crop, Deconvolution, Layer, LayerGraph, Pool

_WHOLE_PIXEL = 1e-6
_Place = tuple[tuple[float, float], tuple[float, float]]
"""(a, b) for rows and for columns."""


def aligned_crops(graph: LayerGraph) -> LayerGraph:
    """`graph` with a number of pixels for every crop that has none. Raises UserError where pixels cannot be aligned."""
    places: dict[str, _Place] = {graph.input: ((1.0, 0.0), (1.0, 0.0))}
    layers = []
    for layer in graph.layers:
        if isinstance(layer, Crop) and layer.before is None:
            layer = replace(layer, before=_offsets(layer, places[layer.inputs[0]], places[layer.inputs[1]]))
        own = _own(layer)
        rows, columns = (_composed(outer, inner) for outer, inner in zip(places[layer.inputs[0]], own, strict=True))
        places[layer.output] = rows, columns
        layers.append(layer)
    return replace(graph, layers=tuple(layers))


def _offsets(layer: Crop, first: _Place, second: _Place) -> tuple[int, int]:
    offsets = []
    for (a, b), (other_a, other_b) in zip(first, second, strict=True):
        offset = (other_b - b) / a
        if a != other_a or abs(offset - round(offset)) > _WHOLE_PIXEL or offset < 0:
            raise UserError(
                f"the crop {layer.name} cannot align its inputs: pixels {a:g} apart, {offset:g} pixels off, with "
                f"pixels {other_a:g} apart."
            )
        offsets.append(round(offset))
    return offsets[0], offsets[1]


def _own(layer: Layer) -> _Place:
    """A layer's own map from output to (first) input."""
    rows, columns = ((1.0, 0.0), (1.0, 0.0))
    if isinstance(layer, (Convolution, Pool)):
        kernel = layer.filters.shape[:2] if isinstance(layer, Convolution) else layer.kernel
        dilation = layer.dilation if isinstance(layer, Convolution) else (1, 1)
        reach = [(side - 1) * step for side, step in zip(kernel, dilation, strict=True)]
        rows, columns = ((float(layer.stride[i]), reach[i] / 2 - layer.pads[2 * i]) for i in (0, 1))
    elif isinstance(layer, Deconvolution):
        rows, columns = (
            (1 / layer.stride[i], (layer.crop[2 * i] - (layer.filters.shape[i] - 1) / 2) / layer.stride[i])
            for i in (0, 1)
        )
    elif isinstance(layer, Crop) and layer.before is not None:
        rows, columns = (1.0, float(layer.before[0])), (1.0, float(layer.before[1]))
    return rows, columns


def _composed(outer: tuple[float, float], inner: tuple[float, float]) -> tuple[float, float]:
    return outer[0] * inner[0], outer[0] * inner[1] + outer[1]
