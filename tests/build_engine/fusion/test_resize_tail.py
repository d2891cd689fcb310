"""A linear Resize at the end is the runtime's head, in every coordinate convention that the head can express."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from fcnedge.build_engine.fusion.fuse import fuse
from fcnedge.build_engine.fusion.last_upsampling import BilinearTail
from fcnedge.runtime import BilinearHead
from fcnedge.runtime.head import HeadGeometry

SIZE = (64, 96)
CLASSES = 5
LINEAR = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}


@pytest.fixture
def resized(graph):
    """Give (stride, attributes, …) → pixels, a convolution of that stride, and a Resize to the size of the pixels."""

    def build(stride, attributes=LINEAR, *, full=SIZE, scales=None, opset=17):
        random = np.random.default_rng(stride)
        constants = {
            "kernel": random.normal(0, 1 / 64, (CLASSES, 3, 3, 3)).astype(np.float32),
            "sizes": np.array([1, CLASSES, *full]),
        }
        names = ["scores_in", "", "", "sizes"]
        if scales is not None:
            constants["scales"] = np.array(scales, np.float32)
            del constants["sizes"]
            names = ["scores_in", "", "scales"]
        nodes = [
            helper.make_node("Cast", ["image"], ["real"], to=1),
            helper.make_node("Transpose", ["real"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Sub", ["planes", "grey"], ["centred"]),
            helper.make_node("Conv", ["centred", "kernel"], ["scores_in"], strides=[stride] * 2, pads=[1, 1, 1, 1]),
            helper.make_node("Resize", names, ["full"], **attributes),
        ]
        constants["grey"] = np.full((1, 3, 1, 1), 127, np.float32)
        return graph(nodes, {"image": (np.uint8, (1, *SIZE, 3))}, ["full"], constants, opset=opset)

    return build


@pytest.mark.parametrize("stride", [2, 4, 8, 16, 32])
@pytest.mark.parametrize(
    ("coordinates", "shifted"), [("half_pixel", 0.0), ("pytorch_half_pixel", 0.0), ("asymmetric", 0.5)]
)
def test_resize_is_the_head(resized, infer, image, stride, coordinates, shifted):
    model = resized(stride, {**LINEAR, "coordinate_transformation_mode": coordinates})
    full = infer(model, image)[0]
    report = fuse(model, SIZE)
    offset = shifted * (stride - 1)
    assert report.tail == BilinearTail(stride, 2 * stride, (offset, offset))
    assert "Resize" not in {node.op_type for node in model.graph}
    scores = infer(model, image)
    labels = BilinearHead(HeadGeometry(stride, (offset, offset))).labels(scores, SIZE)
    top = np.sort(full, axis=0)
    clear = top[-1] - top[-2] > 1e-4 * np.ptp(full)
    assert clear.mean() > 0.9
    assert len(np.unique(labels)) > 2
    np.testing.assert_array_equal(labels[clear], full.argmax(0)[clear])


def test_scales_instead_of_sizes_on_two_axes_only(resized):
    assert fuse(resized(8, scales=[1, 1, 8, 8]), SIZE).tail == BilinearTail(8, 16, (0.0, 0.0))
    two = resized(8, {**LINEAR, "axes": [2, 3]}, scales=[8, 8], opset=18)
    assert fuse(two, SIZE).tail == BilinearTail(8, 16, (0.0, 0.0))


def test_scales_that_only_round_to_the_sizes_stay(resized):
    """At scale 8.05 the output has 64 rows too (rounded down), but they lie elsewhere."""
    model = resized(8, scales=[1, 1, 8.05, 8.05])
    report = fuse(model, SIZE)
    assert report.tail is None
    assert "Resize" in {node.op_type for node in model.graph}


@pytest.mark.parametrize(
    ("attributes", "full", "reason"),
    [
        ({**LINEAR, "mode": "cubic"}, SIZE, "its interpolation is cubic, not linear."),
        ({"mode": "nearest"}, SIZE, "its interpolation is nearest, not linear."),
        (
            {**LINEAR, "coordinate_transformation_mode": "align_corners"},
            SIZE,
            "align_corners puts the points a fractional number of pixels apart; the runtime's head has whole ones.",
        ),
        (LINEAR, (32, 48), "its output has shape (1, 5, 32, 48) where the input has 96x64 pixels."),
    ],
)
def test_refused_resize_stays_in_the_graph(resized, infer, image, attributes, full, reason):
    model = resized(8, attributes, full=full)
    expected = infer(model, image)[0].argmax(0)
    report = fuse(model, SIZE)
    (refusal,) = report.rules["last_upsampling"].refused
    assert (report.tail, refusal.reason) == (None, reason)
    np.testing.assert_array_equal(infer(model, image)[0], expected)


def test_uneven_enlargement_stays_in_the_graph(resized):
    """96 columns into 5 points of stride 20 and 64 rows into 4: no one stride."""
    report = fuse(resized(20), SIZE)
    (refusal,) = report.rules["last_upsampling"].refused
    assert refusal.reason == "it enlarges 5x4 to 96x64, by no whole number of pixels."
