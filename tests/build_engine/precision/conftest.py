"""Small FCNs of dyadic numbers, whose every sum is exact in float32, their ranges, and a NumPy evaluator."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from fcnedge.calibration.collect import collect
from fcnedge.calibration.pictures import choose_pictures
from fcnedge.calibration.ranges import TensorRange
from fcnedge.runtime import Bundle
from fcnedge.runtime.manifest import FileSpec, HeadSpec, InputSpec, Manifest
from fcnedge.runtime.preprocessing import Preprocessing

SIDE = 16
CLASSES = 5


def build(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    given: tuple[str, np.dtype | type, Sequence[int]] = ("image", np.uint8, (1, SIDE, SIDE, 3)),
    output: str = "scores",
    opset: int = 17,
) -> ir.Model:
    """Nodes that are named after their output, as a checked model with all types and shapes."""
    for node in nodes:
        node.name = node.name or node.output[0]
    name, dtype, shape = given
    image = helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
    tensors = [onnx.numpy_helper.from_array(array, key) for key, array in constants.items()]
    proto = helper.make_model(
        helper.make_graph(nodes, "small", [image], [onnx.ValueInfoProto(name=output)], tensors),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )
    inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(inferred, full_check=True)
    return ir.from_proto(inferred)


def run_as_written(model: ir.Model, given: np.ndarray, fetch: Sequence[str] = ()) -> list[np.ndarray]:
    """Check the graph and run it by ONNX Runtime, unoptimised: its output, then the tensors named in `fetch`."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    known = {info.name for info in proto.graph.output}
    proto.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in fetch if name not in known)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    output = model.graph.outputs[0].name
    return session.run([output, *fetch], {model.graph.inputs[0].name: given})


def measured(model: ir.Model, given: np.ndarray) -> dict[str, TensorRange]:
    """The range of every float activation of `model` on one input; clipped at the largest magnitude."""
    values = [value for node in model.graph for value in node.outputs if value.dtype == ir.DataType.FLOAT]
    names = [str(value.name) for value in values]
    ranges = {}
    for name, array in zip(names, run_as_written(model, given, names)[1:], strict=True):
        low, high = float(array.min()), float(array.max())
        ranges[name] = TensorRange(low, high, max(abs(low), abs(high)) or 1.0)
    return ranges


def dyadic(random: np.random.Generator, shape: Sequence[int], largest: int, step: float) -> np.ndarray:
    """Whole multiples of `step` up to `largest` of them, as float32."""
    return (random.integers(-largest, largest + 1, shape) * step).astype(np.float32)


def quantisable(random: np.random.Generator, shape: Sequence[int], step: float, others: int = 30) -> np.ndarray:
    """A kernel of INT8 scale `step`: one tap of 127 steps in each channel, the rest quarters up to `others` steps.

    Quarters, so that many taps lie exactly between two integers.
    """
    kernel = dyadic(random, shape, 4 * others, step / 4).reshape(shape[0], -1)
    kernel[np.arange(shape[0]), random.integers(0, kernel.shape[1], shape[0])] = 127 * step
    return kernel.reshape(shape)


@pytest.fixture(scope="session")
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)


@pytest.fixture
def residual_fcn() -> ir.Model:
    """Stem, an inverted residual block, pooling, a deep convolution, two score layers, a deconvolution, a skip sum."""
    random = np.random.default_rng(5)
    constants = {
        "mean": np.full((1, 3, 1, 1), 128, np.float32),
        "zero": np.array(0, np.float32),
        "six": np.array(6, np.float32),
        "stem.weight": dyadic(random, (8, 3, 3, 3), 30, 2.0**-9),
        "stem.bias": dyadic(random, (8,), 64, 2.0**-6),
        "expand.weight": quantisable(random, (16, 8, 1, 1), 2.0**-7),
        "expand.bias": dyadic(random, (16,), 64, 2.0**-6),
        "depthwise.weight": dyadic(random, (16, 1, 3, 3), 2, 0.5),
        "depthwise.bias": dyadic(random, (16,), 4, 0.5),
        "project.weight": quantisable(random, (8, 16, 1, 1), 2.0**-7),
        "project.bias": dyadic(random, (8,), 64, 2.0**-6),
        "deep.weight": quantisable(random, (12, 8, 3, 3), 2.0**-7),
        "deep.bias": dyadic(random, (12,), 64, 2.0**-6),
        "score_fr.weight": dyadic(random, (CLASSES, 12, 1, 1), 1, 1.0),
        "score_fr.bias": dyadic(random, (CLASSES,), 8, 1.0),
        "score_pool.weight": dyadic(random, (CLASSES, 8, 1, 1), 3, 1.0),
        "score_pool.bias": dyadic(random, (CLASSES,), 8, 1.0),
        "score2.weight": np.tile(np.array([0.25, 0.75, 0.75, 0.25], np.float32), (CLASSES, 1, 4, 1))
        * np.array([0.25, 0.75, 0.75, 0.25], np.float32)[:, None],
    }
    nodes = [
        helper.make_node("Transpose", ["image"], ["image_planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["image_planes"], ["image_float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["image_float", "mean"], ["image_centred"]),
        convolution("stem", "image_centred", strides=[2, 2], pads=[0, 0, 1, 1]),
        helper.make_node("Relu", ["stem"], ["stem.relu"]),
        convolution("expand", "stem.relu"),
        helper.make_node("Clip", ["expand", "zero", "six"], ["expand.clip"]),
        convolution("depthwise", "expand.clip", group=16, pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["depthwise", "zero", "six"], ["depthwise.clip"]),
        convolution("project", "depthwise.clip"),
        helper.make_node("Add", ["stem.relu", "project"], ["sum"]),
        helper.make_node("MaxPool", ["sum"], ["pool"], kernel_shape=[2, 2], strides=[2, 2]),
        convolution("deep", "pool", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["deep"], ["deep.relu"]),
        convolution("score_fr", "deep.relu"),
        helper.make_node(
            "ConvTranspose",
            ["score_fr", "score2.weight"],
            ["score2"],
            strides=[2, 2],
            pads=[1, 1, 1, 1],
            group=CLASSES,
        ),
        convolution("score_pool", "sum"),
        helper.make_node("Add", ["score_pool", "score2"], ["scores"]),
    ]
    return build(nodes, constants)


def convolution(name: str, given: str, bias: bool = True, **attributes: object) -> onnx.NodeProto:
    inputs = [given, f"{name}.weight", *([f"{name}.bias"] if bias else [])]
    return helper.make_node("Conv", inputs, [name], name=name, **attributes)


def loud_network(bias: float = 0.0) -> ir.Model:
    """A network that tells `voc_folder`'s colours apart, and that INT8 hurts in one layer. bias: added to every score.

    stem    4x4 means of (blue, green, red), from -1 to 1
    mix     red - green, blue - green, 0.5, and 1000 everywhere: one INT8 step is then eight times all the rest
    loud    the first three of them: nothing is left of them in INT8. It costs all the accuracy there is
    ghost   300 times their sum, less 1000: a class that never wins. In INT8 its scores are all noise, and cost nothing
    quiet   what loud gives, again: harmless in INT8
    score   background where neither difference is above 0.7, else the class of the difference
    score_ghost  the ghost's score, as it is
    """
    constants = {
        "mean": np.full((1, 3, 1, 1), 128, np.float32),
        "stem.weight": np.tile(np.eye(3, dtype=np.float32)[:, :, None, None] / 16 / 128, (1, 1, 4, 4)),
        "mix.weight": pointwise([[0, -1, 1], [1, -1, 0], [0, 0, 0], [0, 0, 0]]),
        "mix.bias": np.float32([0, 0, 0.5, 1000]),
        "loud.weight": pointwise([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]),
        "ghost.weight": pointwise([[300, 300, 300, 0]]),
        "ghost.bias": np.float32([-1000]),
        "quiet.weight": pointwise(np.eye(3)),
        "score.weight": pointwise([[0, 0, 1.4], [1, 0, 0], [0, 1, 0]]),
        "score.bias": np.full(3, bias, np.float32),
        "score_ghost.weight": pointwise([[1]]),
        "score_ghost.bias": np.full(1, bias, np.float32),
    }
    nodes = [
        helper.make_node("Transpose", ["image"], ["image_planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["image_planes"], ["image_float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["image_float", "mean"], ["image_centred"]),
        convolution("stem", "image_centred", bias=False, strides=[4, 4]),
        convolution("mix", "stem"),
        convolution("loud", "mix", bias=False),
        convolution("ghost", "mix"),
        convolution("quiet", "loud", bias=False),
        convolution("score", "quiet"),
        convolution("score_ghost", "ghost"),
        helper.make_node("Concat", ["score", "score_ghost"], ["scores"], axis=1),
    ]
    return build(nodes, constants, ("image", np.uint8, (1, 64, 64, 3)))


def pointwise(rows: object) -> np.ndarray:
    return np.asarray(rows, np.float32)[:, :, None, None]


def write_bundle(folder: Path, model: ir.Model) -> Path:
    """Write a network of 64x64 pixels, stride 4 and four classes as a bundle."""
    folder.mkdir(parents=True)
    ir.save(model, folder / "model.fp32.onnx")
    data = (folder / "model.fp32.onnx").read_bytes()
    manifest = Manifest(
        name="loud",
        arch="seven convolutions",
        classes=("background", "aeroplane", "bicycle", "ghost"),
        palette=((0, 0, 0),) * 4,
        input=InputSpec(64, 64, "stretch"),
        preprocessing=Preprocessing("bgr", (128.0, 128.0, 128.0), (1.0, 1.0, 1.0)),
        head=HeadSpec("bilinear", 4, 8),
        files={"model.fp32.onnx": FileSpec(hashlib.sha256(data).hexdigest(), len(data), "fp32")},
        versions={"onnx": onnx.__version__},
    )
    (folder / "model.json").write_text(manifest.to_json(), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def make_loud_bundle(voc_folder: Path) -> Callable[..., Path]:
    """Give (folder, bias of the scores) → bundle of `loud_network` with ranges.json collected on `voc_folder`."""

    def made(folder: Path, bias: float = 0.0) -> Path:
        write_bundle(folder, loud_network(bias))
        ranges = collect(Bundle.load(folder), choose_pictures(voc_folder, "train"), method="minmax", threads=1)
        ranges.write(folder / "ranges.json")
        return folder

    return made


@pytest.fixture(scope="session")
def loud_bundle(make_loud_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the bundle of `loud_network`, with its ranges. Do not write to it."""
    return make_loud_bundle(tmp_path_factory.mktemp("loud") / "bundle")


@pytest.fixture(scope="session")
def make_graph() -> Callable[..., ir.Model]:
    """Give `build`: (nodes, constants, given, output, opset) → model."""
    return build


@pytest.fixture(scope="session")
def conv() -> Callable[..., onnx.NodeProto]:
    """Give `convolution`: (name, input, bias, attributes) → node."""
    return convolution


@pytest.fixture(scope="session")
def run() -> Callable[..., list[np.ndarray]]:
    """Give `run_as_written`: (model, input, names of more tensors) → arrays."""
    return run_as_written


@pytest.fixture(scope="session")
def calibrate() -> Callable[..., dict[str, TensorRange]]:
    """Give `measured`: (model, input) → ranges."""
    return measured


@pytest.fixture(scope="session")
def kernel() -> Callable[..., np.ndarray]:
    """Give `quantisable`: (random, shape, step) → kernel with that INT8 scale."""
    return quantisable


@pytest.fixture(scope="session")
def simulate() -> Callable[..., dict[str, np.ndarray]]:
    """Give an independent evaluator: (model, input, grids, edges) → every tensor, in float64."""
    return evaluate


def evaluate(
    model: ir.Model,
    given: np.ndarray,
    grids: dict[str, tuple[float, int, int]],
    edges: set[tuple[str, int]],
    weights: set[str] = frozenset(),
) -> dict[str, np.ndarray]:
    """Evaluate a *float* graph with fake quantisation, by NumPy in float64.

    grids: tensor → (scale, lowest integer, highest integer); edges: (node, input) that see the rounded tensor;
    weights: convolutions whose kernel is rounded per output channel.
    """
    values: dict[str, np.ndarray] = {str(model.graph.inputs[0].name): given.astype(np.float64)}
    for value in model.graph.initializers.values():
        values[str(value.name)] = value.const_value.numpy().astype(np.float64)
    for node in model.graph:
        inputs = []
        for index, value in enumerate(node.inputs):
            array = values[value.name]
            if (node.name, index) in edges:
                scale, low, high = grids[value.name]
                array = np.clip(np.rint(array / scale), low, high) * scale
            if index == 1 and node.name in weights:
                scale = np.abs(array).max(axis=(1, 2, 3), keepdims=True) / 127
                array = np.clip(np.rint(array / scale), -127, 127) * scale
            inputs.append(array)
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        values[str(node.outputs[0].name)] = OPERATORS[node.op_type](inputs, attributes)
    return values


def _conv(inputs: list[np.ndarray], attributes: dict) -> np.ndarray:
    x, w, *bias = inputs
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    rows, columns = attributes.get("strides", (1, 1))
    group = attributes.get("group", 1)
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))[:, :, ::rows, ::columns]
    parts = zip(np.split(windows, group, axis=1), np.split(w, group), strict=True)
    y = np.concatenate([np.einsum("nchwij,ocij->nohw", part, kernel) for part, kernel in parts], axis=1)
    return y + bias[0][:, None, None] if bias else y


def _deconv(inputs: list[np.ndarray], attributes: dict) -> np.ndarray:
    """Depthwise, no bias."""
    x, w = inputs
    stride, crop = attributes["strides"][0], attributes["pads"][0]
    side = stride * (x.shape[2] - 1) + w.shape[2]
    y = np.zeros((*x.shape[:2], side, side))
    for i in range(w.shape[2]):
        for j in range(w.shape[3]):
            y[:, :, i : i + stride * x.shape[2] : stride, j : j + stride * x.shape[3] : stride] += (
                x * w[:, 0, i, j][:, None, None]
            )
    return y[:, :, crop:-crop, crop:-crop]


def _pool(inputs: list[np.ndarray], attributes: dict) -> np.ndarray:
    rows, columns = attributes["kernel_shape"]
    x = inputs[0]
    return x.reshape(*x.shape[:2], x.shape[2] // rows, rows, x.shape[3] // columns, columns).max(axis=(3, 5))


OPERATORS: dict[str, Callable[[list[np.ndarray], dict], np.ndarray]] = {
    "Transpose": lambda inputs, attributes: inputs[0].transpose(attributes["perm"]),
    "Cast": lambda inputs, attributes: inputs[0],
    "Sub": lambda inputs, attributes: inputs[0] - inputs[1],
    "Add": lambda inputs, attributes: inputs[0] + inputs[1],
    "Relu": lambda inputs, attributes: np.maximum(inputs[0], 0),
    "Clip": lambda inputs, attributes: np.clip(inputs[0], inputs[1], inputs[2]),
    "MaxPool": _pool,
    "Conv": _conv,
    "ConvTranspose": _deconv,
}
