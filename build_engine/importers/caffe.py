"""Caffe networks in .caffemodel files, without Caffe: fcn8s-heavy-pascal.caffemodel and its sisters.

A snapshot holds the layers of the network that was trained, with their settings and weights. Field numbers are those of
caffe.proto (BVLC Caffe 1.0) for `layer` and, in files from before 2015, V1 `layers`, whose type is a number.
"""

from __future__ import annotations

import logging
import math
import mmap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.preprocessing import Preprocessing

from . import layer_graph as graphs
from .coordinates import aligned_crops
from .origin import FileFacts, Origin, checked_count
from .protobuf_wire import Message, WireError

_LOG = logging.getLogger(__name__)
_LAYER, _V1_LAYERS = 100, 2
_MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)
"""What every FCN that its authors published subtracts (fcn.berkeleyvision.org); a snapshot does not hold its mean."""
_V1_TYPES = {
    4: "Convolution", 39: "Deconvolution", 17: "Pooling", 18: "ReLU", 6: "Dropout", 25: "Eltwise", 20: "Softmax",
    22: "Split", 40: "Crop", 14: "InnerProduct", 1: "Accuracy", 21: "SoftmaxWithLoss", 36: "Silence",
}  # fmt: skip
_PLAIN = {"Dropout": graphs.Same, "Split": graphs.Same, "Softmax": graphs.Softmax}


@dataclass(frozen=True)
class _Fields:
    """Where a layer's parts are; `params` by type of layer."""

    name: int
    type: int
    bottom: int
    top: int
    blobs: int
    params: dict[str, int]


_NEW = _Fields(1, 2, 3, 4, 7, {
    "Convolution": 106, "Deconvolution": 106, "Pooling": 121, "Eltwise": 110, "Crop": 144, "ReLU": 123, "Scale": 142,
})  # fmt: skip
_V1 = _Fields(4, 5, 2, 3, 6, {"Convolution": 10, "Deconvolution": 10, "Pooling": 19, "Eltwise": 24, "ReLU": 30})


def describe(origin: Origin) -> FileFacts:
    """What the file says about itself; its weights are not read. Raises UserError."""
    graph = _graph(origin)
    classes = checked_count(origin.path, graphs.class_count(graph))
    return FileFacts(arch=f"caffe {graphs.stride_name(graph)}".strip(), class_count=classes)


def load(origin: Origin, size: tuple[int, int] | None) -> tuple[Any, Preprocessing]:
    """The Keras model that the file describes, built at `size` (height, width), and its preprocessing.

    Raises UserError.
    """
    from .keras_builder import build_layers
    from .same_padding import same_padded

    assert size is not None, "pads and crops are of one size"
    graph = _graph(origin)
    if origin.mean is None:
        _LOG.info("a .caffemodel holds no mean: that of the published FCNs is subtracted; set another with --mean.")
    default = Preprocessing("bgr", _MEAN_BGR, (1.0, 1.0, 1.0))
    return build_layers(same_padded(graph) if origin.padding == "same" else graph, size), origin.preprocessing(default)


def _graph(origin: Origin) -> graphs.LayerGraph:
    path = origin.path
    try:
        net = Message(_mapped(path))
        fields, messages = (_NEW, net.messages(_LAYER)) if net.has(_LAYER) else (_V1, net.messages(_V1_LAYERS))
        layers: list[graphs.Layer] = []
        ignored: set[str] = set()
        for message in messages:
            layers += _layers(path, message, fields, ignored)
    except WireError as error:
        raise UserError(f"{path} is not a .caffemodel file, or a damaged one ({error}); copy it again.") from error
    if not any(isinstance(layer, graphs.Convolution) for layer in layers):
        raise UserError(f"{path} holds no Caffe network with convolutions; check what it is.")
    return aligned_crops(graphs.connect(path.name, tuple(layers), origin.output_name))


def _mapped(path: Path) -> memoryview:
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise UserError(f"{path} cannot be read ({error}); check the path.") from error


def _layers(path: Path, message: Message, fields: _Fields, ignored: set[str]) -> list[graphs.Layer]:
    """What one of Caffe's layers is here; nothing for data, labels and losses. ignored: values that are no picture."""
    name = (message.texts(fields.name) or [""])[-1]
    types = message.texts(fields.type) if fields is _NEW else [_V1_TYPES.get(message.integer(fields.type, 0), "")]
    kind = types[-1] if types else ""
    inputs, outputs = tuple(message.texts(fields.bottom)), message.texts(fields.top)
    if not inputs or set(inputs) <= ignored:  # a data layer's first top is the picture
        ignored.update(outputs if inputs else outputs[1:])
        return []
    if kind.endswith("Loss") or kind in ("Accuracy", "Silence"):
        return []
    if kind == "InnerProduct":
        raise UserError(f"{path} has the fully connected layer {name}, as classifiers have; only FCNs are read.")
    if not outputs:
        raise UserError(f"{path}: the layer {name} has no output; the file is damaged.")
    if kind in _PLAIN:
        return [_PLAIN[kind](name, inputs, output) for output in outputs]
    read = _READERS.get(kind)
    if read is None:
        known = ", ".join((*_READERS, *_PLAIN))
        raise UserError(f"{path}: the layer {name} is a {kind or 'layer of unknown type'}; fcnedge reads {known}.")
    params = (message.messages(fields.params.get(kind, -1)) or [Message(memoryview(b""))])[-1]
    return [read(_Settings(path, graphs.Layer(name, inputs, outputs[0]), params, message.messages(fields.blobs)))]


@dataclass(frozen=True)
class _Settings:
    """A layer's parameters by field number, and its blobs."""

    path: Path
    base: graphs.Layer
    params: Message
    blobs: list[Message]

    def pair(self, both: int, rows: int, columns: int, default: int) -> graphs.Pair:
        """(rows, columns) from a repeated field, or from one field each."""
        if rows and self.params.has(rows, columns):
            return self.params.integer(rows, default), self.params.integer(columns, default)
        values = self.params.integers(both) or [default]
        if len(values) > 2:
            raise self.error(f"a setting has {len(values)} numbers for rows and columns")
        return values[0], values[-1]

    def blob(self, index: int, rank: int) -> np.ndarray:
        """A weight of `rank` axes, float32, a view of the file. Raises UserError."""
        if index >= len(self.blobs):
            raise self.error(f"it holds {len(self.blobs)} weights, expected {index + 1}; save the trained network")
        blob = self.blobs[index]
        data = blob.floats(5) if blob.has(5) else blob.floats(8, "<f8")
        shape = blob.messages(7)[-1].integers(1) if blob.has(7) else [blob.integer(field, 1) for field in (1, 2, 3, 4)]
        if math.prod(shape) != data.size:
            raise self.error(f"a weight has {data.size} numbers, its shape {tuple(shape)} needs {math.prod(shape)}")
        missing, last = rank - len(shape), len(shape) - rank + 1  # a bias of old files has (1, 1, 1, n)
        return data.reshape([1] * missing + shape if missing > 0 else [math.prod(shape[:last]), *shape[last:]])

    def filters_and_bias(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Caffe's (a, b, h, w) as (h, w, b, a), the layout of layer_graph for both kinds of convolution."""
        filters = self.blob(0, 4).transpose(2, 3, 1, 0)
        return filters, self.blob(1, 1) if self.params.integer(2, 1) else None

    def error(self, reason: str) -> UserError:
        return UserError(f"{self.path}: the layer {self.base.name} cannot be read: {reason}.")


def _convolution(layer: _Settings) -> graphs.Layer:
    filters, bias = layer.filters_and_bias()
    (top, left), groups = layer.pair(3, 9, 10, 0), layer.params.integer(5, 1)
    if bias is not None and bias.size != filters.shape[3]:
        raise layer.error(f"its bias has {bias.size} numbers for {filters.shape[3]} filters")
    return graphs.Convolution(
        **vars(layer.base),
        filters=filters,
        bias=bias,
        stride=layer.pair(6, 13, 14, 1),
        pads=(top, top, left, left),
        dilation=layer.pair(18, 0, 0, 1),
        groups=groups,
    )


def _deconvolution(layer: _Settings) -> graphs.Layer:
    filters, bias = layer.filters_and_bias()
    (top, left), groups = layer.pair(3, 9, 10, 0), layer.params.integer(5, 1)
    if layer.pair(18, 0, 0, 1) != (1, 1):
        raise layer.error("its deconvolution is dilated")
    if bias is not None and bias.size != filters.shape[2] * groups:
        raise layer.error(f"its bias has {bias.size} numbers for {filters.shape[2] * groups} channels")
    stride = layer.pair(6, 13, 14, 1)
    return graphs.Deconvolution(
        **vars(layer.base), filters=filters, bias=bias, stride=stride, crop=(top, top, left, left), groups=groups
    )


def _pool(layer: _Settings) -> graphs.Layer:
    method, (top, left) = layer.params.integer(1, 0), layer.pair(4, 9, 10, 0)
    if method not in (0, 1) or layer.params.integer(12, 0):
        raise layer.error("it pools at random or over the whole picture")
    return graphs.Pool(
        **vars(layer.base),
        kernel=layer.pair(2, 5, 6, 1),
        stride=layer.pair(3, 7, 8, 1),
        pads=(top, top, left, left),
        mean=method == 1,
        ceil=layer.params.integer(13, 0) == 0,
    )


def _sum(layer: _Settings) -> graphs.Layer:
    if layer.params.integer(1, 1) != 1 or np.any(layer.params.floats(2) != 1):
        raise layer.error("it multiplies, compares or weights its inputs; only plain sums are read")
    return graphs.Sum(**vars(layer.base))


def _crop(layer: _Settings) -> graphs.Layer:
    """`Crop` of Caffe 1.0 says its offsets; the older one, without settings, aligns its inputs itself."""
    if not layer.params.has():
        return graphs.Crop(**vars(layer.base), before=None)
    if layer.params.integer(1, 2) != 2:
        raise layer.error("it crops more than rows and columns")
    return graphs.Crop(**vars(layer.base), before=layer.pair(2, 0, 0, 0))


def _relu(layer: _Settings) -> graphs.Layer:
    return graphs.Relu(**vars(layer.base), slope=float(layer.params.floats(1)[-1]) if layer.params.has(1) else 0.0)


def _scale(layer: _Settings) -> graphs.Layer:
    if layer.params.integer(1, 1) != 1 or len(layer.base.inputs) != 1:
        raise layer.error("it does not scale channels")
    return graphs.Scale(
        **vars(layer.base), factor=layer.blob(0, 1), shift=layer.blob(1, 1) if layer.params.integer(4, 0) else None
    )


_READERS: dict[str, Callable[[_Settings], graphs.Layer]] = {
    "Convolution": _convolution,
    "Deconvolution": _deconvolution,
    "Pooling": _pool,
    "ReLU": _relu,
    "Eltwise": _sum,
    "Crop": _crop,
    "Scale": _scale,
}
