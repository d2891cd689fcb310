"""The FP16 graph: types, casts, overflow, both heads; run by ONNX Runtime and parsed by TensorRT-RTX."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from fcnedge.build_engine.precision import to_fp16
from fcnedge.calibration.ranges import TensorRange
from fcnedge.runtime.errors import UserError

HALF, SINGLE = ir.DataType.FLOAT16, ir.DataType.FLOAT


def float_types_of(node: ir.Node) -> set[ir.DataType | None]:
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    return {value.dtype for value in values if value.dtype in (HALF, SINGLE)}


def assert_no_mixed_node(model: ir.Model) -> None:
    """As TensorRT sees it: one float type per node, but for the casts."""
    for node in model.graph:
        if node.op_type != "Cast":
            assert len(float_types_of(node)) <= 1, node.name


def test_everything_behind_the_pixels_is_float16(residual_fcn, calibrate, run, image):
    exact = run(residual_fcn, image)[0]
    report = to_fp16(residual_fcn, ranges=calibrate(residual_fcn, image))
    assert_no_mixed_node(residual_fcn)
    kinds = {node.name: float_types_of(node) for node in residual_fcn.graph}
    assert {name for name, found in kinds.items() if found == {SINGLE}} == {
        "image.pixels",
        "image_planes",
        "image_centred",
    }
    assert {name for name, found in kinds.items() if found == {SINGLE, HALF}} == {"image_centred.float16"}
    assert [layer.node for layer in report.float32] == ["image.pixels", "image_planes", "image_centred"]
    assert (report.types.nodes, report.types.casts) == (15, 1)
    assert (report.types.weights_flushed, report.types.weights_subnormal) == (0, 0)
    constants = {name: value.dtype for name, value in residual_fcn.graph.initializers.items()}
    assert {name for name, kind in constants.items() if kind == SINGLE} == {"mean"}
    assert report.types.weights == sum(
        value.const_value.size for name, value in residual_fcn.graph.initializers.items() if name != "mean"
    )
    assert (residual_fcn.opset_imports[""], residual_fcn.ir_version) == (17, 8)
    (scores,) = run(residual_fcn, image)
    assert scores.dtype == np.float16
    # 11 bits, a dozen roundings on the longest path
    assert np.abs(scores - exact).max() <= 12 * 2.0**-11 * np.abs(exact).max()
    assert np.abs(scores - exact).max() > 0


def test_weights_are_rounded_to_the_nearest_float16(residual_fcn, calibrate, image):
    weight = np.random.default_rng(0).normal(size=(12, 8, 3, 3)).astype(np.float32)
    weight[0, 0, 0] = [2.0**-25, 1e-12, 2.0**-20]
    residual_fcn.graph.initializers["deep.weight"].const_value = ir.Tensor(weight, name="deep.weight")
    report = to_fp16(residual_fcn, ranges=calibrate(residual_fcn, image))
    stored = residual_fcn.graph.initializers["deep.weight.float16"].const_value.numpy()
    np.testing.assert_array_equal(stored, weight.astype(np.float16), strict=True)
    assert (report.types.weights_flushed, report.types.weights_subnormal) == (2, 1)


def overflowing(make_graph, conv) -> ir.Model:
    """A network whose second convolution passes 65504 and whose third brings it back."""
    rng = np.random.default_rng(3)
    constants = {
        "mean": np.array([103.5, 116.25, 123.75], np.float32).reshape(1, 3, 1, 1),
        "conv1.weight": rng.normal(0, 1, (8, 3, 3, 3)).astype(np.float32),
        "conv2.weight": rng.normal(0, 40, (8, 8, 3, 3)).astype(np.float32),
        "conv3.weight": rng.normal(0, 1e-4, (4, 8, 1, 1)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Transpose", ["image"], ["image_planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["image_planes"], ["image_float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["image_float", "mean"], ["image_centred"]),
        conv("conv1", "image_centred", bias=False),
        helper.make_node("Relu", ["conv1"], ["conv1.relu"]),
        conv("conv2", "conv1.relu", bias=False),
        helper.make_node("Relu", ["conv2"], ["conv2.relu"]),
        conv("conv3", "conv2.relu", bias=False),
        helper.make_node("Relu", ["conv3"], ["scores"]),
    ]
    return make_graph(nodes, constants)


def in_real_float16(model: ir.Model, image: np.ndarray) -> np.ndarray:
    """Evaluated by onnx's NumPy reference: ONNX Runtime computes in float32 where its CPU kernels know no float16."""
    with np.errstate(all="ignore"):
        return ReferenceEvaluator(ir.to_proto(model)).run(None, {"image": image})[0]


def test_real_overflow_is_found_named_and_kept_in_float32(make_graph, conv, calibrate, run, image):
    model = overflowing(make_graph, conv)
    exact, middle = run(model, image, ["conv2"])
    assert middle.max() > 65504
    report = to_fp16(model, ranges=calibrate(model, image))
    kept = {layer.node: layer.reason for layer in report.float32}
    assert list(kept)[3:] == ["conv2", "conv2.relu", "conv3"]
    assert kept["conv2"] == f"the tensor conv2 reaches {np.abs(middle).max():.6g}, beyond 32752."
    assert_no_mixed_node(model)
    assert {node.name for node in model.graph if node.op_type == "Cast"} == {
        "image.pixels",
        "image_centred.float16",
        "conv1.relu.float32",
        "conv3.float16",
    }
    for scores in (run(model, image)[0], in_real_float16(model, image)):
        assert scores.dtype == np.float16
        assert np.abs(scores - exact).max() <= 8 * 2.0**-11 * np.abs(exact).max()


def test_the_same_network_breaks_when_its_ranges_hide_the_overflow(make_graph, conv, calibrate, image):
    model = overflowing(make_graph, conv)
    hiding = {name: TensorRange(-1.0, 1.0, 1.0) for name in calibrate(model, image)}
    assert len(to_fp16(model, ranges=hiding).float32) == 3
    assert not np.isfinite(in_real_float16(model, image)).all()


def test_scores_that_overflow_stay_float32(residual_fcn, calibrate, run, image):
    exact = run(residual_fcn, image)[0]
    ranges = calibrate(residual_fcn, image)
    ranges["scores"] = TensorRange(-1.0, 40000.0, 1.0)
    report = to_fp16(residual_fcn, ranges=ranges)
    assert report.float32[-1].node == "scores"
    (scores,) = run(residual_fcn, image)
    assert scores.dtype == np.float32
    assert np.abs(scores - exact).max() <= 12 * 2.0**-11 * np.abs(exact).max()


def test_kept_last_layer_still_gives_float16_scores(residual_fcn, calibrate, run, image):
    ranges = calibrate(residual_fcn, image)
    to_fp16(residual_fcn, ranges=ranges, keep_fp32=["scores", "score2"])
    assert_no_mixed_node(residual_fcn)
    assert [value.name for value in residual_fcn.graph.outputs] == ["scores"]
    assert run(residual_fcn, image)[0].dtype == np.float16


def with_labels(model: ir.Model) -> ir.Model:
    """End `residual_fcn` in labels, as the labels head does."""
    scores = model.graph.outputs[0]
    winner = ir.Node(
        "", "ArgMax", [scores], attributes=[ir.AttrInt64("axis", 1), ir.AttrInt64("keepdims", 0)], name="argmax"
    )
    winner.outputs[0].name, winner.outputs[0].type = "winner", ir.TensorType(ir.DataType.INT64)
    cast = ir.Node("", "Cast", winner.outputs, attributes=[ir.AttrInt64("to", int(ir.DataType.UINT8))], name="labels")
    cast.outputs[0].name, cast.outputs[0].type = "labels", ir.TensorType(ir.DataType.UINT8)
    winner.outputs[0].shape = cast.outputs[0].shape = ir.Shape([1, 8, 8])
    model.graph.extend([winner, cast])
    model.graph.outputs[0] = cast.outputs[0]
    return model


def test_labels_head_gives_uint8(residual_fcn, calibrate, run, image):
    scores = np.sort(run(residual_fcn, image)[0], axis=1)
    model = with_labels(residual_fcn)
    expected = run(model, image)[0]
    to_fp16(model, ranges=calibrate(model, image))
    assert_no_mixed_node(model)
    (labels,) = run(model, image)
    assert (labels.dtype, labels.shape) == (np.uint8, (1, 8, 8))
    clear = scores[:, -1] - scores[:, -2] > 24 * 2.0**-11 * np.abs(scores).max()
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(labels[clear], expected[clear])


def test_scales_of_a_resize_stay_float32(make_graph, conv, calibrate, run):
    x = np.random.default_rng(0).normal(size=(1, 2, 4, 4)).astype(np.float32)
    constants = {"a.weight": np.ones((2, 2, 1, 1), np.float32), "scales": np.array([1, 1, 2, 2], np.float32)}
    nodes = [conv("a", "x", bias=False), helper.make_node("Resize", ["a", "", "scales"], ["scores"], mode="linear")]
    model = make_graph(nodes, constants, ("x", np.float32, x.shape))
    exact = run(model, x)[0]
    to_fp16(model, ranges={"x": TensorRange(-4.0, 4.0, 4.0), **calibrate(model, x)})
    assert model.graph.initializers["scales"].dtype == SINGLE
    np.testing.assert_allclose(run(model, x)[0], exact, atol=4 * 2.0**-11 * np.abs(exact).max())


def test_constant_nodes_become_float16_too(make_graph, conv, calibrate, run):
    x = np.random.default_rng(0).normal(size=(1, 2, 4, 4)).astype(np.float32)
    nodes = [
        conv("a", "x", bias=False),
        helper.make_node("Constant", [], ["two"], value=onnx.numpy_helper.from_array(np.array(2, np.float32))),
        helper.make_node("Mul", ["a", "two"], ["scores"]),
    ]
    model = make_graph(nodes, {"a.weight": np.ones((2, 2, 1, 1), np.float32)}, ("x", np.float32, x.shape))
    ranges = {"x": TensorRange(-4.0, 4.0, 4.0), **calibrate(model, x)}
    to_fp16(model, ranges=ranges)
    assert_no_mixed_node(model)
    assert run(model, x)[0].dtype == np.float16


def test_one_cast_serves_all_readers(residual_fcn, calibrate, image):
    ranges = calibrate(residual_fcn, image)
    report = to_fp16(residual_fcn, ranges=ranges, keep_fp32=["pool", "score_pool"])
    casts = [node for node in residual_fcn.graph if node.op_type == "Cast" and node.inputs[0].name == "sum"]
    assert len(casts) == 1
    assert report.types.casts == 4  # behind the pixels, in front of the two, behind each


def test_bad_range_is_refused(residual_fcn, calibrate, image):
    ranges = calibrate(residual_fcn, image)
    ranges["deep"] = TensorRange(float("nan"), 1.0, 1.0)
    with pytest.raises(UserError, match="the range of tensor deep is"):
        to_fp16(residual_fcn, ranges=ranges)


def test_real_lite0_agrees_with_float32(lite0_bundle, calibrate, run):
    import cv2

    model = ir.load(lite0_bundle / "model.fp32.onnx")
    image = cv2.resize(np.random.default_rng(4).integers(0, 256, (6, 9, 3), np.uint8), (96, 64))[None]
    exact = run(model, image)[0]
    report = to_fp16(model, ranges=calibrate(model, image))
    assert_no_mixed_node(model)
    assert len(report.float32) == 3
    (scores,) = run(model, image)
    assert np.linalg.norm(scores - exact) <= 0.01 * np.linalg.norm(exact)
