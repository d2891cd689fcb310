"""Rule 3b: the skip sum in the form that backends fuse, with the deconvolution's bias in the right place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from fcnedge.build_engine.fusion.crop_into_deconvolution import crop_into_deconvolution
from fcnedge.build_engine.fusion.skip_add import skip_add

from .conftest import EXPORTED

SKIPS = {"fcn32s": 0, "fcn16s": 1, "fcn8s": 2}
CLASSES, FEATURES = 3, 4
UNIT = 2.0**-24


def assert_epilogue_form(graph: Any, add: Any) -> None:
    """Convolution with a bias, read by the sum alone as its first addend, and run right before it."""
    convolution, deconvolution = (value.producer() for value in add.inputs)
    assert (convolution.op_type, deconvolution.op_type) == ("Conv", "ConvTranspose")
    assert len(convolution.inputs) == 3
    assert convolution.inputs[2].const_value is not None
    assert len(convolution.outputs[0].uses()) == 1
    nodes = list(graph)
    assert nodes.index(add) == nodes.index(convolution) + 1 > nodes.index(deconvolution) + 1


@pytest.mark.parametrize("name", EXPORTED)
def test_every_skip_sum_of_a_real_export_is_arranged_bit_exact(name, exported, image, infer):
    model = exported(name)
    crop_into_deconvolution(model.graph)  # the crop stands between deconvolution and sum
    before = infer(model, image)
    report = skip_add(model.graph)
    assert report.applied == SKIPS[name.split("-")[0]]
    assert report.refused == ()
    sums = [node for node in model.graph if node.op_type == "Add" and "sum_pool" in node.name]
    assert len(sums) == report.applied
    for node in sums:
        assert_epilogue_form(model.graph, node)
    np.testing.assert_array_equal(infer(model, image), before, strict=True)
    assert skip_add(model.graph).applied == 0


def skip_nodes(*, conv_bias="bias", deconv_bias="", conv_first_addend=True, conv_runs_first=True) -> list:
    """A bias is named by its input; "" leaves the input empty and None leaves it out."""
    inputs = {
        "Conv": ["fine", "conv_kernel", *([] if conv_bias is None else [conv_bias])],
        "ConvTranspose": ["coarse", "deconv_kernel", *([] if deconv_bias is None else [deconv_bias])],
    }
    convolution = helper.make_node("Conv", inputs["Conv"], ["score"], name="score")
    deconvolution = helper.make_node("ConvTranspose", inputs["ConvTranspose"], ["up"], strides=[2, 2], pads=[1] * 4)
    nodes = [convolution, deconvolution] if conv_runs_first else [deconvolution, convolution]
    addends = ["score", "up"] if conv_first_addend else ["up", "score"]
    return [*nodes, helper.make_node("Add", addends, ["sum"], name="skip")]


def arrays(seed: int = 0, features: int = FEATURES, sides: tuple[int, int] = (2, 3)) -> tuple[dict, dict]:
    """({fine, coarse}, constants), float32."""
    rng = np.random.default_rng(seed)
    inputs = {
        "fine": rng.standard_normal((1, features, 2 * sides[0], 2 * sides[1])),
        "coarse": rng.standard_normal((1, CLASSES, *sides)),
    }
    constants = {
        "conv_kernel": rng.standard_normal((CLASSES, features, 1, 1)),
        "deconv_kernel": rng.standard_normal((CLASSES, CLASSES, 4, 4)),
        "bias": rng.standard_normal(CLASSES),
        "deconv_bias": rng.standard_normal(CLASSES),
    }
    inputs, constants = (
        {name: array.astype(np.float32) for name, array in group.items()} for group in (inputs, constants)
    )
    return inputs, constants


def used(constants: dict, nodes: list) -> dict:
    read = {name for node in nodes for name in node.input}
    return {name: array for name, array in constants.items() if name in read}


@settings(max_examples=150, deadline=None)
@given(
    conv_bias=st.sampled_from(["bias", "", None]),
    deconv_bias=st.sampled_from(["deconv_bias", "", None]),
    conv_first_addend=st.booleans(),
    conv_runs_first=st.booleans(),
    deconv_read_elsewhere=st.booleans(),
    features=st.integers(1, 6),
    sides=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 2**16),
)
def test_any_skip_sum_takes_epilogue_form_and_keeps_its_value(
    conv_bias,
    deconv_bias,
    conv_first_addend,
    conv_runs_first,
    deconv_read_elsewhere,
    features,
    sides,
    seed,
    graph,
    infer,
):
    inputs, constants = arrays(seed, features, sides)
    nodes = skip_nodes(
        conv_bias=conv_bias,
        deconv_bias=deconv_bias,
        conv_first_addend=conv_first_addend,
        conv_runs_first=conv_runs_first,
    )
    outputs = ["sum"]
    if deconv_read_elsewhere:
        nodes, outputs = [*nodes, helper.make_node("Relu", ["up"], ["other"])], ["sum", "other"]
    model = graph(nodes, inputs, outputs, used(constants, nodes))
    before = infer(model, *inputs.values())
    report = skip_add(model.graph)
    moved = deconv_bias == "deconv_bias" and not deconv_read_elsewhere
    in_form = conv_bias == "bias" and conv_first_addend and not conv_runs_first and not moved
    assert (report.applied, report.refused) == (0 if in_form else 1, ())
    add = next(node for node in model.graph if node.op_type == "Add")
    assert_epilogue_form(model.graph, add)
    deconvolution = add.inputs[1].producer()
    assert (len(deconvolution.inputs) > 2 and deconvolution.inputs[2] is not None) == (
        deconv_bias == "deconv_bias" and deconv_read_elsewhere
    )
    after = infer(model, *inputs.values())
    if moved:
        # Both add the same features + 16·CLASSES products and two biases, in another order: each addition rounds once.
        total = magnitude(inputs, constants, with_bias=conv_bias == "bias")
        assert (np.abs(after - before) <= 2 * (features + 16 * CLASSES + 2) * UNIT * total).all()
    else:
        np.testing.assert_array_equal(after, before, strict=True)
    assert skip_add(model.graph).applied == 0


def magnitude(inputs: dict, constants: dict, *, with_bias: bool) -> np.ndarray:
    """(1, C, 1, 1) float64: no sum of absolute terms at any pixel exceeds it."""
    kernels = {name: np.abs(array.astype(np.float64)) for name, array in constants.items()}
    fine, coarse = (np.abs(inputs[name]).max(axis=(0, 2, 3)).astype(np.float64) for name in ("fine", "coarse"))
    conv = kernels["conv_kernel"][:, :, 0, 0] @ fine + (kernels["bias"] if with_bias else 0)
    deconv = coarse @ kernels["deconv_kernel"].sum(axis=(2, 3)) + kernels["deconv_bias"]
    return (conv + deconv)[None, :, None, None]


def test_deconvolution_bias_is_added_to_the_score_bias(graph, infer):
    inputs, constants = arrays()
    constants["bias"], constants["deconv_bias"] = np.array([1, 2, 3], np.float32), np.array([10, 20, 30], np.float32)
    nodes = skip_nodes(deconv_bias="deconv_bias")
    model = graph(nodes, inputs, ["sum"], used(constants, nodes))
    skip_add(model.graph)
    convolution = next(node for node in model.graph if node.op_type == "Conv")
    np.testing.assert_array_equal(convolution.inputs[2].const_value.numpy(), np.array([11, 22, 33], np.float32))


def test_score_convolution_that_others_read_too_is_refused(graph, infer):
    inputs, constants = arrays()
    nodes = [*skip_nodes(deconv_bias="deconv_bias"), helper.make_node("Relu", ["score"], ["other"])]
    model = graph(nodes, inputs, ["sum", "other"], used(constants, nodes))
    before = infer(model, *inputs.values())
    report = skip_add(model.graph)
    assert report.applied == 0
    assert [(r.node, r.reason) for r in report.refused] == [("skip", "the score convolution is used elsewhere too.")]
    np.testing.assert_array_equal(infer(model, *inputs.values()), before, strict=True)


def test_score_bias_computed_at_run_time_is_refused(graph, infer):
    inputs, constants = arrays()
    nodes = skip_nodes(deconv_bias="deconv_bias")
    inputs["bias"] = constants.pop("bias")
    model = graph(nodes, inputs, ["sum"], used(constants, nodes))
    before = infer(model, *inputs.values())
    report = skip_add(model.graph)
    assert report.applied == 0
    assert [(r.node, r.reason) for r in report.refused] == [
        ("skip", "the score convolution's bias is computed at run time.")
    ]
    np.testing.assert_array_equal(infer(model, *inputs.values()), before, strict=True)


def test_bias_of_all_classes_does_not_move_into_a_convolution_with_one_channel(graph, infer):
    inputs, constants = arrays()
    nodes = skip_nodes(deconv_bias="deconv_bias")
    constants["conv_kernel"], constants["bias"] = constants["conv_kernel"][:1], constants["bias"][:1]
    model = graph(nodes, inputs, ["sum"], used(constants, nodes))
    before = infer(model, *inputs.values())
    skip_add(model.graph)
    np.testing.assert_array_equal(infer(model, *inputs.values()), before, strict=True)


@pytest.mark.parametrize("kinds", [("Conv", "Conv"), ("ConvTranspose", "ConvTranspose"), ("Conv", "Relu")])
def test_sums_of_other_kinds_stay(kinds, graph, infer):
    x = np.random.default_rng(0).standard_normal((1, CLASSES, 4, 4)).astype(np.float32)
    kernel = np.random.default_rng(1).standard_normal((CLASSES, CLASSES, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node(kind, ["x"] if kind == "Relu" else ["x", "kernel"], [f"addend{i}"])
        for i, kind in enumerate(kinds)
    ]
    model = graph([*nodes, helper.make_node("Add", ["addend1", "addend0"], ["y"])], {"x": x}, ["y"], {"kernel": kernel})
    before = infer(model, x)
    report = skip_add(model.graph)
    assert (report.applied, report.refused) == (0, ())
    np.testing.assert_array_equal(infer(model, x), before, strict=True)
