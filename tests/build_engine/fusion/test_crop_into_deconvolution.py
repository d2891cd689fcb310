"""Rule 1 on real exports, and on every spelling of a crop, against the same graph before."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from fcnedge.build_engine.fusion.crop_into_deconvolution import crop_into_deconvolution

from .conftest import EXPORTED

DECONVOLUTIONS = {"fcn32s": 1, "fcn16s": 2, "fcn8s": 3}
INT32_MAX, INT64_MAX = 2**31 - 1, 2**63 - 1


@pytest.mark.parametrize("name", EXPORTED)
def test_every_crop_of_a_real_export_folds_bit_exact(name, exported, image, infer):
    model = exported(name)
    before = infer(model, image)
    report = crop_into_deconvolution(model.graph)
    assert report.applied == DECONVOLUTIONS[name.split("-")[0]]
    assert report.refused == ()
    assert Counter(node.op_type for node in model.graph)["Slice"] == 0
    np.testing.assert_array_equal(infer(model, image), before, strict=True)
    assert crop_into_deconvolution(model.graph).applied == 0


@st.composite
def deconvolutions(draw: st.DrawFn) -> dict:
    """Attributes, sizes and output lengths of a ConvTranspose with at least one output row and column."""
    pairs = {
        "kernel_shape": (1, 6),
        "strides": (1, 4),
        "dilations": (1, 2),
        "size": (1, 5),
    }
    drawn = {name: draw(st.tuples(st.integers(*limits), st.integers(*limits))) for name, limits in pairs.items()}
    output_padding, pads, lengths = [], [0, 0, 0, 0], []
    for axis in range(2):
        stride, dilation = drawn["strides"][axis], drawn["dilations"][axis]
        output_padding.append(draw(st.integers(0, stride - 1)))
        reach = (drawn["kernel_shape"][axis] - 1) * dilation
        length = stride * (drawn["size"][axis] - 1) + reach + 1 + output_padding[axis]
        pads[axis] = draw(st.integers(0, min(reach, length - 1)))
        pads[axis + 2] = draw(st.integers(0, min(reach, length - 1 - pads[axis])))
        lengths.append(length - pads[axis] - pads[axis + 2])
    channels = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    group = draw(st.sampled_from([1, channels[0]]))
    return {**drawn, "pads": pads, "output_padding": output_padding, "lengths": lengths, "channels": channels} | {
        "group": group
    }


def start_spellings(before: int, length: int) -> list[int]:
    return [before, before - length]


def end_spellings(after: int, length: int) -> list[int]:
    open_ends = [INT32_MAX, INT64_MAX, length + 1] if after == 0 else [-after]
    return [*open_ends, length - after]


@st.composite
def crops(draw: st.DrawFn, lengths: list[int]) -> tuple[list[int], dict[str, list[int]]]:
    """Rows and columns to remove (top, left, bottom, right), and Slice parameters that say so in some spelling."""
    before = [draw(st.integers(0, length - 1)) for length in lengths]
    after = [draw(st.integers(0, length - 1 - first)) for length, first in zip(lengths, before, strict=True)]
    amounts = {2: (before[0], after[0], lengths[0]), 3: (before[1], after[1], lengths[1])}
    axes = list(draw(st.sampled_from([(0, 2, 3, 1), (2, 3), (3, 2), (0, 1, 2, 3), (3, 0, 2)])))
    starts, ends = [], []
    for axis in axes:
        first, last, length = amounts.get(axis, (0, 0, 1))
        starts.append(draw(st.sampled_from(start_spellings(first, length) if axis in amounts else [0])))
        ends.append(draw(st.sampled_from(end_spellings(last, length) if axis in amounts else [INT32_MAX, INT64_MAX])))
    parameters = {"starts": starts, "ends": ends}
    if axes != [0, 1, 2, 3] or draw(st.booleans()):
        parameters["axes"] = [axis - 4 if draw(st.booleans()) else axis for axis in axes]
        if draw(st.booleans()):
            parameters["steps"] = [1] * len(axes)
    return [*before, *after], parameters


def slice_constants(parameters: dict[str, list[int]], dtype: type, spelling: str) -> tuple[list, dict]:
    """Constant nodes and initialisers for the parameters; spelling: initializer, value or value_ints."""
    arrays = {name: np.array(np.clip(values, None, np.iinfo(dtype).max), dtype) for name, values in parameters.items()}
    if spelling == "initializer":
        return [], arrays
    if spelling == "value":
        tensors = {name: onnx.numpy_helper.from_array(array) for name, array in arrays.items()}
        return [helper.make_node("Constant", [], [name], value=tensor) for name, tensor in tensors.items()], {}
    return [helper.make_node("Constant", [], [name], value_ints=array.tolist()) for name, array in arrays.items()], {}


def deconvolution_node(shape: dict, **overrides) -> onnx.NodeProto:
    names = ("kernel_shape", "strides", "dilations", "pads", "output_padding", "group")
    return helper.make_node(
        "ConvTranspose", ["x", "kernel"], ["full"], name="deconv", **{name: shape[name] for name in names} | overrides
    )


def arrays_of(shape: dict, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Input (1, a, h, w) and kernel (a, b, k, k)."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, shape["channels"][0], *shape["size"])).astype(np.float32)
    return x, rng.standard_normal((*shape["channels"], *shape["kernel_shape"])).astype(np.float32)


@settings(max_examples=250, deadline=None)
@given(
    data=st.data(),
    shape=deconvolutions(),
    dtype=st.sampled_from([np.int32, np.int64]),
    spelling=st.sampled_from(["initializer", "value", "value_ints"]),
    shapes_known=st.booleans(),
)
def test_any_crop_folds_bit_exact_or_reaches_past_the_kernel(data, shape, dtype, spelling, shapes_known, graph, infer):
    amounts, parameters = data.draw(crops(shape["lengths"]))
    constants, initializers = slice_constants(parameters, np.int64 if spelling == "value_ints" else dtype, spelling)
    x, weights = arrays_of(shape)
    rounding = 0.0
    crop = helper.make_node("Slice", ["full", *parameters], ["y"], name="crop")
    nodes = [deconvolution_node(shape), *constants, crop]
    model = graph(nodes, {"x": x}, ["y"], {"kernel": weights, **initializers}, shapes_known=shapes_known)
    before = infer(model, x)
    report = crop_into_deconvolution(model.graph)
    pads = [pad + amount for pad, amount in zip(shape["pads"], amounts, strict=True)]
    kernel = [*shape["kernel_shape"]] * 2
    if report.applied:
        (node,) = (node for node in model.graph if node.op_type == "ConvTranspose")
        folded = node.attributes["pads"].as_ints()
        assert all(0 <= pad < side for pad, side in zip(folded, kernel, strict=True)), "backends accept no other"
        sliced = [node.op_type for node in model.graph if node.op_type != "Constant"].count("Slice")
        if all(pad < side for pad, side in zip(pads, kernel, strict=True)):
            assert (folded, sliced) == (tuple(pads), 0)
        else:
            assert sliced == 1  # the same products, summed by a GEMM of another size
            rounding = kernel[0] * kernel[1] * len(x[0]) * 2**-23 * abs(x).max() * abs(weights).max()
    else:
        assert any(pad >= side for pad, side in zip(pads, kernel, strict=True))
        assert len(report.refused) == 1
    np.testing.assert_allclose(infer(model, x), before, rtol=0, atol=rounding, strict=True)
    assert crop_into_deconvolution(model.graph).applied == 0


def test_crop_of_caffes_fcn8s_leaves_a_slice_and_less_than_a_kernel(graph, infer):
    """31 rows off the top of stride 8, kernel 16: two input rows and 15; so many at the bottom that six more go."""
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((1, 2, 18, 18)), rng.standard_normal((2, 2, 16, 16))
    nodes = [
        helper.make_node("ConvTranspose", ["x", "kernel"], ["full"], strides=[8, 8], name="upsample"),
        helper.make_node("Slice", ["full", "starts", "ends", "axes"], ["y"], name="crop"),
    ]
    bounds = {"starts": np.array([31, 31]), "ends": np.array([31 + 64, 31 + 64]), "axes": np.array([2, 3])}
    arrays = {"kernel": kernel.astype(np.float32), **bounds}
    model = graph(nodes, {"x": x.astype(np.float32)}, ["y"], arrays)
    expected = infer(model, x.astype(np.float32))
    assert crop_into_deconvolution(model.graph).applied == 1
    slice_node, deconvolution = model.graph
    assert (slice_node.op_type, tuple(slice_node.outputs[0].shape)) == ("Slice", (1, 2, 10, 10))
    assert deconvolution.attributes["pads"].as_ints() == (15, 15, 9, 9)
    np.testing.assert_allclose(infer(model, x.astype(np.float32)), expected, rtol=0, atol=1e-5, strict=True)
    assert crop_into_deconvolution(model.graph).applied == 0


def test_whole_rows_stay_where_their_number_is_not_known(graph):
    nodes = [
        helper.make_node("ConvTranspose", ["x", "kernel"], ["full"], strides=[2, 2], name="deconv"),
        helper.make_node("Slice", ["full", "starts", "ends", "axes"], ["y"], name="crop"),
    ]
    bounds = {"starts": np.array([5, 0]), "ends": np.array([INT32_MAX, INT32_MAX]), "axes": np.array([2, 3])}
    _, kernel = arrays_of({"kernel_shape": (4, 4), "channels": (2, 2), "size": (3, 3)})
    model = graph(nodes, {"x": (np.float32, ("n", 2, "h", "w"))}, ["y"], {"kernel": kernel, **bounds})
    report = crop_into_deconvolution(model.graph)
    assert (report.applied, len(report.refused)) == (0, 1)
    assert report.refused[0].reason.startswith("the crop takes whole input rows or columns away, and how many there")


@settings(max_examples=60, deadline=None)
@given(
    before=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    after=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    size=st.tuples(st.integers(3, 5), st.integers(3, 5)),
    open_end=st.sampled_from([INT32_MAX, INT64_MAX]),
)
def test_crop_from_both_edges_folds_without_static_shapes(before, after, size, open_end, graph, infer):
    shape = {"kernel_shape": (4, 4), "channels": (2, 2), "size": size}
    x, kernel = arrays_of(shape)
    constants = {
        "starts": np.array([0, *before, 0]),
        "ends": np.array([open_end, *(-amount if amount else open_end for amount in after), open_end]),
        "axes": np.array([0, 2, 3, 1]),
    }
    nodes = [
        helper.make_node("ConvTranspose", ["x", "kernel"], ["full"], strides=[2, 2]),
        helper.make_node("Slice", ["full", *constants], ["y"]),
    ]
    model = graph(nodes, {"x": (np.float32, ("n", 2, "h", "w"))}, ["y"], {"kernel": kernel, **constants})
    expected = infer(model, x)
    assert crop_into_deconvolution(model.graph).applied == 1
    np.testing.assert_array_equal(infer(model, x), expected, strict=True)


def test_folded_graph_passes_the_checker_when_only_the_deconvolution_knew_its_shape(graph, infer):
    x, kernel = arrays_of({"kernel_shape": (4, 4), "channels": (2, 2), "size": (3, 3)})
    nodes, constants = crop_of_one_row()
    model = graph([*nodes, helper.make_node("Relu", ["y"], ["z"])], {"x": x}, ["z"], {"kernel": kernel, **constants})
    cropped = next(node for node in model.graph if node.op_type == "Slice").outputs[0]
    cropped.shape = None
    assert crop_into_deconvolution(model.graph).applied == 1
    assert infer(model, x).shape == (1, 2, 7, 8)


def crop_of_one_row(**attributes) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    nodes = [
        helper.make_node("ConvTranspose", ["x", "kernel"], ["full"], **{"strides": [2, 2]} | attributes),
        helper.make_node("Slice", ["full", "starts", "ends", "axes"], ["y"], name="crop"),
    ]
    return nodes, {"starts": np.array([1]), "ends": np.array([INT64_MAX]), "axes": np.array([2])}


def refused_used_twice():
    nodes, constants = crop_of_one_row()
    return [*nodes, helper.make_node("Relu", ["full"], ["z"])], ["y", "z"], constants, {}


def refused_is_output():
    nodes, constants = crop_of_one_row()
    return nodes, ["y", "full"], constants, {}


def refused_same_padding():
    nodes, constants = crop_of_one_row(auto_pad="SAME_UPPER")
    return nodes, ["y"], constants, {}


def refused_output_shape():
    nodes, constants = crop_of_one_row(output_shape=[8, 8])
    return nodes, ["y"], constants, {}


def refused_beyond_the_kernel():
    nodes, constants = crop_of_one_row(strides=[5, 5])
    return nodes, ["y"], constants | {"starts": np.array([4])}, {}


def refused_nothing_left():
    nodes, constants = crop_of_one_row(pads=[2, 0, 2, 0])
    return nodes, ["y"], constants | {"starts": np.array([3]), "ends": np.array([2])}, {}


def refused_at_run_time():
    nodes, constants = crop_of_one_row()
    starts = constants.pop("starts")
    return nodes, ["y"], constants, {"starts": starts}


def refused_step():
    nodes, constants = crop_of_one_row()
    nodes[1].input.append("steps")
    return nodes, ["y"], constants | {"steps": np.array([2])}, {}


def refused_step_in_a_constant_node():
    nodes, constants = crop_of_one_row()
    nodes[1].input.append("steps")
    return [helper.make_node("Constant", [], ["steps"], value_ints=[2]), *nodes], ["y"], constants, {}


def refused_classes():
    nodes, constants = crop_of_one_row()
    return nodes, ["y"], constants | {"axes": np.array([1])}, {}


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (refused_used_twice, "the uncropped deconvolution is used elsewhere too."),
        (refused_is_output, "the uncropped deconvolution is used elsewhere too."),
        (refused_same_padding, "the deconvolution's padding is SAME_UPPER, which depends on the size."),
        (refused_output_shape, "the deconvolution fixes its output_shape."),
        (refused_beyond_the_kernel, "the crop goes beyond the kernel, which backends do not accept as padding."),
        (refused_nothing_left, "the crop leaves no rows or no columns."),
        (refused_at_run_time, "the crop is computed at run time."),
        (refused_step, "the slice skips or reverses rows, so it is not a crop."),
        (refused_step_in_a_constant_node, "the slice skips or reverses rows, so it is not a crop."),
        (refused_classes, "the slice takes away pictures or classes, not only rows and columns."),
    ],
)
def test_refusal_is_reported_and_changes_nothing(case, reason, graph, infer):
    nodes, outputs, constants, extra = case()
    x, kernel = arrays_of({"kernel_shape": (4, 4), "channels": (2, 2), "size": (3, 3)})
    model = graph(nodes, {"x": x, **extra}, outputs, {"kernel": kernel, **constants})
    before = infer(model, x, *extra.values())
    report = crop_into_deconvolution(model.graph)
    assert report.applied == 0
    assert [(refusal.node, refusal.reason) for refusal in report.refused] == [("crop", reason)]
    np.testing.assert_array_equal(infer(model, x, *extra.values()), before, strict=True)


def test_crop_with_bounds_as_attributes_is_refused(graph, infer):
    x, kernel = arrays_of({"kernel_shape": (4, 4), "channels": (2, 2), "size": (3, 3)})
    nodes = [
        helper.make_node("ConvTranspose", ["x", "kernel"], ["full"], strides=[2, 2]),
        helper.make_node("Slice", ["full"], ["y"], starts=[1], ends=[7], axes=[2]),  # as before opset 10
    ]
    model = graph(nodes, {"x": x}, ["y"], {"kernel": kernel}, opset=9)
    before = infer(model, x)
    report = crop_into_deconvolution(model.graph)
    assert report.applied == 0
    assert [refusal.reason for refusal in report.refused] == ["the crop has no constant bounds."]
    np.testing.assert_array_equal(infer(model, x), before, strict=True)


@pytest.mark.parametrize(("start", "end"), [(-7, INT64_MAX), (1, 7)])
def test_crop_from_an_unknown_edge_is_refused(start, end, graph, infer):
    nodes, constants = crop_of_one_row()
    constants |= {"starts": np.array([start]), "ends": np.array([end])}
    x, kernel = arrays_of({"kernel_shape": (4, 4), "channels": (2, 2), "size": (3, 3)})
    model = graph(nodes, {"x": (np.float32, (1, 2, "h", "w"))}, ["y"], {"kernel": kernel, **constants})
    before = infer(model, x)
    report = crop_into_deconvolution(model.graph)
    assert report.applied == 0
    assert [refusal.reason for refusal in report.refused] == [
        "the crop counts from an edge whose position is not known: the graph has no static shape."
    ]
    np.testing.assert_array_equal(infer(model, x), before, strict=True)
