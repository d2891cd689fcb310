"""Rule 2: class-diagonal deconvolutions become depthwise, bit for bit; all others stay and say why."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from fcnedge.build_engine.fusion.depthwise_deconvolution import depthwise_deconvolution

from .conftest import EXPORTED

DECONVOLUTIONS = {"fcn32s": 1, "fcn16s": 2, "fcn8s": 3}
CLASSES = 5


@pytest.mark.parametrize("name", EXPORTED)
def test_every_deconvolution_of_a_real_export_becomes_depthwise_bit_exact(name, exported, image, infer):
    model = exported(name)
    before = infer(model, image)
    report = depthwise_deconvolution(model.graph)
    assert report.applied == DECONVOLUTIONS[name.split("-")[0]]
    assert report.refused == ()
    deconvolutions = [node for node in model.graph if node.op_type == "ConvTranspose"]
    assert [node.attributes["group"].as_int() for node in deconvolutions] == [CLASSES] * len(deconvolutions)
    assert {node.inputs[1].shape[:2] for node in deconvolutions} == {(CLASSES, 1)}
    np.testing.assert_array_equal(infer(model, image), before, strict=True)
    assert depthwise_deconvolution(model.graph).applied == 0


def deconvolution(graph, kernel, *, size=(3, 4), bias=None, **attributes):
    """(model, x) of one ConvTranspose whose input has as many channels as `kernel` (in, out / group, k, k)."""
    x = np.random.default_rng(0).standard_normal((1, kernel.shape[0], *size)).astype(np.float32)
    inputs, constants = ["x", "kernel"], {"kernel": kernel}
    if bias is not None:
        inputs, constants = [*inputs, "bias"], {**constants, "bias": bias}
    node = helper.make_node("ConvTranspose", inputs, ["y"], name="deconv", **attributes)
    return graph([node], {"x": x}, ["y"], constants), x


def diagonal_kernel(classes: int, sides: tuple[int, int], seed: int = 0) -> np.ndarray:
    """(C, C, k, k) float32 that mixes no classes; every class has a kernel of its own."""
    kernel = np.zeros((classes, classes, *sides), np.float32)
    channels = np.arange(classes)
    kernel[channels, channels] = np.random.default_rng(seed).standard_normal((classes, *sides))
    return kernel


@settings(max_examples=150, deadline=None)
@given(
    classes=st.integers(2, 6),
    sides=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    strides=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    biased=st.booleans(),
    negative_zero=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_any_diagonal_kernel_becomes_depthwise_bit_exact(
    classes, sides, strides, dilations, size, pads, biased, negative_zero, seed, graph, infer
):
    lengths = [strides[i] * (size[i] - 1) + (sides[i] - 1) * dilations[i] + 1 for i in range(2)]
    pads = [pads[0] % sides[0], pads[1] % sides[1], pads[2] % sides[0], pads[3] % sides[1]]
    if any(lengths[i] - pads[i] - pads[i + 2] < 1 for i in range(2)):
        pads = [0, 0, 0, 0]
    kernel = diagonal_kernel(classes, sides, seed)
    if negative_zero:
        kernel[0, 1] = -0.0
    bias = np.random.default_rng(seed).standard_normal(classes).astype(np.float32) if biased else None
    model, x = deconvolution(
        graph, kernel, size=size, bias=bias, strides=strides, dilations=dilations, pads=pads, group=1
    )
    before = infer(model, x)
    report = depthwise_deconvolution(model.graph)
    assert (report.applied, report.refused) == (1, ())
    (node,) = model.graph
    assert node.attributes["group"].as_int() == classes
    assert tuple(node.inputs[1].shape) == (classes, 1, *sides)
    np.testing.assert_array_equal(infer(model, x), before, strict=True)
    assert depthwise_deconvolution(model.graph).applied == 0


@pytest.mark.parametrize("value", [1e-38, -0.25, np.nan, np.inf])
@pytest.mark.parametrize("place", [(0, 1), (2, 0)])
def test_kernel_with_one_weight_off_the_diagonal_stays_dense(value, place, graph, infer):
    kernel = diagonal_kernel(3, (4, 4))
    kernel[(*place, 1, 2)] = value
    model, x = deconvolution(graph, kernel, strides=[2, 2])
    before = infer(model, x)
    report = depthwise_deconvolution(model.graph)
    assert report.applied == 0
    largest = "inf" if np.isnan(value) else f"{abs(np.float32(value)):.3g}"
    assert [(refusal.node, refusal.reason) for refusal in report.refused] == [
        ("deconv", f"its kernel mixes classes: the largest off-diagonal weight is {largest} (a learned kernel).")
    ]
    np.testing.assert_array_equal(infer(model, x), before, strict=True)


def test_deconvolution_that_changes_the_number_of_channels_is_refused(graph, infer):
    kernel = np.random.default_rng(0).standard_normal((3, 2, 4, 4)).astype(np.float32)
    model, x = deconvolution(graph, kernel, strides=[2, 2])
    before = infer(model, x)
    report = depthwise_deconvolution(model.graph)
    assert (report.applied, [refusal.reason for refusal in report.refused]) == (0, ["it maps 3 channels to 2."])
    np.testing.assert_array_equal(infer(model, x), before, strict=True)


def test_kernel_computed_at_run_time_is_refused(graph, infer):
    kernel = diagonal_kernel(3, (4, 4))
    x = np.ones((1, 3, 2, 2), np.float32)
    node = helper.make_node("ConvTranspose", ["x", "kernel"], ["y"], strides=[2, 2])
    model = graph([node], {"x": x, "kernel": kernel}, ["y"])
    before = infer(model, x, kernel)
    report = depthwise_deconvolution(model.graph)
    assert (report.applied, [refusal.reason for refusal in report.refused]) == (0, ["its kernel is not a constant."])
    np.testing.assert_array_equal(infer(model, x, kernel), before, strict=True)


@pytest.mark.parametrize(("classes", "group"), [(1, 1), (4, 2), (4, 4)])
def test_one_class_and_grouped_deconvolutions_are_left_alone_without_a_word(classes, group, graph, infer):
    kernel = np.random.default_rng(0).standard_normal((classes, classes // group, 4, 4)).astype(np.float32)
    model, x = deconvolution(graph, kernel, strides=[2, 2], group=group)
    before = infer(model, x)
    report = depthwise_deconvolution(model.graph)
    assert (report.applied, report.refused) == (0, ())
    np.testing.assert_array_equal(infer(model, x), before, strict=True)


def test_kernel_shared_by_two_deconvolutions_serves_both(graph, infer):
    x = np.random.default_rng(0).standard_normal((1, 3, 2, 2)).astype(np.float32)
    nodes = [
        helper.make_node("ConvTranspose", ["x", "kernel"], ["half"], strides=[2, 2]),
        helper.make_node("ConvTranspose", ["half", "kernel"], ["y"], strides=[2, 2]),
    ]
    model = graph(nodes, {"x": x}, ["y"], {"kernel": diagonal_kernel(3, (4, 4))})
    before = infer(model, x)
    assert depthwise_deconvolution(model.graph).applied == 2
    np.testing.assert_array_equal(infer(model, x), before, strict=True)
