"""Rule 7: reshapes that lead back to an earlier shape are dropped. Bit-exact.

Reshape, Squeeze, Unsqueeze and Flatten keep the order of the elements, so a chain of them is one reshape, and a chain
whose result has the shape of an earlier link *is* that link. Exporters leave them where a layout change met a tensor
of one pixel, (1, C, 1, 1) = (1, 1, 1, C), as after a global average pool.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from .graph import bypass, is_constant, shape_of
from .report import RuleLog, RuleReport

_VIEWS = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")


def reshape_chain(graph: ir.Graph) -> RuleReport:
    """Let the readers of every such chain read its earlier link, in place."""
    log = RuleLog()
    for node in reversed(list(graph)):
        if node.op_type not in _VIEWS or node.graph is None:
            continue
        shape = shape_of(node.outputs[0])
        earlier = next((value for value in _earlier(node.outputs[0]) if shape_of(value) == shape), None)
        if shape is not None and earlier is not None and not earlier.is_graph_input():
            bypass(graph, node, earlier)
            log.applied += 1
    return log.report()


def _earlier(value: ir.Value) -> Iterator[ir.Value]:
    """The values that `value` is a reshape of, nearest first."""
    while (node := value.producer()) is not None and node.op_type in _VIEWS:
        source = node.inputs[0]
        if source is None or is_constant(source):
            return
        yield source
        value = source
