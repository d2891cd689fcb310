"""All rules together on all six architectures: what is left in the graph, and what ONNX Runtime makes of it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper

from fcnedge.build_engine.fusion import FusionReport, fuse
from fcnedge.build_engine.models import Architecture

from .conftest import EXPORTED

SIZE, CLASSES = (64, 96), 5
SKIPS = {32: 0, 16: 1, 8: 2}
LITE0_RESIDUAL_ADDS, LITE0_CONTEXT_ADDS = 9, 1
UNIT = 2.0**-24


@pytest.fixture(scope="module", params=EXPORTED)
def architecture(request) -> Architecture:
    return Architecture.parse(request.param)


@pytest.fixture(scope="module")
def fused(architecture, exported) -> tuple[ir.Model, FusionReport]:
    model = exported(architecture.name)
    return model, fuse(model, SIZE)


def test_nothing_is_left_that_a_rule_should_have_removed(architecture, fused):
    model, _ = fused
    kinds = Counter(node.op_type for node in model.graph)
    skips = SKIPS[architecture.stride]
    convolutions = {"vgg16": 16, "lite0": 51}[architecture.trunk] + skips
    expected = {"Transpose": 1, "Cast": 1, "Sub": 1, "Conv": convolutions, "ConvTranspose": skips, "Add": skips}
    if architecture.trunk == "vgg16":
        expected |= {"Relu": 15, "MaxPool": 5}
    else:
        expected |= {"Clip": 33, "GlobalAveragePool": 1}
        expected["Add"] += LITE0_RESIDUAL_ADDS + LITE0_CONTEXT_ADDS
    assert dict(kinds) == {kind: count for kind, count in expected.items() if count}


def test_bytes_are_read_by_a_cast_alone_and_transposed_once(fused):
    """TensorRT's parser refuses any other layer that reads uint8."""
    model, _ = fused
    (cast,) = model.graph.inputs[0].consumers()
    assert (cast.op_type, cast.outputs[0].dtype) == ("Cast", ir.DataType.FLOAT)
    (transpose,) = (node for node in model.graph if node.op_type == "Transpose")
    assert transpose.inputs[0] is cast.outputs[0]


def test_every_deconvolution_is_depthwise(fused):
    model, _ = fused
    for node in model.graph:
        if node.op_type == "ConvTranspose":
            assert node.attributes["group"].as_int() == CLASSES
            assert node.inputs[1].shape == (CLASSES, 1, 4, 4)
            assert node.attributes["pads"].as_ints() == (1, 1, 1, 1)


def test_graph_keeps_the_contract(architecture, fused):
    model, report = fused
    (image,), (scores,) = model.graph.inputs, model.graph.outputs
    assert (image.name, image.dtype, image.shape) == ("image", ir.DataType.UINT8, (1, *SIZE, 3))
    grid = tuple(side // architecture.stride for side in SIZE)
    assert (scores.name, scores.dtype, scores.shape) == ("scores", ir.DataType.FLOAT, (1, CLASSES, *grid))
    assert (report.tail.stride, report.tail.kernel) == (architecture.stride, 2 * architecture.stride)


def test_graph_passes_the_checker_at_opset_17(fused):
    proto = ir.to_proto(fused[0])
    onnx.checker.check_model(proto, full_check=True)
    assert proto.ir_version == 8
    assert {entry.domain: entry.version for entry in proto.opset_import}[""] == 17


def test_every_initializer_has_a_name_of_its_own_and_is_read(fused):
    proto = ir.to_proto(fused[0])
    names = [tensor.name for tensor in proto.graph.initializer]
    assert len(set(names)) == len(names)
    assert set(names) <= {name for node in proto.graph.node for name in node.input}
    values = [name for node in proto.graph.node for name in node.output]
    assert len(set(values + names)) == len(values + names)


def test_equal_constants_are_stored_once(graph, infer):
    pixels = np.random.default_rng(0).integers(0, 256, (1, 4, 6, 3), np.uint8)
    kernel = np.random.default_rng(1).standard_normal((3, 3, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Conv", ["float", "a"], ["first"]),
        helper.make_node("Relu", ["first"], ["relu"]),
        helper.make_node("Conv", ["relu", "b"], ["second"]),
    ]
    model = graph(nodes, {"image": pixels}, ["second"], {"a": kernel, "b": kernel.copy()})
    labels = infer(model, pixels).argmax(axis=1)
    fuse(model, (4, 6))
    assert len(model.graph.initializers) == 1
    np.testing.assert_array_equal(infer(model, pixels), labels.astype(np.uint8), strict=True)


def test_each_rule_reports_exactly_what_it_did(architecture, fused):
    _, report = fused
    skips = SKIPS[architecture.stride]
    context = architecture.trunk == "lite0"
    assert {name: rule.applied for name, rule in report.rules.items()} == {
        "reshape_chain": int(context),
        "affine_into_convolution": {"vgg16": 0, "lite0": 76}[architecture.trunk],
        "crop_into_deconvolution": skips + 1,
        "crop_before_convolution": 0,
        "depthwise_deconvolution": skips + 1,
        "skip_add": skips,
        "input_layout": 1,
        "last_upsampling": 1,
    }
    # The mean stays in front of the padded first convolution, and the report says so once.
    refusals = [(name, refusal.node) for name, rule in report.rules.items() for refusal in rule.refused]
    assert refusals == [("affine_into_convolution", "image_centred")]


def test_fusing_again_changes_nothing(fused):
    model, _ = fused
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    again = fuse(model, SIZE)
    assert [rule.applied for rule in again.rules.values()] == [0] * 8
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_scores_upsampled_in_float64_are_the_scores_of_the_raw_graph(architecture, fused, exported, image, infer):
    full = infer(exported(architecture.name), image)[0].transpose(2, 0, 1)
    scores = infer(fused[0], image)[0].astype(np.float64)
    stride = architecture.stride
    hat = 1 - np.abs(np.arange(2 * stride) + 0.5 - stride) / stride
    upsampled = scores
    for axis in (1, 2):
        upsampled = np.apply_along_axis(deconvolve, axis, upsampled, hat, stride)
    # As in test_input_layout: 27 products in another order, then four units per convolution.
    bound = (2 * 27 + 4 * sum(node.op_type == "Conv" for node in fused[0].graph)) * UNIT * np.ptp(full)
    assert np.abs(upsampled - full).max() <= bound


def deconvolve(row: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    spread = np.zeros(stride * (len(row) - 1) + 1)
    spread[::stride] = row
    return np.convolve(spread, kernel)[stride // 2 : stride // 2 + stride * len(row)]


def optimised(model: ir.Model, path, disabled: list[str]) -> onnx.ModelProto:
    """The graph that ONNX Runtime runs on a CPU after all its own optimisations."""
    options = ort.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(path), 3
    proto = ir.to_proto(model).SerializeToString()
    ort.InferenceSession(proto, options, ["CPUExecutionProvider"], disabled_optimizers=disabled)
    return onnx.load(path)


def test_onnx_runtime_adds_every_skip_inside_its_score_convolution(architecture, fused, tmp_path):
    proto = optimised(fused[0], tmp_path / "optimised.onnx", ["NchwcTransformer"])
    sums = [node for node in proto.graph.node if node.op_type == "FusedConv" and len(node.input) == 4]
    producer = {name: node.op_type for node in proto.graph.node for name in node.output}
    skips = [node for node in sums if producer[node.input[3]] == "ConvTranspose"]
    assert len(skips) == SKIPS[architecture.stride]
    left = [node for node in proto.graph.node if node.op_type == "Add"]
    assert not [node for node in left if "ConvTranspose" in {producer[name] for name in node.input}]
    if architecture.trunk == "vgg16":
        assert left == []


def test_onnx_runtime_adds_every_residual_inside_a_blocked_convolution(architecture, fused, tmp_path):
    if architecture.trunk != "lite0":
        pytest.skip("only EfficientNet-Lite0 has residual sums")
    proto = optimised(fused[0], tmp_path / "optimised.onnx", [])
    blocked = [node for node in proto.graph.node if node.domain == "com.microsoft.nchwc" and node.op_type == "Conv"]
    if not blocked:
        pytest.skip("ONNX Runtime has no NCHWc convolutions for this CPU")
    assert sum(len(node.input) == 4 for node in blocked) >= LITE0_RESIDUAL_ADDS
    producer = {name: node.op_type for node in proto.graph.node for name in node.output}
    adds = [node.name for node in proto.graph.node if node.op_type == "Add"]
    # Skips are not blocked, and the context is one number per class, which no epilogue spreads over a map.
    left = [name for name in adds if "sum_pool" not in name and "sum_context" not in name]
    assert left == [], {name: producer.get(name) for name in left}
