"""Another framework's ONNX file: read with care, and understood as far as its input and its scores go."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes import common as passes

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.onnx_locations import external_locations
from fcnedge.runtime.preprocessing import Preprocessing

from ..fusion.graph import integer, shape_of
from .origin import Origin

NEWEST_OPSET = 21
"""Newest operator set of ONNX Runtime 1.20, the oldest that fcnedge runs with."""
_MAX_PROTOBUF_BYTES = (1 << 31) - 1
_COLOURS = 3
_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger")
_PASSED_ON = ("Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape")
_KEEPS_CLASSES = (
    *("Identity", "Cast", "Softmax", "LogSoftmax", "Sigmoid", "Relu", "Clip", "Neg", "Resize", "Upsample", "Slice"),
    *("Transpose", "Dropout", "BatchNormalization", "Add", "Sub", "Mul", "Div", "Pad"),
)
_RANGES = {"NominalRange_0_255": (0.0, 1.0), "Normalized_0_1": (0.0, 1 / 255), "Normalized_1_1": (127.5, 1 / 127.5)}
"""Image.NominalPixelRange → mean and scale (https://github.com/onnx/onnx/blob/main/docs/MetadataProps.md)."""
_ORDERS = {"Rgb8": "rgb", "Bgr8": "bgr"}


@dataclass(frozen=True)
class OnnxFile:
    """A file as it was read.

    image: its one input, scores: (1, C, h, w) or (1, h, w, C), the output or what an ArgMax in front of it reads;
    layout: of the input, "nchw" or "nhwc"; size: (height, width) where the file fixes them; preprocessing: as flags or
    file say; assumed: what neither says.
    """

    path: Path
    model: ir.Model
    image: ir.Value
    scores: ir.Value
    layout: str
    size: tuple[int, int] | None
    preprocessing: Preprocessing
    assumed: tuple[str, ...]

    @property
    def has_scores_as_output(self) -> bool:
        """Whether the scores are one of the file's own outputs."""
        return self.scores.is_graph_output()

    @property
    def class_count(self) -> int | None:
        """Channels of the layer that the scores come from; None where no convolution tells."""
        value: ir.Value | None = self.scores
        while value is not None and (node := value.producer()) is not None:
            kernel = shape_of(node.inputs[1]) if node.op_type in ("Conv", "ConvTranspose") else None
            if kernel is not None:
                return kernel[0] if node.op_type == "Conv" else kernel[1] * integer(node, "group", 1)
            if node.op_type not in _KEEPS_CLASSES:
                return None
            value = next((each for each in node.inputs if each is not None and each.const_value is None), None)
        return None

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names from the metadata `classes`, a JSON list, as `fcn-build export onnx` writes it."""
        try:
            names = json.loads(self.model.metadata_props.get("classes", "null"))
        except ValueError:
            return None
        good = isinstance(names, list) and all(isinstance(name, str) and name for name in names)
        return tuple(names) if good and 2 <= len(names) <= 255 and len(set(names)) == len(names) else None


def read_onnx(origin: Origin) -> OnnxFile:
    """Read the file; weights in files beside it stay there until they are asked for.

    Raises UserError for what is no ONNX file, weights outside its folder, operators of other domains, an operator set
    that is too new, and inputs or outputs that the flags do not settle.
    """
    path = origin.path
    _check_locations(path)
    if path.stat().st_size > _MAX_PROTOBUF_BYTES:
        raise UserError(f"{path} is over 2 GB, more than protobuf reads; save it with external data.")
    try:
        model = ir.load(path)
    except Exception as error:  # whatever protobuf and onnx_ir say of a damaged file
        raise UserError(f"{path} cannot be read as ONNX ({_first_line(error)}); export it again.") from error
    passes.InlinePass()(model)
    passes.RemoveInitializersFromInputsPass()(model)
    _check_operators(path, model)
    image = _image(path, model.graph)
    layout, size = _layout(path, image, origin.layout)
    scores = _scores(path, _output(path, model.graph, origin.output_name))
    preprocessing, assumed = _preprocessing(origin, image, model.metadata_props)
    return OnnxFile(path, model, image, scores, layout, size, preprocessing, assumed)


def _check_locations(path: Path) -> None:
    try:
        locations = external_locations(path)
    except ValueError as error:
        raise UserError(
            f"{path} is no ONNX file, or a truncated one ({error}); check the path, or copy it again."
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    for location in sorted(locations):
        file = path.parent / location
        if Path(location).is_absolute() or not file.resolve().is_relative_to(path.parent.resolve()):
            raise UserError(f"{path} keeps weights in {location}, outside its folder; it is refused.")
        if not file.is_file():
            raise UserError(f"{path} keeps weights in {location}, which is not beside it; copy both.")


def _check_operators(path: Path, model: ir.Model) -> None:
    foreign = sorted(
        {f"{node.domain}:{node.op_type}" for node in model.graph.all_nodes() if node.domain not in ("", "ai.onnx")}
    )
    if foreign:
        raise UserError(
            f"{path} uses {', '.join(foreign)}, operators that are not ONNX's own; export it without them "
            "(also not optimised for one runtime)."
        )
    quantised = sorted({node.op_type for node in model.graph.all_nodes() if node.op_type in _QUANTISED})
    if quantised:
        raise UserError(f"{path} is quantised ({', '.join(quantised)}); import it in float and build with --precision.")
    opset = model.opset_imports.get("", 0)
    if opset > NEWEST_OPSET:
        raise UserError(f"{path} has opset {opset}, newer than {NEWEST_OPSET}; export it with opset 17.")


def _image(path: Path, graph: ir.Graph) -> ir.Value:
    if len(graph.inputs) != 1:
        names = ", ".join(str(value.name) for value in graph.inputs)
        raise UserError(f"{path} has {len(graph.inputs)} inputs ({names}); a model of one picture is expected.")
    image = graph.inputs[0]
    if image.dtype not in (ir.DataType.FLOAT, ir.DataType.UINT8):
        raise UserError(
            f"{path} reads {image.dtype.name if image.dtype else 'nothing known'}, not float32 or uint8; export it "
            "in float32 (--precision makes smaller ones of it)."
        )
    if image.shape is None or len(image.shape) != 4:
        raise UserError(f"{path} reads a tensor of shape {image.shape}; a picture of four dimensions is expected.")
    if isinstance(image.shape[0], int) and image.shape[0] != 1:
        raise UserError(f"{path} reads {image.shape[0]} pictures at a time; export it for one, or any number.")
    return image


def _layout(path: Path, image: ir.Value, flag: str | None) -> tuple[str, tuple[int, int] | None]:
    """Axes ("nchw" or "nhwc") and (height, width) where both are fixed."""
    assert image.shape is not None
    sides = list(image.shape)
    possible = {layout for layout, axis in (("nchw", 1), ("nhwc", 3)) if sides[axis] == _COLOURS}
    free = {layout for layout, axis in (("nchw", 1), ("nhwc", 3)) if not isinstance(sides[axis], int)}
    layout = flag or (next(iter(possible)) if len(possible) == 1 else None)
    if layout is None and (possible or free):
        raise UserError(f"{path} reads {image.shape}, which does not tell the colours' axis; settle it with --layout.")
    if layout not in possible | free:
        wanted = f" as {layout}; check --layout" if flag else "; export a model of colour pictures"
        raise UserError(f"{path} reads {image.shape}, not three colours{wanted}.")
    rows, columns = sides[2:] if layout == "nchw" else sides[1:3]
    size = (rows, columns) if isinstance(rows, int) and isinstance(columns, int) else None
    return str(layout), size


def _output(path: Path, graph: ir.Graph, name: str | None) -> ir.Value:
    named = {str(value.name): value for value in graph.outputs}
    if name is None and len(named) > 1:
        raise UserError(f"{path} has several outputs, {', '.join(named)}; choose one with --output-name.")
    if name is not None and name not in named:
        raise UserError(f"{path} has no output {name}, only {', '.join(named)}.")
    return named[name] if name is not None else next(iter(named.values()))


def _scores(path: Path, output: ir.Value) -> ir.Value:
    """`output`, or what the ArgMax reads whose winners `output` is."""
    value = output
    while (node := value.producer()) is not None:
        first = node.inputs[0] if node.inputs else None
        if first is None:
            break
        if node.op_type == "ArgMax":
            if integer(node, "select_last_index", 0):
                raise UserError(f"{path} gives a tie to the last class, fcnedge to the first; choose another output.")
            return first
        if node.op_type not in _PASSED_ON:
            break
        value = first
    return output


def _preprocessing(origin: Origin, image: ir.Value, metadata: dict[str, str]) -> tuple[Preprocessing, tuple[str, ...]]:
    """What flags and metadata say; where neither does, RGB pixels of 0..255 as they are, with a sentence about it."""
    order = _ORDERS.get(metadata.get("Image.BitmapPixelFormat", ""))
    numbers = _RANGES.get(metadata.get("Image.NominalPixelRange", ""))
    mean, scale = numbers or (0.0, 1.0)
    assumed = []
    if origin.channel_order is None and order is None:
        assumed.append("channel order RGB (--channel-order)")
    if image.dtype == ir.DataType.UINT8:
        if origin.mean is not None or origin.scale is not None:
            raise UserError(f"{origin.path} reads bytes and normalises them itself; leave out --mean and --scale.")
        mean, scale = 0.0, 1.0
    elif numbers is None:
        if origin.mean is None:
            assumed.append("mean 0 (--mean)")
        if origin.scale is None:
            assumed.append("scale 1, pixels of 0..255 (--scale)")
    default = Preprocessing("rgb" if order is None else order, (mean, mean, mean), (scale, scale, scale))
    return origin.preprocessing(default), tuple(assumed)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
