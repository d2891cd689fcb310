"""Apply every fusion rule until nothing changes, and report what each did."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common as passes

from .affine_into_convolution import affine_into_convolution
from .cost import GraphCost, graph_cost
from .crop_before_convolution import crop_before_convolution
from .crop_into_deconvolution import crop_into_deconvolution
from .depthwise_deconvolution import depthwise_deconvolution
from .input_layout import input_layout
from .last_upsampling import BilinearTail, last_upsampling
from .report import RuleReport
from .reshape_chain import reshape_chain
from .skip_add import skip_add

_GRAPH_RULES = {
    "reshape_chain": reshape_chain,
    "affine_into_convolution": affine_into_convolution,
    "crop_into_deconvolution": crop_into_deconvolution,
    "crop_before_convolution": crop_before_convolution,
    "depthwise_deconvolution": depthwise_deconvolution,
    "skip_add": skip_add,
    "input_layout": input_layout,
}


@dataclass(frozen=True)
class FusionReport:
    """Rules by name, cost before and after, and the tail that the runtime's head takes over (None: labels head)."""

    rules: dict[str, RuleReport]
    before: GraphCost
    after: GraphCost
    tail: BilinearTail | None


def fuse(model: ir.Model, input_size: tuple[int, int], *, labels: bool = False) -> FusionReport:
    """Fuse `model` in place. input_size: (height, width) in pixels of its input; labels: keep all in the graph.

    requires: one uint8 NHWC input, one output of full-size scores or probabilities, static shapes.
    ensures: the graph computes `scores` at the head's stride (see FusionReport.tail) or `labels`; a second call
    changes nothing.
    """
    _tidy(model)
    before = graph_cost(model.graph)
    rules = {name: RuleReport() for name in _GRAPH_RULES}
    while True:
        passed = {name: rule(model.graph) for name, rule in _GRAPH_RULES.items()}
        rules = {name: rules[name] + report for name, report in passed.items()}
        if not any(report.applied for report in passed.values()):
            break
    rules["last_upsampling"], tail = last_upsampling(model.graph, input_size, labels=labels)
    _tidy(model)
    return FusionReport(rules, before, graph_cost(model.graph), tail)


def _tidy(model: ir.Model) -> None:
    """Drop what nothing reads, merge equal constants (TensorRT refuses duplicate names), and infer shapes."""
    for tidy in (
        passes.IdentityEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        passes.DeduplicateInitializersPass(),
        passes.TopologicalSortPass(),
        passes.ShapeInferencePass(),
    ):
        tidy(model)
