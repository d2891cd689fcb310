from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from fcnedge.build_engine.fusion.crop_before_convolution import crop_before_convolution

RNG = np.random.default_rng(0)
KERNEL = RNG.standard_normal((3, 5, 1, 1)).astype(np.float32)
BIAS = RNG.standard_normal(3).astype(np.float32)
OPEN_END = 2**31 - 1


def picture(rows, columns):
    return np.random.default_rng(1).standard_normal((1, 5, rows, columns)).astype(np.float32)


def cropped(graph, x, starts, ends, axes, kernel=KERNEL, reader=(), steps=None, **attributes):
    """Conv → Slice (→ more) as a model."""
    bounds = {"starts": starts, "ends": ends, "axes": axes} | ({} if steps is None else {"steps": steps})
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["scores"], name="score_pool4", **attributes),
        helper.make_node("Slice", ["scores", *bounds], ["y"], name="crop"),
        *reader,
    ]
    arrays = {"w": kernel, "b": BIAS, **{name: np.array(values, np.int64) for name, values in bounds.items()}}
    return graph(nodes, {"x": x}, ["y", *(node.output[0] for node in reader)], arrays)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), rows=st.integers(1, 9), columns=st.integers(1, 9), negative=st.booleans())
def test_any_crop_moves_and_computes_the_same(data, rows, columns, negative, graph, infer):
    top, left = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    bottom, right = data.draw(st.integers(1, rows - top)), data.draw(st.integers(1, columns - left))
    ends = [top + bottom, left + right]
    if negative:
        ends = [end - side or OPEN_END for end, side in zip(ends, (rows, columns), strict=True)]
    x = picture(rows, columns)
    model = cropped(graph, x, [0, top, left, 0], [OPEN_END, *ends, OPEN_END], [0, 2, 3, 1])
    expected = infer(model, x)
    assert expected.shape == (1, 3, bottom, right)
    assert crop_before_convolution(model.graph).applied == 1
    assert [node.op_type for node in model.graph] == ["Slice", "Conv"]
    # the same five products per pixel, summed by a GEMM of another size
    np.testing.assert_allclose(infer(model, x), expected, rtol=0, atol=6 * 2**-23 * 16, strict=True)
    assert crop_before_convolution(model.graph).applied == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"axes": [1, 2], "starts": [1, 2]}, "the slice takes away pictures or classes, not only rows and columns."),
        ({"steps": [2, 1]}, "the crop's bounds are not known."),
        (
            {"reader": (helper.make_node("Relu", ["scores"], ["z"]),)},
            "the uncropped convolution is used elsewhere too.",
        ),
    ],
)
def test_refusal_is_reported_and_changes_nothing(changes, reason, graph):
    model = cropped(graph, picture(6, 7), **{"starts": [1, 2], "ends": [5, 6], "axes": [2, 3]} | changes)
    kinds = [node.op_type for node in model.graph]
    report = crop_before_convolution(model.graph)
    assert (report.applied, [(each.node, each.reason) for each in report.refused]) == (0, [("crop", reason)])
    assert [node.op_type for node in model.graph] == kinds


@pytest.mark.parametrize(
    "changes",
    [{"kernel": RNG.standard_normal((3, 5, 3, 3)).astype(np.float32)}, {"strides": [2, 2]}, {"pads": [1, 1, 1, 1]}],
)
def test_convolution_that_looks_at_its_neighbours_is_left_alone(changes, graph):
    model = cropped(graph, picture(9, 9), [1, 1], [3, 3], [2, 3], **changes)
    report = crop_before_convolution(model.graph)
    assert (report.applied, report.refused) == (0, ())
