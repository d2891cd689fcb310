"""An ONNX file as shapes and types: loaded without what weights hold, given another input size, inferred anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fcnedge.runtime.errors import UserError, missing_package

_SMALL = 4096
"""Initialisers up to this many bytes may hold shapes, which inference reads; larger ones are dropped beforehand."""
_FLOAT16 = (10, 16)
"""onnx.TensorProto's numbers of FLOAT16 and BFLOAT16."""


def load_model(path: Path) -> Any:
    """The model in `path`. Raises UserError where it is none, or where onnx is not installed."""
    try:
        import onnx
    except ImportError as error:
        raise missing_package("onnx", extra="build") from error
    try:
        # What the weights are does not matter, only how large: files beside the graph need not be there.
        return onnx.load(path, load_external_data=False)
    except FileNotFoundError as error:
        raise UserError(f"there is no model {path}; give a bundle folder or an .onnx file.") from error
    except Exception as error:  # protobuf's own error types vary
        raise UserError(f"{path} is no ONNX model ({error}); give a bundle folder or an .onnx file.") from error


def is_typed(model: Any) -> bool:
    """Whether the graph itself says where it is FP16 or INT8: by casts, weights or Q/DQ pairs."""
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node) or any(
        tensor.data_type in _FLOAT16 for tensor in model.graph.initializer
    )


def set_size(model: Any, size: tuple[int, int] | None) -> tuple[int, int]:
    """Give the input another size; (height, width) of the input. Raises UserError where it has none."""
    weights = {tensor.name for tensor in model.graph.initializer}
    pictures = [value for value in model.graph.input if value.name not in weights]
    if len(pictures) != 1 or len(pictures[0].type.tensor_type.shape.dim) != 4:
        raise UserError(
            f"the graph takes {len(pictures)} inputs ({', '.join(each.name for each in pictures)}); a prediction needs "
            "one picture of four dimensions."
        )
    sides = pictures[0].type.tensor_type.shape.dim
    place = 1 if sides[3].dim_value in (1, 3, 4) else 2
    if size is not None:
        sides[place].dim_value, sides[place + 1].dim_value = size
    if not sides[0].dim_value:
        sides[0].dim_value = 1
    if not all(side.dim_value for side in sides):
        raise UserError(f"the input {pictures[0].name!r} has no fixed size; say which with --size WIDTHxHEIGHT.")
    return sides[place].dim_value, sides[place + 1].dim_value


def with_shapes(model: Any) -> Any:
    """The model with every shape inferred anew, without what large weights hold."""
    import onnx

    for tensor in model.graph.initializer:
        if tensor.ByteSize() > _SMALL:
            for name in ("raw_data", "float_data", "int32_data", "int64_data", "external_data", "data_location"):
                tensor.ClearField(name)
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(model, data_prop=True)
