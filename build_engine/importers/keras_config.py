"""A Keras model's description as data: what in it is code, what Keras does not know, its input, its classes.

All of this is read before anything is deserialised. Descriptions of Keras 3 tell each object's module, those of Keras 2
(.h5) its class alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fcnedge.runtime.errors import UserError

_CODE = {
    "Lambda": "Python code",
    "__lambda__": "Python code",
    "TorchModuleWrapper": "a pickled PyTorch module",
    "JaxLayer": "Python code",
    "FlaxLayer": "Python code",
    "TFSMLayer": "another program's folder",
    "StringLookup": "the name of another file",
    "IntegerLookup": "the name of another file",
    "TextVectorization": "the name of another file",
}
_KERAS_MODULES = ("keras.src.ops.", "keras.src.models.", "keras.src.layers.")
_NAMESPACES = ("layers", "models", "initializers", "regularizers", "constraints", "dtype_policies")
_UNGROUPED = ("DepthwiseConv2D", "Conv2DTranspose", "SeparableConv2D")
_INPUT_SHAPES = ("batch_shape", "batch_input_shape")
_MODELS = ("Functional", "Model", "Sequential")


def objects(node: Any) -> Iterator[dict[str, Any]]:
    """Every serialised object in a description, at any depth; what belongs to training is left out."""
    if isinstance(node, dict):
        if isinstance(node.get("class_name"), str):
            yield node
        for key, value in node.items():
            if key != "compile_config":
                yield from objects(value)
    elif isinstance(node, list):
        for value in node:
            yield from objects(value)


def refuse_code(path: Path, config: dict[str, Any]) -> None:
    """Raise UserError naming every object that is code or that is none of Keras's own, as far as its module tells."""
    found = [each for each in objects(config) if each["class_name"] in _CODE]
    if found:
        named = ", ".join(dict.fromkeys(f"{_named(each)} ({_CODE[each['class_name']]})" for each in found))
        raise UserError(
            f"{path} holds what would be run or opened when it is loaded: {named}; fcnedge loads data only, so write "
            "these layers with Keras's own (Rescaling, Resizing, keras.ops) and save the model again."
        )
    _refuse_unknown(path, [_named(each) for each in objects(config) if _is_foreign(each)])


def refuse_unknown(path: Path, config: dict[str, Any]) -> None:
    """The same for names that this Keras does not know; loads Keras."""
    import keras

    spaces = [getattr(keras, name) for name in _NAMESPACES if hasattr(keras, name)] + [keras]
    unknown = []
    for each in objects(config):
        name, module = each["class_name"], each.get("module") or ""
        if not (
            name.startswith("__") or name in ("Functional", "Policy") or module.startswith("keras.src.")
        ) and not any(hasattr(space, name) for space in spaces):
            unknown.append(_named(each))
        activation = each["config"].get("activation") if isinstance(each.get("config"), dict) else None
        if isinstance(activation, str) and not hasattr(keras.activations, activation):
            unknown.append(f"{activation}, the activation of {_named(each)}")
    _refuse_unknown(path, unknown)


def _refuse_unknown(path: Path, names: list[str]) -> None:
    if names:
        raise UserError(
            f"{path} uses what Keras does not have: {', '.join(dict.fromkeys(names))}; build the model of Keras's own "
            "layers and save it again, or export it to ONNX where that code is at hand."
        )


def _is_foreign(each: dict[str, Any]) -> bool:
    module, name = each.get("module"), each["class_name"]
    if name == "function" or ">" in name or ">" in str(each.get("registered_name") or ""):
        return True
    if "module" not in each or name.startswith("__"):
        return False
    if module is None or not (module == "keras" or module.startswith("keras.") or module == "builtins"):
        return True
    return module.startswith("keras.src.") and not f"{module}.".startswith(_KERAS_MODULES)


def _named(each: dict[str, Any]) -> str:
    inner = each.get("config")
    if each["class_name"] == "function":
        return f"the function {inner}"
    name = inner.get("name") if isinstance(inner, dict) else None
    return each["class_name"] if name is None else f"{each['class_name']} {name!r}"


def layers_of(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The layers of a functional or sequential model."""
    return [layer for layer in config["config"].get("layers", []) if isinstance(layer, dict)]


def is_layered(config: dict[str, Any]) -> bool:
    """Whether the description lists layers, so that no class of the user's is needed to build the model."""
    return config["class_name"] in _MODELS and bool(layers_of(config))


def output_names(config: dict[str, Any]) -> list[str]:
    """Names of the layers that a model gives out."""
    if config["class_name"] == "Sequential":
        return [layers_of(config)[-1]["config"]["name"]]
    return _names(config["config"].get("output_layers"))


def input_shapes(config: dict[str, Any]) -> list[list[int | None]]:
    """(N, H, W, C) of every input; None for a side that is free."""
    inputs = _names(config["config"].get("input_layers"))
    found = []
    for index, layer in enumerate(layers_of(config)):
        own = layer.get("config", {})
        if (own.get("name") in inputs) if inputs else index == 0:
            found += [own[key] for key in _INPUT_SHAPES if own.get(key)]
    return found


def class_count(config: dict[str, Any], output: str | None) -> int | None:
    """Filters of the last convolution before an output, through layers that keep the classes; None if unclear."""
    layers = layers_of(config)
    by_name = {layer["config"].get("name"): layer for layer in layers}
    before = {
        layer["config"].get("name"): earlier["config"].get("name") for earlier, layer in itertools.pairwise(layers)
    }
    name = output if output in by_name else (output_names(config) or [None])[0]
    for _ in layers:
        layer = by_name.get(name)
        if layer is None or layer["class_name"] == "Concatenate":
            return None
        if isinstance(layer["config"].get("filters"), int):
            return layer["config"]["filters"]
        if is_layered(layer):
            return class_count(layer, None)
        if config["class_name"] == "Sequential":
            name = before.get(name)
        else:
            name = next(_sources(layer.get("inbound_nodes")), None)
    return None


def prepared(config: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """`config` in float32 with inputs of `size` (height, width), and without what Keras 2 alone writes."""
    own = [tuple(shape[1:3]) for shape in input_shapes(config)]
    free_inner = any(side != size and side != (None, None) for side in own)
    changed = _prepared(config, free_inner)
    for shape in input_shapes(changed):
        shape[0:3] = [None, *size]
    return changed


def _prepared(node: Any, free: bool) -> Any:
    if isinstance(node, list):
        return [_prepared(value, free) for value in node]
    if not isinstance(node, dict):
        return node
    changed = {key: _prepared(value, free) for key, value in node.items() if key != "compile_config"}
    if _precision(changed.get("dtype")):
        changed["dtype"] = "float32"
    inner = changed.get("config")
    if isinstance(inner, dict):
        if node.get("class_name") == "InputLayer":
            inner["dtype"] = "float32"
        if node.get("class_name") in _UNGROUPED and inner.get("groups") == 1:
            del inner["groups"]
    for key in _INPUT_SHAPES:
        if free and isinstance(changed.get(key), list) and len(changed[key]) == 4:
            changed[key][1:3] = [None, None]
    return changed


def reduced_precision(config: dict[str, Any]) -> str | None:
    """The first dtype policy of layers that is not float32, None when all are."""
    return next((found for each in objects(config) if (found := _precision_of(each))), None)


def _precision_of(each: dict[str, Any]) -> str | None:
    inner = each.get("config")
    return _precision(inner.get("dtype")) if isinstance(inner, dict) else None


def _precision(dtype: Any) -> str | None:
    """`mixed_float16` of a dtype or policy in any spelling; None for float32 and for what is no float."""
    if isinstance(dtype, dict) and isinstance(dtype.get("config"), dict):
        dtype = dtype["config"].get("name")
    return dtype if isinstance(dtype, str) and "float" in dtype and dtype != "float32" else None


def _names(layers: Any) -> list[str]:
    """Layer names out of `[name, 0, 0]`, `[[name, 0, 0], …]` or a dict of these."""
    if isinstance(layers, dict):
        layers = list(layers.values())
    if not isinstance(layers, list) or not layers:
        return []
    return [str(layers[0])] if isinstance(layers[0], str) else [name for layer in layers for name in _names(layer)]


def _sources(node: Any) -> Iterator[str]:
    """Names of the layers that an inbound node reads, as Keras 3 or Keras 2 writes them."""
    if isinstance(node, dict):
        history = node.get("keras_history")
        if isinstance(history, list) and history:
            yield str(history[0])
        for value in node.values():
            yield from _sources(value)
    elif isinstance(node, list):
        if len(node) >= 3 and isinstance(node[0], str) and isinstance(node[1], int):
            yield node[0]
        for value in node:
            yield from _sources(value)
