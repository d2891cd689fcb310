"""Is this the network that the ranges were collected on? A fingerprint that a rebuild does not change.

A hash of the file would change with every library version that writes it. So the structure is hashed in a normal form
(operators, attributes, activations' names and sizes; constants by place and size, whole numbers by value), and each
float constant is represented by two numbers that rounding moves by a millionth and another training by far more.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fcnedge.runtime.errors import UserError

if TYPE_CHECKING:
    import onnx_ir as ir

WEIGHT_TOLERANCE = 1e-3
"""Two weights are the same when magnitude (relative) and projection (absolute) differ by no more than this."""

_NEGLIGIBLE = 1e-7  # a bias that is zero but for rounding has no direction to compare
_CHUNK = 1 << 20
_WINDOW_OPERATORS = ("Conv", "ConvTranspose", "MaxPool", "AveragePool")
_DEFAULT_ATTRIBUTES: dict[str, Callable[[Any], bool]] = {
    "auto_pad": lambda value: value == "NOTSET",
    "ceil_mode": lambda value: value == 0,
    "dilations": lambda value: set(value) == {1},
    "group": lambda value: value == 1,
    "output_padding": lambda value: set(value) == {0},
    "pads": lambda value: set(value) == {0},
    "storage_order": lambda value: value == 0,
    "strides": lambda value: set(value) == {1},
}


@dataclass(frozen=True)
class WeightPrint:
    """One float constant w in two numbers.

    magnitude: mean |w|; projection: w · r / (|w| |r|) * sqrt(n) for a fixed r of ±1, of the order of 1 for any w.
    """

    magnitude: float
    projection: float

    def equals(self, other: WeightPrint) -> bool:
        """Whether both are of the same weight, but for rounding."""
        larger = max(self.magnitude, other.magnitude)
        if larger <= _NEGLIGIBLE:
            return True
        same_size = abs(self.magnitude - other.magnitude) <= WEIGHT_TOLERANCE * larger
        return same_size and abs(self.projection - other.projection) <= WEIGHT_TOLERANCE


@dataclass(frozen=True)
class GraphFingerprint:
    """structure: SHA-256 of the graph's normal form; weights: by "OUTPUT input INDEX" of the node that reads them."""

    structure: str
    weights: dict[str, WeightPrint]

    def difference(self, other: GraphFingerprint) -> str | None:
        """What `other` has otherwise, in words ("the weight 'conv1 input 1' differs"); None when nothing."""
        missing = [name for name in self.weights if name not in other.weights]
        added = [name for name in other.weights if name not in self.weights]
        if missing or added:
            return f"its layers differ, {_shown(missing)} became {_shown(added)}"
        if self.structure != other.structure:
            return "its structure differs (layers, names or sizes)"
        changed = [name for name, weight in self.weights.items() if not weight.equals(other.weights[name])]
        if changed:
            return f"{len(changed)} of its {len(self.weights)} weights differ, first {changed[0]!r}"
        return None


def graph_fingerprint(model: ir.Model) -> GraphFingerprint:
    """Fingerprint of a fused graph with inferred shapes. Reads each weight once, a piece at a time.

    Raises UserError for a node that holds a graph of its own (If, Loop).
    """
    graph = model.graph
    nodes = [node for node in graph if node.op_type != "Constant"]
    ends = [["inputs", *map(_described, graph.inputs)], ["outputs", *map(_described, graph.outputs)]]
    # sorted: two library versions may order the same graph differently
    lines = sorted(json.dumps(_node(node)) for node in nodes) + [json.dumps(end) for end in ends]
    weights: dict[str, WeightPrint] = {}
    prints: dict[int, WeightPrint] = {}
    for node in nodes:
        for index, value in enumerate(node.inputs):
            tensor = constant_tensor(value)
            if tensor is not None and tensor.dtype.is_floating_point():
                if id(tensor) not in prints:
                    prints[id(tensor)] = _weight_print(tensor)
                weights[f"{node.outputs[0].name} input {index}"] = prints[id(tensor)]
    return GraphFingerprint(hashlib.sha256("\n".join(lines).encode()).hexdigest(), dict(sorted(weights.items())))


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor behind an initialiser or a Constant node's output; None for an activation."""
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value
    producer = value.producer()
    if producer is None or producer.op_type != "Constant":
        return None
    name, attribute = next(iter(producer.attributes.items()))
    if name == "value":
        return attribute.as_tensor()
    import onnx_ir as ir

    return ir.tensor(np.asarray(attribute.value, np.float32 if "float" in name else None))


def _node(node: ir.Node) -> list[Any]:
    window = node.op_type in _WINDOW_OPERATORS
    attributes = {}
    for name, attribute in sorted(node.attributes.items()):
        value = _attribute(node, attribute)
        default = _DEFAULT_ATTRIBUTES.get(name) if window else None
        # some exporters write defaults out; a convolution's kernel_shape is its weight's
        if (default is None or not default(value)) and not (name == "kernel_shape" and node.op_type.startswith("Conv")):
            attributes[name] = value
    inputs = [_input(value) for value in node.inputs]
    return [node.domain, node.op_type, attributes, inputs, [_described(value) for value in node.outputs]]


def _attribute(node: ir.Node, attribute: ir.Attr) -> Any:
    value: Any = attribute.value
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str | int):
        return value
    if isinstance(value, tuple | list) and all(isinstance(each, str | int | float) for each in value):
        return [f"{each:.6g}" if isinstance(each, float) else each for each in value]
    array = getattr(value, "numpy", None)
    if array is not None:
        return hashlib.sha256(np.ascontiguousarray(array()).tobytes()).hexdigest()
    raise UserError(
        f"the node {node.name} ({node.op_type}) holds a graph of its own in {attribute.name}; ranges cannot be "
        "collected inside it: build the model without."
    )


def _input(value: ir.Value | None) -> Any:
    tensor = constant_tensor(value)
    if tensor is None or value is None:
        return None if value is None else value.name
    shape = [int(side) for side in tensor.shape.numpy()]
    if tensor.dtype.is_floating_point():
        return [str(tensor.dtype), shape]
    return [str(tensor.dtype), shape, tensor.numpy().tolist()]


def _described(value: ir.Value) -> list[Any]:
    return [value.name, str(value.dtype), None if value.shape is None else [str(side) for side in value.shape]]


def _weight_print(tensor: ir.TensorProtocol) -> WeightPrint:
    try:
        flat = tensor.numpy().reshape(-1)
    except (OSError, ValueError) as error:  # a data file that is gone, too short, a link
        raise UserError(f"the weight {tensor.name!r} cannot be read ({error}); copy the model again.") from error
    signs = _signs(min(flat.size, _CHUNK))
    absolute = squares = projected = 0.0
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK].astype(np.float64)
        absolute += float(np.abs(chunk).sum())
        squares += float(np.square(chunk).sum())
        projected += float((chunk * signs[: chunk.size]).sum())
    norm = math.sqrt(squares)
    return WeightPrint(absolute / max(flat.size, 1), projected / norm if norm else 0.0)


def _signs(count: int) -> np.ndarray:
    """(count,) of ±1 without a pattern that a kernel's layout could share: a bit of Knuth's multiplicative hash."""
    hashed = np.arange(1, count + 1, dtype=np.uint32) * np.uint32(2654435761)
    return 1.0 - 2.0 * (hashed >> np.uint32(15) & np.uint32(1))


def _shown(names: list[str]) -> str:
    return f"{names[0]!r}" + (f" and {len(names) - 1} more" if len(names) > 1 else "") if names else "nothing"
