"""Q/DQ nodes are carried out as written, and not turned into integer kernels."""

from __future__ import annotations

import builtins

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from fcnedge.build_engine.precision import open_simulated, place, to_int8
from fcnedge.calibration.ranges import TensorRange
from fcnedge.runtime.errors import UserError


@pytest.fixture
def quantised(residual_fcn, calibrate, image) -> ir.Model:
    ranges = calibrate(residual_fcn, image)
    to_int8(residual_fcn, ranges, place(residual_fcn, stem=True, depthwise=True, scores=True), elsewhere="fp32")
    return residual_fcn


def test_file_and_bytes_give_what_the_graph_says(quantised, run, image, tmp_path):
    expected = run(quantised, image)[0]
    path = tmp_path / "model.onnx"
    ir.save(quantised, path)
    for source in (path, path.read_bytes()):
        found = open_simulated(source, threads=1).run(None, {"image": image})[0]
        # The order of sums differs from the unoptimised graph's; a flipped rounding would be a whole step.
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_no_integer_kernel_is_used(make_graph, conv, tmp_path):
    weights = {
        f"{name}.weight": np.random.default_rng(0).normal(size=(4, 4, 1, 1)).astype(np.float32) for name in "abc"
    }
    nodes = [conv("a", "x", bias=False), conv("b", "a", bias=False), conv("c", "b", bias=False)]
    model = make_graph(nodes, weights, ("x", np.float32, (1, 4, 4, 4)), "c")
    ranges = {name: TensorRange(-1.0, 1.0, 1.0) for name in "xab"}
    to_int8(model, ranges, place(model, stem=True, scores=True), elsewhere="fp32")
    source = ir.to_proto(model).SerializeToString()

    def kinds(options: ort.SessionOptions) -> set[str]:
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        ort.InferenceSession(source, options, ["CPUExecutionProvider"])
        return {node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node}

    assert "QLinearConv" in kinds(ort.SessionOptions())
    assert kinds(open_simulated(source, threads=1).get_session_options()) >= {"QuantizeLinear", "Conv"}
    assert "QLinearConv" not in kinds(open_simulated(source, threads=1).get_session_options())


def test_missing_onnxruntime_names_the_extra(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "onnxruntime":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"onnxruntime is not installed; install it with: pip install 'fcnedge\[cpu\]'"):
        open_simulated(b"")
