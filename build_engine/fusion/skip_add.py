"""Rule 3b: the skip sum is laid out as convolution + add, so that a backend runs it in the convolution's epilogue.

FCN adds an upsampled score to the score of a shallower layer: Add(deconvolution, score convolution). Backends fuse an
addition into a convolution when the convolution's result has no other use, it has a bias, and the other addend is
ready when the convolution starts. So the deconvolution's bias moves over, b_conv ← b_conv + b_deconv, a convolution
without bias gets zeros (ONNX Runtime fuses no other, conv_add_act_fusion.cc), it becomes the first addend and runs
right before the sum. Bit-exact without a deconvolution bias.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .affine_into_convolution import has_bias, set_bias
from .graph import constant, is_constant, shape_of, sole_consumer
from .report import RuleLog, RuleReport


def skip_add(graph: ir.Graph) -> RuleReport:
    """Bring every sum of a ConvTranspose and a Conv into epilogue form, in place."""
    log = RuleLog()
    for node in list(graph):
        if node.op_type != "Add" or any(is_constant(value) for value in node.inputs):
            continue
        producers = [value.producer() if value is not None else None for value in node.inputs]
        kinds = [producer.op_type if producer is not None else "" for producer in producers]
        if sorted(kinds) != ["Conv", "ConvTranspose"]:
            continue
        convolution, deconvolution = producers if kinds[0] == "Conv" else reversed(producers)
        assert convolution is not None
        assert deconvolution is not None
        if sole_consumer(convolution.outputs[0]) is not node:
            log.refuse(node.name, "the score convolution is used elsewhere too.")
        elif has_bias(convolution) and not is_constant(convolution.inputs[2]):
            log.refuse(node.name, "the score convolution's bias is computed at run time.")
        elif _arrange(graph, node, convolution, deconvolution):
            log.applied += 1
    return log.report()


def _arrange(graph: ir.Graph, add: ir.Node, convolution: ir.Node, deconvolution: ir.Node) -> bool:
    """Put the three nodes in order; returns whether anything changed."""
    changed = False
    if has_bias(deconvolution) and sole_consumer(deconvolution.outputs[0]) is add:
        moved = constant(deconvolution.inputs[2])
        own = _bias(convolution)
        if moved is not None and moved.shape == own.shape:
            set_bias(graph, convolution, own + moved)
            deconvolution.resize_inputs(2)
            changed = True
    if not has_bias(convolution):
        set_bias(graph, convolution, _bias(convolution))
        changed = True
    if add.inputs[0] is not convolution.outputs[0]:
        first, second = add.inputs
        add.replace_input_with(0, second)
        add.replace_input_with(1, first)
        changed = True
    if _runs_before(graph, convolution, deconvolution):
        graph.remove(convolution)
        graph.insert_before(add, convolution)
        changed = True
    return changed


def _bias(convolution: ir.Node) -> np.ndarray:
    own = constant(convolution.inputs[2]) if has_bias(convolution) else None
    if own is not None:
        return own
    kernel = shape_of(convolution.inputs[1])
    assert kernel is not None
    return np.zeros(kernel[0])


def _runs_before(graph: ir.Graph, first: ir.Node, second: ir.Node) -> bool:
    order = {id(node): position for position, node in enumerate(graph)}
    return order[id(first)] < order[id(second)]
