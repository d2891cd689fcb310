"""Names of the fused graph: those of the Keras layers, whatever the converter called them.

tf2onnx numbers what it rewrites (`Conv__264`, `const_fold_opt__542`), differently from release to release. Ranges,
sensitivity tables and TensorRT's layer reports name tensors, and ranges must fit a graph that another machine built.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import onnx_ir as ir

_INPUT_SLOTS = {
    "Conv": ("x", "weight", "bias"),
    "ConvTranspose": ("x", "weight", "bias"),
    "Clip": ("x", "min", "max"),
}
_WEIGHT_SLOT = 1
_WEIGHTED = ("Conv", "ConvTranspose")


def name_layers(graph: ir.Graph, layers: Collection[str]) -> None:
    """Name, in place, every node after its Keras layer, its output after the node, its constants after both.

    layers: names of the Keras model's layers. The first node of a layer takes its name, others add what they do
    (`conv1_1`, `conv1_1.relu`); a node of no layer is called by what it does and a number (`transpose_0`), unless it
    has a name without the converter's marks. Inputs and outputs of the graph keep their names.
    """
    kept = {value.name for value in (*graph.inputs, *graph.outputs)}
    names: set[str | None] = set(kept)
    nodes = list(graph)
    for number, node in enumerate(nodes):  # out of the way: a wanted name may be another's old one
        node.name = f"{node.name or node.op_type}\0{number}"
        for value in (*node.outputs, *_constants(node)):
            if value.name not in kept:
                value.name = f"{value.name}\0{id(value)}"
    named_constants: set[int] = set()
    for node in nodes:
        node.name = _unique(_wanted(node, layers, names), names)
        for value in node.outputs:
            if value.name not in kept:
                value.name = node.name if len(node.outputs) == 1 else _unique(f"{node.name}.{value.index()}", names)
        slots = _INPUT_SLOTS.get(node.op_type, ())
        for index, value in enumerate(node.inputs):
            if value is not None and value.is_initializer() and id(value) not in named_constants:
                slot = slots[index] if index < len(slots) else f"input{index}"
                value.name = _unique(f"{node.name}.{slot}", names)
                named_constants.add(id(value))


def _wanted(node: ir.Node, layers: Collection[str], taken: set[str | None]) -> str:
    own = _old(node.name)
    sources = [own]
    weight = node.inputs[_WEIGHT_SLOT] if node.op_type in _WEIGHTED else None
    if weight is not None:  # the converter calls a convolution by what it merged into it; equal weights are shared
        sources.insert(0 if len(weight.consumers()) == 1 else 1, _old(weight.name))
    for text in sources:
        layer = _layer_in(text, layers)
        if layer is not None:
            return layer if layer not in taken else f"{layer}.{node.op_type.lower()}"
    marked = own == node.op_type or "__" in own or not re.fullmatch(r"[A-Za-z]\w*", own)
    return node.op_type.lower() if marked else own


def _layer_in(text: str, layers: Collection[str]) -> str | None:
    """The longest layer name that `text` holds as a whole part; Keras may have added `_1` to it, and we `weight_`."""
    found = [
        layer for layer in layers if re.search(rf"(?:^|[:./]|weight_){re.escape(layer)}(?:_\d+)?(?:[/.:]|$)", text)
    ]
    return max(found, key=len, default=None)


def _unique(name: str, taken: set[str | None]) -> str:
    unique, number = name, 1
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    taken.add(unique)
    return unique


def _old(name: str | None) -> str:
    return (name or "").split("\0")[0]


def _constants(node: ir.Node) -> list[ir.Value]:
    """Initialisers that `node` reads and that still bear their old names."""
    constants = [value for value in node.inputs if value is not None and value.is_initializer()]
    return [value for value in constants if "\0" not in (value.name or "")]
