"""Cast the pixels to float before anything else touches them, as TensorRT wants it.

TensorRT takes a uint8 input, but the only layer that may read it is a cast: its parser refuses a uint8 Transpose. The
fused graph transposes bytes and casts then, which is less traffic on a CPU. Both orders give the same numbers.
"""

from __future__ import annotations

import onnx_ir as ir

from ..fusion.graph import sole_consumer


def cast_pixels_first(graph: ir.Graph) -> bool:
    """Turn Transpose → Cast behind the uint8 input into Cast → Transpose, in place; returns whether it did.

    The tensor behind the two keeps its name, under which the ranges know it.
    """
    image = graph.inputs[0]
    transpose = sole_consumer(image)
    if transpose is None or transpose.op_type != "Transpose" or image.dtype != ir.DataType.UINT8:
        return False
    cast = sole_consumer(transpose.outputs[0])
    if cast is None or cast.op_type != "Cast":
        return False
    pixels, planes = cast.outputs[0], transpose.outputs[0]
    name = f"{image.name}.pixels"
    first = ir.Node("", "Cast", [image], attributes=cast.attributes.values(), name=name)
    first.outputs[0].name, first.outputs[0].type, first.outputs[0].shape = name, pixels.type, image.shape
    graph.insert_before(transpose, first)
    transpose.replace_input_with(0, first.outputs[0])
    pixels.replace_all_uses_with(planes, replace_graph_outputs=True)
    graph.remove(cast, safe=True)
    planes.name, planes.type = pixels.name, pixels.type
    return True
