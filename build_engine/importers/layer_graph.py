"""A neutral description of an FCN, which the readers of MatConvNet and Caffe files produce and Keras is built from.

Layouts are NumPy's (rows, columns, …): filters of a convolution (h, w, in / groups, out), of a deconvolution
(h, w, out / groups, in), both as cross-correlation and its transpose, unflipped. Pairs are (rows, columns), pads and
crops (top, bottom, left, right), all in pixels of the layer's own input or output.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from fcnedge.runtime.errors import UserError

Pair = tuple[int, int]
Sides = tuple[int, int, int, int]
NO_SIDES: Sides = (0, 0, 0, 0)
_LEAST = {"stride": 1, "dilation": 1, "kernel": 1, "groups": 1, "pads": 0, "crop": 0, "before": 0}
_MOST = 1 << 20
"""Settings of all kinds of layer, each a number or several: beyond these no network was ever trained."""


@dataclass(frozen=True)
class Layer:
    """One layer: the names of what it reads and of what it writes. A layer may write what it reads (in place).

    Raises UserError for settings that no layer of its kind can have.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    least_inputs: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if len(self.inputs) < self.least_inputs:
            raise UserError(
                f"the layer {self.name} cannot be built: it reads {_listed(self.inputs)}, expected {self.least_inputs} "
                "or more inputs; save the network again."
            )
        for setting, least in _LEAST.items():
            given = getattr(self, setting, None)
            numbers = given if isinstance(given, tuple) else () if given is None else (given,)
            if any(not least <= number <= _MOST for number in numbers):
                raise UserError(
                    f"the layer {self.name} cannot be built: its {setting} is {given}, expected {least} to {_MOST}; "
                    "save the network again."
                )


@dataclass(frozen=True)
class Convolution(Layer):
    """Cross-correlation. filters: (h, w, in / groups, out) float32; bias: (out,) float32 or None.

    groups: None where the file leaves it to the shapes of input and filters.
    """

    filters: np.ndarray = field(repr=False)
    bias: np.ndarray | None = field(repr=False)
    stride: Pair = (1, 1)
    pads: Sides = NO_SIDES
    dilation: Pair = (1, 1)
    groups: int | None = None


@dataclass(frozen=True)
class Deconvolution(Layer):
    """Transposed convolution, then `crop` off its output. filters: (h, w, out / groups, in) float32."""

    filters: np.ndarray = field(repr=False)
    bias: np.ndarray | None = field(repr=False)
    stride: Pair = (1, 1)
    crop: Sides = NO_SIDES
    groups: int = 1


@dataclass(frozen=True)
class Pool(Layer):
    """Maximum (or mean) over a window, of which only the part inside the padded input's own pixels counts.

    ceil: a last window that reaches beyond the padding counts too, as in Caffe.
    """

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    pads: Sides = NO_SIDES
    mean: bool = False
    ceil: bool = False


@dataclass(frozen=True)
class Relu(Layer):
    """max(x, slope · x)."""

    slope: float = 0.0


@dataclass(frozen=True)
class Crop(Layer):
    """Cut the first input to the size of the second: `before` pixels off the top and the left, the rest opposite.

    at_most: where less than `before` is to be taken away, take that, as MatConvNet does; else that is an error.
    before: None for as many as lay the first input's pixels over the second's (coordinates.py finds them).
    """

    least_inputs: ClassVar[int] = 2

    before: Pair | None = (0, 0)
    at_most: bool = False


@dataclass(frozen=True)
class Scale(Layer):
    """factor · x + shift, each (channels,) or (1,) float32."""

    factor: np.ndarray = field(repr=False)
    shift: np.ndarray | None = field(repr=False)


@dataclass(frozen=True)
class Sum(Layer):
    """All inputs, added."""


@dataclass(frozen=True)
class Softmax(Layer):
    """Over the channels."""


@dataclass(frozen=True)
class Same(Layer):
    """The input itself: dropout, which does nothing after training, and Caffe's Split."""


@dataclass(frozen=True)
class LayerGraph:
    """Layers in the order they run, the name of the picture that they start from and of the scores they end in."""

    name: str
    layers: tuple[Layer, ...]
    input: str
    output: str

    def through(self, output: str) -> LayerGraph:
        """Only the layers that `output` needs."""
        needed, kept = {output}, []
        for layer in reversed(self.layers):
            if layer.output in needed:
                if layer.output not in layer.inputs:
                    needed.remove(layer.output)  # what is written earlier under this name is another value
                needed.update(layer.inputs)
                kept.append(layer)
        return replace(self, layers=tuple(reversed(kept)), output=output)


def connect(name: str, layers: tuple[Layer, ...], wanted: str | None = None) -> LayerGraph:
    """The graph of `layers` with its one input and its one output; wanted: the output's name (or its layer's), or None.

    Raises UserError when there is not one of each.
    """
    written: set[str] = set()
    inputs: list[str] = []
    read: set[str] = set()
    for layer in layers:
        inputs += [value for value in layer.inputs if value not in written and value not in inputs]
        read.update(value for value in layer.inputs if value != layer.output)
        written.add(layer.output)
    if len(inputs) != 1:
        raise UserError(f"{name} reads {_listed(inputs)} where one picture is expected; its layers do not connect.")
    unread = [value for value in dict.fromkeys(layer.output for layer in layers) if value not in read]
    copies = {layer.output: layer.inputs[0] for layer in layers if isinstance(layer, Same)}
    outputs = [value for value in dict.fromkeys(_copied(value, copies) for value in unread) if value != inputs[0]]
    if wanted is not None:
        outputs = [layer.output for layer in layers if wanted in (layer.output, layer.name)][-1:]
        if not outputs:
            raise UserError(f"{name} has no output {wanted}; its last is {layers[-1].output}.")
    if len(outputs) != 1:
        raise UserError(f"{name} has the outputs {_listed(outputs)}; choose the scores with --output-name.")
    return LayerGraph(name, layers, inputs[0], outputs[0]).through(outputs[0])


def _copied(value: str, copies: dict[str, str]) -> str:
    """What `value` is a copy of: Caffe splits scores between losses that are not read here."""
    while copies.get(value, value) != value:
        value = copies[value]
    return value


def class_count(graph: LayerGraph) -> int | None:
    """Channels of the output; None when no layer with filters leads to it."""
    value = graph.output
    for layer in reversed(graph.layers):
        if layer.output != value:
            continue
        if isinstance(layer, Convolution):
            return layer.filters.shape[3]
        if isinstance(layer, Deconvolution):
            return layer.filters.shape[2] * layer.groups
        value = layer.inputs[0]
    return None


def stride_name(graph: LayerGraph) -> str:
    """`fcn8s`: named, as the paper does, by the stride of the last deconvolution; "" for none."""
    last = next((layer for layer in reversed(graph.layers) if isinstance(layer, Deconvolution)), None)
    return "" if last is None or last.stride[0] != last.stride[1] else f"fcn{last.stride[0]}s"


def _listed(names: Collection[str]) -> str:
    return ", ".join(names) or "nothing"
