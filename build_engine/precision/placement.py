"""Which convolutions run in INT8, and which tensors carry the Q/DQ pairs that make them.

Rules, after "Explicit Quantization" in TensorRT's documentation:

- A convolution runs in INT8 when its input and its weight both come from a DequantizeLinear. Its output gets no pair
  of its own: activation and bias fuse into the convolution, and the next layer's QuantizeLinear after them.
- In a residual sum the convolution takes the addition into its epilogue when the *other* branch is INT8 too, so that
  branch gets a pair. A pair between convolution and sum would part them.
- Taking the maximum and rounding commute, so a pair that only serves readers of a max pooling goes in front of it: the
  pooling then moves a quarter of the bytes. Where another layer reads the pooled tensor in float it stays behind.
- Readers of one tensor share its pair: their scale is the same.

Left in float unless asked for: the first convolution (three channels of raw pixels, little work, much damage), and the
score layers, after which comes no other convolution to round their error away. Deconvolutions always: Q/DQ on
ConvTranspose is broken or slow before TensorRT 8.5 and ambiguous about the axis after it. Depthwise convolutions as the
reader of the graph wants them (variant.py).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir

from fcnedge.runtime.errors import UserError

from ..fusion.graph import integer, is_constant, shape_of, sole_consumer
from .float32_layers import node_names

BY_NAME = "excluded by name."
NOT_ASKED = "not among the layers asked for."
STEM = "the first convolution reads the picture itself."
DEPTHWISE = "depthwise convolutions were to stay in float."
SCORE = "a score layer: no convolution follows that could round its error away."
DECONVOLUTION = "deconvolutions stay in float."
COMPUTED = "its weight or bias is computed at run time."


@dataclass(frozen=True)
class QuantisedInput:
    """One edge of the graph that reads its tensor through a Q/DQ pair: input number `index` of `node`."""

    tensor: str
    node: str
    index: int


@dataclass(frozen=True)
class QuantisedLayer:
    """A convolution in INT8. tensor: whose pair its input comes through (in front of a max pooling, where one is)."""

    node: str
    tensor: str
    weight: str


@dataclass(frozen=True)
class Exclusion:
    """A convolution or deconvolution left in float, and why in one sentence."""

    node: str
    reason: str


@dataclass(frozen=True)
class Placement:
    """A plan for one graph. inputs: every edge with a pair; residuals: names of the sums that fuse in INT8."""

    layers: tuple[QuantisedLayer, ...]
    inputs: tuple[QuantisedInput, ...]
    residuals: tuple[str, ...]
    excluded: tuple[Exclusion, ...]

    @property
    def tensors(self) -> tuple[str, ...]:
        """Tensors with a Q/DQ pair, each once, in the order of the graph."""
        return tuple(dict.fromkeys(edge.tensor for edge in self.inputs))


def place(
    model: ir.Model,
    *,
    exclude: Collection[str] = (),
    only: Collection[str] | None = None,
    stem: bool = False,
    depthwise: bool = True,
    scores: bool = False,
) -> Placement:
    """Plan the Q/DQ pairs of a fused float32 graph; changes nothing.

    exclude: names of convolutions to leave in float; only: of the ones to quantise, whatever they are, and no others;
    stem, depthwise, scores: whether to quantise these. Raises UserError for a name that is no convolution of this
    graph, is in both lists, or is asked for and has no constant weight.
    """
    node_names(model)
    convolutions = {str(node.name): node for node in model.graph if node.op_type == "Conv"}
    _check_names(convolutions, exclude, only)
    defaults = _default_exclusions(model.graph, stem=stem, depthwise=depthwise, scores=scores)
    excluded, chosen = [], []
    for node in model.graph:
        if node.op_type == "ConvTranspose":
            excluded.append(Exclusion(str(node.name), DECONVOLUTION))
        if node.op_type != "Conv":
            continue
        reason = _reason_against(node, exclude, only, defaults)
        if reason is None:
            chosen.append(node)
        else:
            excluded.append(Exclusion(str(node.name), reason))
    edges = {(node, 0) for node in chosen}
    residuals = _residual_edges(model.graph, chosen)
    edges |= set(residuals)
    pooled = _in_front_of_pools(model.graph, edges)
    return Placement(
        layers=tuple(QuantisedLayer(str(node.name), _source(node, pooled), _name(node, 1)) for node in chosen),
        inputs=_ordered(model.graph, edges),
        residuals=tuple(str(node.name) for node, _ in residuals),
        excluded=tuple(excluded),
    )


def _check_names(convolutions: dict[str, ir.Node], exclude: Collection[str], only: Collection[str] | None) -> None:
    for name in sorted({*exclude, *(only or ())}):
        if name not in convolutions:
            raise UserError(f"the graph has no convolution {name}; it has {', '.join(convolutions) or 'none at all'}.")
    for name in sorted(only or ()):
        if name in exclude:
            raise UserError(f"convolution {name} is both asked for and excluded; take it out of one of the two lists.")
        if _is_computed(convolutions[name]):
            raise UserError(f"convolution {name} cannot be quantised: {COMPUTED}")


def _reason_against(
    node: ir.Node, exclude: Collection[str], only: Collection[str] | None, defaults: dict[ir.Node, str]
) -> str | None:
    if node.name in exclude:
        return BY_NAME
    if _is_computed(node):
        return COMPUTED
    if only is not None:
        return None if node.name in only else NOT_ASKED
    return defaults.get(node)


def _is_computed(node: ir.Node) -> bool:
    return not all(value is None or is_constant(value) for value in node.inputs[1:])


def _default_exclusions(graph: ir.Graph, *, stem: bool, depthwise: bool, scores: bool) -> dict[ir.Node, str]:
    """Convolutions left alone unless their kind is asked for → the reason."""
    convolutions = [node for node in graph if node.op_type == "Conv"]
    reasons = {}
    if not scores:
        leading = _nodes_before_convolutions(graph)
        reasons.update((node, SCORE) for node in convolutions if node not in leading)
    if not depthwise:
        reasons.update((node, DEPTHWISE) for node in convolutions if _is_depthwise(node))
    if not stem and convolutions:
        reasons[convolutions[0]] = STEM
    return reasons


def _nodes_before_convolutions(graph: ir.Graph) -> set[ir.Node]:
    """All nodes from which a path leads to a convolution."""
    leading: set[ir.Node] = set()
    for node in reversed(graph):
        readers = [reader for value in node.outputs for reader in value.consumers()]
        if any(reader.op_type == "Conv" or reader in leading for reader in readers):
            leading.add(node)
    return leading


def _is_depthwise(node: ir.Node) -> bool:
    kernel = shape_of(node.inputs[1])
    return kernel is not None and kernel[1] == 1 and integer(node, "group", 1) > 1


def _residual_edges(graph: ir.Graph, chosen: list[ir.Node]) -> list[tuple[ir.Node, int]]:
    """For each sum that fuses into an INT8 convolution: (the sum, index of its other branch)."""
    order = {node: position for position, node in enumerate(chosen)}
    edges = []
    for node in graph:
        if node.op_type != "Add" or any(value is None or is_constant(value) for value in node.inputs):
            continue
        fusing = [
            (order[producer], index)
            for index, value in enumerate(node.inputs)
            if value is not None and (producer := value.producer()) in order and sole_consumer(value) is node
        ]
        if fusing:  # of two, the later one takes the sum: the other addend is ready when it starts
            edges.append((node, 1 - max(fusing)[1]))
    return edges


def _in_front_of_pools(graph: ir.Graph, edges: set[tuple[ir.Node, int]]) -> set[ir.Node]:
    """Move edges in front of each max pooling that only they read, in place; returns those poolings."""
    moved = set()
    for node in reversed(graph):
        readers = {(reader, index) for reader, index in node.outputs[0].uses()}
        if node.op_type == "MaxPool" and readers and readers <= edges and not node.outputs[0].is_graph_output():
            edges -= readers
            edges.add((node, 0))
            moved.add(node)
    return moved


def _source(node: ir.Node, pooled: set[ir.Node]) -> str:
    """Name of the tensor whose pair serves input 0 of `node`."""
    producer = node.inputs[0].producer() if node.inputs[0] is not None else None
    return _source(producer, pooled) if producer in pooled and producer is not None else _name(node, 0)


def _name(node: ir.Node, index: int) -> str:
    value = node.inputs[index]
    assert value is not None
    return str(value.name)


def _ordered(graph: ir.Graph, edges: set[tuple[ir.Node, int]]) -> tuple[QuantisedInput, ...]:
    return tuple(
        QuantisedInput(_name(node, index), str(node.name), index)
        for node in graph
        for index in range(len(node.inputs))
        if (node, index) in edges
    )
