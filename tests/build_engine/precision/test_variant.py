"""A typed graph on disk and what is said about it: sizes, layers, labels and noise, against independent arithmetic."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from scipy import signal

from fcnedge.build_engine import export
from fcnedge.build_engine.precision import variant
from fcnedge.build_engine.precision.variant import FORMS, Fp32Reference, VariantReport, graph_bytes, write_variant
from fcnedge.calibration.fingerprint import graph_fingerprint
from fcnedge.calibration.ranges import Ranges, TensorRange
from fcnedge.runtime import BilinearHead, HeadGeometry
from fcnedge.runtime.errors import UserError

STRIDE = 2
HEAD = BilinearHead(HeadGeometry(STRIDE))


def as_ranges(model: ir.Model, tensors: dict[str, TensorRange]) -> Ranges:
    return Ranges("minmax", None, 1, (), "0" * 64, "0" * 64, graph_fingerprint(model), tensors, {})


@pytest.fixture
def ranges(residual_fcn, calibrate, image) -> Ranges:
    return as_ranges(residual_fcn, calibrate(residual_fcn, image))


@pytest.fixture
def reference(residual_fcn, image, tmp_path) -> Fp32Reference:
    ir.save(residual_fcn, tmp_path / "model.fp32.onnx")
    return Fp32Reference(tmp_path / "model.fp32.onnx", [image[0], image[0, ::-1].copy()], HEAD)


FP16, INT8 = FORMS["fp16"][0], FORMS["int8"][0]


def scores_of(path: Path, image: np.ndarray) -> np.ndarray:
    """(C, h, w) float64, by ONNX Runtime as the graph is written."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    return session.run(None, {"image": image[None]})[0][0].astype(np.float64)


def labels_of(scores: np.ndarray) -> np.ndarray:
    """Argmax behind a bilinear deconvolution with a symmetric crop, by SciPy."""
    tent, full = 1 - np.abs(np.arange(2 * STRIDE) - (STRIDE - 0.5)) / STRIDE, scores
    for axis in (1, 2):
        inside = range(STRIDE // 2, STRIDE // 2 + STRIDE * scores.shape[axis])
        full = signal.upfirdn(tent, full, up=STRIDE, axis=axis).take(inside, axis=axis)
    return full.argmax(0)


def types_between(path: Path) -> tuple[set[int], set[int]]:
    """(types of the integers that activations become, types of what is quantised) of a graph."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(path))).graph
    types = {each.name: each.data_type for each in graph.initializer}
    quantisers = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    return {types[node.input[2]] for node in quantisers}, {types[node.input[1]] for node in quantisers}


@pytest.mark.parametrize(
    ("target", "integers", "scales"),
    [
        (None, TensorProto.INT8, TensorProto.FLOAT),
        ("vnni", TensorProto.UINT8, TensorProto.FLOAT),
        ("tensorrt", TensorProto.INT8, TensorProto.FLOAT16),
    ],
)
def test_each_int8_graph_has_the_types_of_its_target(target, integers, scales, reference, ranges, tmp_path):
    (form,) = (form for form in FORMS["int8"] if form.target == target)
    report = write_variant(form, ranges, tmp_path, reference=reference)
    assert types_between(tmp_path / report.file) == ({integers}, {scales})
    assert (report.precision, report.target) == ("int8", target)


@pytest.mark.parametrize("form", [FP16, *FORMS["int8"]], ids=lambda form: form.title)
def test_agreement_is_what_scipy_finds_too(form, reference, ranges, image, tmp_path):
    path = tmp_path / form.file
    if form.precision == "int8":  # a coarse grid, so that labels do differ
        ranges.tensors.update({name: TensorRange(-99, 99, each.threshold * 9) for name, each in ranges.tensors.items()})
    report = write_variant(form, ranges, tmp_path, reference=reference)
    equal, power, noise = [], 0.0, 0.0
    for picture in (image[0], image[0, ::-1].copy()):
        exact, typed = scores_of(tmp_path / "model.fp32.onnx", picture), scores_of(path, picture)
        equal.append(labels_of(exact) == labels_of(typed))
        exact, typed = exact - exact.mean(0), typed - typed.mean(0)
        power, noise = power + (exact**2).sum(), noise + ((exact - typed) ** 2).sum()
    # a label that rounding flips, of 512, is the most that two orders of summation may change
    assert report.labels_equal == pytest.approx(np.mean(equal), abs=1 / 512 + 1e-9)
    assert report.score_sqnr_db == pytest.approx(10 * math.log10(power / noise), abs=0.1)
    assert (report.labels_equal < 1) is (form.precision == "int8")


def test_fp16_file_is_fp16_and_reported_as_it_lies_there(reference, ranges, tmp_path):
    path = tmp_path / "model.fp16.onnx"
    report = write_variant(FP16, ranges, tmp_path, reference=reference)
    graph = onnx.load(str(path)).graph
    assert graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    assert (report.precision, report.file, report.bytes) == ("fp16", path.name, path.stat().st_size)
    assert report.share_of_fp32 == pytest.approx(path.stat().st_size / (tmp_path / "model.fp32.onnx").stat().st_size)
    assert (report.int8_layers, report.float_layers) == ((), ())
    assert {layer.node for layer in report.float32_layers} >= {"image_planes", "image_centred"}


def test_int8_layers_are_those_whose_weight_is_dequantised_in_the_file(reference, ranges, tmp_path):
    path = tmp_path / "model.int8.onnx"
    report = write_variant(INT8, ranges, tmp_path, reference=reference, exclude={"project"})
    graph = onnx.load(str(path)).graph
    dequantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    quantised = [node.name for node in graph.node if node.op_type == "Conv" and node.input[1] in dequantised]
    assert sorted(report.int8_layers) == sorted(quantised) == ["deep", "depthwise", "expand"]
    reasons = {layer.node: layer.reason for layer in report.float_layers}
    assert reasons["project"] == "excluded by name."
    assert {"stem", "score_fr", "score_pool", "score2"} < set(reasons)


def test_int8_without_a_layer_left_is_refused(reference, ranges, tmp_path):
    with pytest.raises(UserError, match="no convolution of this graph is left to run in INT8"):
        write_variant(INT8, ranges, tmp_path, reference=reference, exclude={"project", "deep", "expand", "depthwise"})
    assert not (tmp_path / "model.int8.onnx").exists()


@pytest.mark.parametrize(("share", "holds"), [(0.8999, False), (0.9, True), (1.0, True), (math.nan, False)])
def test_nine_tenths_of_the_labels_must_be_equal(share, holds):
    report = VariantReport("int8", "vnni", "model.int8.vnni.onnx", 1, 0.3, share, 20.0, (), (), ())
    if holds:
        report.check()
        return
    with pytest.raises(UserError, match="the int8 vnni graph disagrees with fp32, so no bundle was written: "):
        report.check()


def test_overflow_that_the_ranges_have_not_seen_is_refused(make_graph, conv, tmp_path):
    weights = {f"{name}.weight": np.full((3, 3, 1, 1), 20, np.float32) for name in "abc"}
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["pixels"], to=TensorProto.FLOAT),
        *(conv(name, given, bias=False) for name, given in (("a", "pixels"), ("b", "a"), ("c", "b"))),
    ]
    model = make_graph(nodes, weights, output="c")
    ir.save(model, tmp_path / "model.fp32.onnx")
    bright = np.full((16, 16, 3), 255, np.uint8)  # 255 · 60³ = 55 million
    reference = Fp32Reference(tmp_path / "model.fp32.onnx", [bright], BilinearHead(HeadGeometry(1)))
    ranges = as_ranges(model, {name: TensorRange(0, 100, 100) for name in ("pixels", "planes", *"abc")})
    with pytest.raises(UserError, match="the fp16 graph gives NaN or infinite scores, so no bundle was written"):
        write_variant(FP16, ranges, tmp_path, reference=reference)


def test_labels_graph_is_compared_by_its_labels_alone(make_graph, conv, calibrate, image, tmp_path):
    weights = {"a.weight": np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)}
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["pixels"], to=TensorProto.FLOAT),
        conv("a", "pixels", bias=False),
        helper.make_node("ArgMax", ["a"], ["winner"], axis=1, keepdims=0),
        helper.make_node("Cast", ["winner"], ["labels"], to=TensorProto.UINT8),
    ]
    model = make_graph(nodes, weights, output="labels")
    ir.save(model, tmp_path / "model.fp32.onnx")
    reference = Fp32Reference(tmp_path / "model.fp32.onnx", [image[0]], None)
    ranges = as_ranges(model, calibrate(model, image))
    report = write_variant(FP16, ranges, tmp_path, reference=reference)
    assert report.labels_equal == 1.0
    assert math.isnan(report.score_sqnr_db)


@pytest.fixture
def overflowing(ranges) -> Ranges:
    """Give ranges by which the layer `deep` must keep its float32 weight."""
    ranges.tensors["deep"] = TensorRange(-60000, 60000, 60000)
    return ranges


def test_small_graph_does_not_read_the_fp32_graphs_data(residual_fcn, overflowing, image, tmp_path):
    ir.save(residual_fcn, tmp_path / "model.fp32.onnx", external_data="model.fp32.onnx.data", size_threshold_bytes=0)
    reference = Fp32Reference(tmp_path / "model.fp32.onnx", [image[0]], HEAD)
    path = tmp_path / "model.fp16.onnx"
    report = write_variant(FP16, overflowing, tmp_path, reference=reference)
    assert "deep" in {layer.node for layer in report.float32_layers}
    (tmp_path / "model.fp32.onnx.data").unlink()
    assert np.isfinite(scores_of(path, image[0])).all()
    assert report.bytes == path.stat().st_size


def test_big_graph_keeps_its_weights_in_its_own_data_file(residual_fcn, overflowing, image, tmp_path, monkeypatch):
    for module in (export, variant):
        monkeypatch.setattr(module, "INLINE_LIMIT_BYTES", 0)
    fp32, path = tmp_path / "model.fp32.onnx", tmp_path / "model.fp16.onnx"
    export.save_onnx(residual_fcn, fp32)
    report = write_variant(FP16, overflowing, tmp_path, reference=Fp32Reference(fp32, [image[0]], HEAD))
    data = tmp_path / "model.fp16.onnx.data"
    assert report.bytes == path.stat().st_size + data.stat().st_size == graph_bytes(path)
    assert report.share_of_fp32 == pytest.approx(report.bytes / graph_bytes(fp32))
    (tmp_path / "model.fp32.onnx.data").unlink()
    assert np.isfinite(scores_of(path, image[0])).all()
