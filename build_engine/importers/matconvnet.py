"""MatConvNet's DagNN networks in .mat files: pascal-fcn32s-dag.mat, pascal-fcn8s-tvg-dag.mat and whatever is saved so.

Every number is read from the file: names, connections, pads, crops and upsampling factors. Sources: MatConvNet's
dagnn.DagNN (saveobj, loadobj), dagnn.Conv, ConvTranspose, Pooling and Crop, and its manual's section on padding.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.preprocessing import Preprocessing

from . import layer_graph as graphs
from .mat_file import read_mat
from .matconvnet_layers import READERS, Block, Shapes, Values, listed
from .matconvnet_meta import class_names, mean_rgb
from .origin import FileFacts, Origin, checked_count

_LOG = logging.getLogger(__name__)
_STRUCTURE, _WEIGHTS = ("layers", "meta", "net"), ("params",)
_OF_TRAINING = ("Loss", "SoftMaxLoss", "SegmentationLoss", "SegmentationAccuracy", "SegmentationLossLogistic")
_CLASSIFIER = "a SimpleNN network, a classifier; only DagNN segmentation networks such as pascal-fcn8s-dag.mat are read"


def describe(origin: Origin) -> FileFacts:
    """What the file says about itself; a file as published is read without its weights. Raises UserError."""
    net = _read_net(origin.path, weights=False)
    graph = _graph(origin, net, Shapes(net, lambda: _read_net(origin.path, weights=True)))
    names, count = class_names(net.get("meta")), checked_count(origin.path, graphs.class_count(graph))
    if names is not None and len(names) != count:  # a fine-tuned network may still name the 1000 of ImageNet
        names = None
    return FileFacts(f"matconvnet {graphs.stride_name(graph)}".strip(), names, count)


def load(origin: Origin, size: tuple[int, int] | None) -> tuple[Any, Preprocessing]:
    """The Keras model that the file describes, and its preprocessing.

    size: (height, width) in pixels; pads and crops depend on it. Raises UserError.
    """
    from .keras_builder import build_layers

    assert size is not None, "pads and crops are of one size"
    graph, default = read_graph(origin)
    return build_layers(graph, size), origin.preprocessing(default)


def read_graph(origin: Origin) -> tuple[graphs.LayerGraph, Preprocessing]:
    """All of the file, padded as `origin` wants it. Raises UserError, among others for a parameter that is missing."""
    from .same_padding import same_padded

    net = _read_net(origin.path, weights=True)
    graph = _graph(origin, net, Values(net))
    mean = mean_rgb(net.get("meta"))
    if mean is None and origin.mean is None:
        _LOG.info("%s has no mean, so none is subtracted; set it with --mean.", origin.path.name)
    default = Preprocessing("rgb", mean or (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return same_padded(graph) if origin.padding == "same" else graph, default


def _read_net(path: Path, *, weights: bool) -> dict[str, Any]:
    """The struct with `layers`, `params` and `meta`: the file itself, or its variable `net`."""
    found = read_mat(path, (*_STRUCTURE, *(_WEIGHTS if weights else ())))
    net = found if "layers" in found else found.get("net")
    if not isinstance(net, dict) or "layers" not in net:
        raise UserError(f"{path} holds no MatConvNet network: it has no variable layers, alone or in net; check it.")
    layers = listed(net["layers"])
    if not layers or not all(isinstance(layer, dict) for layer in layers):
        raise UserError(f"{path} holds no MatConvNet network: its layers are no structs; check what it is.")
    if not all({"name", "type", "inputs", "outputs", "params", "block"} <= layer.keys() for layer in layers):
        raise UserError(f"{path} is {_CLASSIFIER}.")
    return {**net, "layers": layers}


def _graph(origin: Origin, net: dict[str, Any], parameters: Values) -> graphs.LayerGraph:
    """The layers of `net` in the order they run, connected."""
    layers = []
    for struct in net["layers"]:
        named = {key: _names(origin, struct, key) for key in ("name", "type", "inputs", "outputs", "params")}
        name, kind = "".join(named["name"]), "".join(named["type"]).rpartition(".")[2]
        if kind in _OF_TRAINING:
            continue
        read = READERS.get(kind)
        if read is None:
            raise UserError(
                f"{origin.path}: the layer {name} is a {''.join(named['type'])}, which fcnedge cannot read; it reads "
                f"{', '.join(READERS)}."
            )
        outputs = named["outputs"]
        if len(outputs) != 1:
            raise UserError(f"{origin.path}: the layer {name} has {len(outputs)} outputs, expected one.")
        base = graphs.Layer(name, tuple(named["inputs"]), outputs[0])
        block = struct["block"] if isinstance(struct["block"], dict) else {}
        layers.append(read(Block(origin.path, base, block, named["params"]), parameters))
    if not layers:
        raise UserError(f"{origin.path} has no layer that computes scores; check what it is.")
    return graphs.connect(origin.path.name, tuple(layers), origin.output_name)


def _names(origin: Origin, struct: dict[str, Any], key: str) -> list[str]:
    """Text or a cell array of text in a layer's struct; an empty array, as MATLAB writes `[]`, is none."""
    value = struct[key]
    names = [] if isinstance(value, np.ndarray) and value.size == 0 else listed(value)
    if not all(isinstance(name, str) for name in names):
        raise UserError(f"{origin.path} holds a layer whose {key} is no text; save the network again.")
    return names
