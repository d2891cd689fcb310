"""Multiply-adds counted one by one, bytes from dtypes, and the published arithmetic of FCN-8s over VGG16."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from fcnedge.build_engine.fusion.cost import graph_cost
from fcnedge.build_engine.fusion.fuse import fuse

VGG16_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


def fcn8s_vgg16_multiply_adds(height: int, width: int, *, classes: int, fc_channels: int) -> int:
    """After fusion, by hand: 3x3 trunk, 7x7 fc6, 1x1 fc7 and scores, two depthwise 4x4 deconvolutions of stride 2."""
    pixels, channels, total = height * width, 3, 0
    for outputs, repeats in VGG16_STAGES:
        for _ in range(repeats):
            total += pixels * 9 * channels * outputs
            channels = outputs
        pixels //= 4
    total += pixels * (49 * channels * fc_channels + fc_channels**2 + fc_channels * classes)
    total += 4 * pixels * 512 * classes + 16 * pixels * 256 * classes  # score_pool4, score_pool3
    return total + (pixels + 4 * pixels) * 16 * classes  # score2 and score4 read 1/32 and 1/16 of the pixels


def test_fused_fcn8s_vgg16_costs_what_the_shapes_say(exported):
    model = exported("fcn8s-vgg16")
    report = fuse(model, (64, 96))
    by_hand = fcn8s_vgg16_multiply_adds(64, 96, classes=5, fc_channels=8)
    assert report.after.multiply_adds == graph_cost(model.graph).multiply_adds == by_hand
    # Before: three dense deconvolutions in place of two depthwise ones.
    grid = [2 * 3, 4 * 6, 8 * 12]
    dense = 25 * (16 * grid[0] + 16 * grid[1] + 256 * grid[2])
    assert report.before.multiply_adds == by_hand - 5 * 16 * (grid[0] + grid[1]) + dense
    assert report.after.nodes == len(model.graph) < report.before.nodes
    assert report.after.activation_bytes < report.before.activation_bytes


@pytest.mark.parametrize(
    ("side", "published", "within"), [(512, 110.8e9, 1e-3), (320, 43.5e9, 1e-2), (224, 21.3e9, 1e-2)]
)
def test_hand_count_is_the_published_arithmetic(side, published, within):
    count = fcn8s_vgg16_multiply_adds(side, side, classes=21, fc_channels=4096)
    assert count == pytest.approx(published, rel=within)


def count_one_by_one(kind, size, kernel, strides, dilations, pads, group) -> int:
    """Visit every pair of an output position and a tap (Conv) or an input position and a tap (ConvTranspose)."""
    positions = [size[2], size[3]]
    if kind == "Conv":
        reach = [(kernel[2 + i] - 1) * dilations[i] for i in range(2)]
        padded = [size[2 + i] + pads[i] + pads[i + 2] for i in range(2)]
        positions = [len(range(0, padded[i] - reach[i], strides[i])) for i in range(2)]
    count = 0
    for _ in np.ndindex(size[0], *positions, kernel[2], kernel[3]):
        for _ in range(group):
            count += (kernel[0] // group) * kernel[1]
    return count


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(["Conv", "ConvTranspose"]),
    batch=st.integers(1, 2),
    size=st.tuples(st.integers(5, 7), st.integers(5, 7)),
    per_group=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    group=st.integers(1, 3),
    sides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(0, 1)] * 4),
)
def test_multiply_adds_are_those_counted_one_by_one(
    kind, batch, size, per_group, group, sides, strides, dilations, pads, graph
):
    kernel = np.zeros((per_group[0] * group, per_group[1], *sides), np.float32)
    channels = kernel.shape[1] * group if kind == "Conv" else kernel.shape[0]
    x = np.zeros((batch, channels, *size), np.float32)
    attributes = {"strides": strides, "dilations": dilations, "pads": pads, "group": group}
    model = graph([helper.make_node(kind, ["x", "k"], ["y"], **attributes)], {"x": x}, ["y"], {"k": kernel})
    counted = count_one_by_one(kind, x.shape, kernel.shape, strides, dilations, pads, group)
    assert graph_cost(model.graph).multiply_adds == counted


@pytest.mark.parametrize(
    ("dtype", "item_bytes"), [("FLOAT", 4), ("FLOAT16", 2), ("UINT8", 1), ("INT64", 8), ("DOUBLE", 8)]
)
def test_activation_bytes_follow_the_dtype_of_every_output(dtype, item_bytes, graph):
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Cast", ["r"], ["y"], to=getattr(TensorProto, dtype)),
    ]
    model = graph(nodes, {"x": np.zeros((1, 2, 3, 5), np.float32)}, ["y"])
    cost = graph_cost(model.graph)
    assert (cost.nodes, cost.multiply_adds, cost.activation_bytes) == (2, 0, 30 * (4 + item_bytes))


def test_nodes_of_unknown_size_count_as_nodes_only(graph):
    node = helper.make_node("Conv", ["x", "k"], ["y"])
    kernel = np.zeros((2, 3, 1, 1), np.float32)
    model = graph([node], {"x": (np.float32, (1, 3, "h", "w"))}, ["y"], {"k": kernel})
    cost = graph_cost(model.graph)
    assert (cost.nodes, cost.multiply_adds, cost.activation_bytes) == (1, 0, 0)
