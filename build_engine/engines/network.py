"""ONNX graph → the library's network: parsed from its file, with its types checked before hours of compiling."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcnedge.runtime import Manifest
from fcnedge.runtime.engine_sidecar import TensorSpec
from fcnedge.runtime.errors import UserError

from .library import Library
from .library_log import last_reason, reason_in

# DataType members by name, as NumPy names them; others keep their own name in small letters.
_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class ParsedNetwork:
    """The parsed network, and the builder and parser that must live as long as it does."""

    builder: Any
    network: Any
    parser: Any

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Name, type and shape of every input."""
        return tuple(_spec(self.network.get_input(index)) for index in range(self.network.num_inputs))

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Name, type and shape of every output."""
        return tuple(_spec(self.network.get_output(index)) for index in range(self.network.num_outputs))


def parse_graph(library: Library, log: Any, graph: Path, *, strongly_typed: bool) -> ParsedNetwork:
    """Parse the ONNX file `graph`; weights beside it are found by the library.

    Raises UserError when the library finds no GPU where it needs one, and for what it refuses, by node and operator.
    """
    try:
        builder = library.module.Builder(log)
    except (TypeError, RuntimeError) as error:  # the binding's words for a builder that could not be made
        raise UserError(
            f"{library.title} cannot start{last_reason(log)}; it compiles on the GPU that will run the engine: run "
            "this there, or choose --target tensorrt_rtx, which needs none."
        ) from error
    network = builder.create_network(library.network_flags(strongly_typed=strongly_typed))
    parser = library.module.OnnxParser(network, log)
    if not parser.parse_from_file(str(graph.absolute())):
        raise UserError(_refusal(library, log, graph, parser))
    return ParsedNetwork(builder, network, parser)


def check_types(library: Library, parsed: ParsedNetwork, precision: str, graph: Path) -> None:
    """Refuse to compile a graph for a precision that it does not hold: strongly typed, it would silently be FP32."""
    holds = {"fp32": lambda _: True, "fp16": _gives_half, "int8": _quantises}[precision]
    network = parsed.network
    if not any(holds(network.get_layer(index)) for index in range(network.num_layers)):
        what = {"fp16": "no float16 tensor", "int8": "no QuantizeLinear or DequantizeLinear"}[precision]
        raise UserError(
            f"{graph} holds {what}, and {library.title} takes precision from the graph alone, so the engine would not "
            f"be {precision}; rebuild the bundle with that precision."
        )


def check_interface(parsed: ParsedNetwork, manifest: Manifest, graph: Path) -> None:
    """The network must take and give what model.json says. Raises UserError."""
    height, width, head = manifest.input.height, manifest.input.width, manifest.head
    takes = (TensorSpec("image", "uint8", (1, height, width, 3)),)
    gives = [(TensorSpec("labels", "uint8", (1, height, width)),)]
    if head.kind == "bilinear":
        scores = (1, len(manifest.classes), *manifest.score_points)
        gives = [(TensorSpec("scores", dtype, scores),) for dtype in ("float32", "float16")]
    for got, expected, verb in ((parsed.inputs, [takes], "takes"), (parsed.outputs, gives, "gives")):
        if got not in expected:
            choices = " or ".join(_described(tensors) for tensors in expected)
            raise UserError(f"{graph} {verb} {_described(got)}, model.json says {choices}; rebuild the bundle.")


def _gives_half(layer: Any) -> bool:
    return any(layer.get_output(index).dtype.name == "HALF" for index in range(layer.num_outputs))


def _quantises(layer: Any) -> bool:
    return layer.type.name in ("QUANTIZE", "DEQUANTIZE")


def _spec(tensor: Any) -> TensorSpec:
    dtype = str(tensor.dtype.name)
    return TensorSpec(tensor.name, _DTYPES.get(dtype, dtype.lower()), tuple(int(side) for side in tensor.shape))


def _described(tensors: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{tensor.name} {tensor.dtype} {list(tensor.shape)}" for tensor in tensors) or "nothing"


def _refusal(library: Library, log: Any, graph: Path, parser: Any) -> str:
    """One sentence from the parser's first error: which node, which operator, and why, in the library's words."""
    if not parser.num_errors:
        return f"{library.title} cannot read {graph}{last_reason(log)}; rebuild the bundle."
    error = parser.get_error(0)
    if hasattr(error, "node_name"):  # TensorRT 10 and later
        name, operator = error.node_name(), error.node_operator()
    else:
        name, operator = log.node if log.node and error.node() >= 0 else ("", "")
    reason = reason_in(error.desc())
    if not operator:
        return f"{library.title} cannot read {graph} ({reason}); rebuild the bundle or copy it again."
    more = f", nor {parser.num_errors - 1} more" if parser.num_errors > 1 else ""
    return (
        f"{library.title} refuses node {name} ({operator}) of {graph}{more}: {reason}; "
        "rebuild the bundle without it, or choose another --target."
    )
