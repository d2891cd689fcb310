"""Random small networks, built in Keras and run by NumPy: every pad, stride, dilation, group and crop counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fcnedge.build_engine.importers import layer_graph as graphs
from fcnedge.build_engine.importers.keras_builder import build_layers
from fcnedge.runtime.errors import UserError

PAIRS = st.tuples(st.integers(1, 2), st.integers(1, 2))
SIDES = st.tuples(*[st.integers(0, 3)] * 4)
SIZE = (20, 23)


def pool_pads(draw: st.DrawFn, kernel: tuple[int, int]) -> tuple[int, ...]:
    return tuple(draw(st.integers(0, kernel[axis // 2] - 1)) for axis in range(4))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), seed=st.integers(0, 1000))
def test_any_network_gives_the_scores_of_an_independent_forward_pass(data, seed, dagnn):
    """conv → relu → pool → conv in groups → deconv in groups → crop to the picture, all with random settings."""
    draw, random = data.draw, np.random.default_rng(seed)
    kernel, dilation, stride, pads = draw(PAIRS), draw(PAIRS), draw(PAIRS), draw(SIDES)
    filters = random.normal(size=(kernel[0] + 1, kernel[1] + 1, 3, 4))
    window, steps, method = draw(PAIRS), draw(PAIRS), draw(st.sampled_from(["max", "avg"]))
    around = pool_pads(draw, window) if method == "max" else (0, 0, 0, 0)
    groups = draw(st.sampled_from([1, 2]))
    scores = random.normal(size=(1, 1, 4 // groups, 4))
    factor = tuple(stride[axis] * steps[axis] + 1 for axis in range(2))
    reach = tuple(draw(st.integers(max(1, side - 1), 2 * side)) for side in factor)
    upsample = random.normal(size=(*reach, 4 // groups, 4))
    before = draw(st.tuples(st.integers(0, 9), st.integers(0, 9)))
    dag = dagnn.Dag(params={"f": filters, "b": random.normal(size=(4, 1)), "g": scores, "h": upsample})
    slope = draw(st.sampled_from([0.0, 0.3]))
    dag.add(
        "Conv", "a", "data", "a", "f b", pad=np.array([pads]), stride=np.array([stride]), dilate=np.array([dilation])
    )
    dag.add("ReLU", "r", "a", "r", leak=slope)
    dag.add("Pooling", "p", "r", "p", poolSize=window, stride=steps, pad=around, method=method)
    dag.add("Conv", "s", "p", "s", "g")
    dag.add("ConvTranspose", "u", "s", "u", "h", upsample=factor, numGroups=groups)
    dag.add("Crop", "c", "u data", "c", crop=before)
    layers = (
        graphs.Convolution("a", ("data",), "a", filters, dag.params["b"].reshape(-1), stride, pads, dilation),
        graphs.Relu("r", ("a",), "r", slope),
        graphs.Pool("p", ("r",), "p", window, steps, around, mean=method == "avg"),
        graphs.Convolution("s", ("p",), "s", scores, None),
        graphs.Deconvolution("u", ("s",), "u", upsample, None, factor, groups=groups),
        graphs.Crop("c", ("u", "data"), "c", before, at_most=True),
    )
    graph = graphs.connect("random", layers)
    pixels = random.normal(size=(*SIZE, 3))
    model_or_reason = built(graph)
    if isinstance(model_or_reason, str):
        assert "it cuts " in model_or_reason, "only a deconvolution that ends short of the picture may be refused"
        short = dagnn.forward(dagnn.Dag(dag.layers[:-1], dag.params), pixels).shape[:2]
        assert short[0] < SIZE[0] or short[1] < SIZE[1]
        return
    expected = dagnn.forward(dag, pixels)
    found = np.asarray(model_or_reason(pixels[None].astype(np.float32))[0])
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def built(graph: graphs.LayerGraph):
    """The model, or why there is none."""
    try:
        return build_layers(graph, SIZE)
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("side", range(4, 12))
@pytest.mark.parametrize(("kernel", "stride", "pad"), [(2, 2, 0), (3, 2, 0), (3, 2, 1), (2, 3, 0), (3, 1, 1)])
def test_last_window_of_caffes_pooling_may_reach_beyond_the_picture(side, kernel, stride, pad):
    """Caffe's PoolingLayer::Reshape: ceil, less one where the last window would begin beyond the padded picture."""
    windows = math.ceil((side + 2 * pad - kernel) / stride) + 1
    if pad and (windows - 1) * stride >= side + pad:
        windows -= 1
    x = np.random.default_rng(0).normal(size=(1, side, side, 3)).astype(np.float32)
    padded = np.pad(x[0], ((pad, pad + stride + kernel),) * 2 + ((0, 0),), constant_values=-np.inf)
    starts = [index * stride for index in range(windows) if index * stride < side + pad]
    expected = np.array(
        [[padded[row : row + kernel, column : column + kernel].max((0, 1)) for column in starts] for row in starts]
    )
    pool = graphs.Pool("p", ("data",), "p", (kernel,) * 2, (stride,) * 2, (pad,) * 4, ceil=True)
    same_size = graphs.Deconvolution(
        "u", ("p",), "u", np.ones((side, side, 3, 3)), None, (1, 1), crop=(0, len(starts) - 1, 0, len(starts) - 1)
    )
    model = build_layers(graphs.connect("pool", (pool, same_size)), (side, side))
    import keras

    found = np.asarray(keras.Model(model.input, model.get_layer("u").input)(x)[0])
    np.testing.assert_array_equal(found, expected)


def test_mean_over_padding_is_refused():
    pool = graphs.Pool("p", ("data",), "p", (3, 3), (1, 1), (1, 1, 1, 1), mean=True)
    with pytest.raises(UserError, match=r"the layer p .* averages over padding, which libraries count differently"):
        build_layers(graphs.connect("pool", (pool,)), (8, 8))


def test_names_that_keras_and_onnx_do_not_take_are_changed_and_stay_different():
    layers = (
        graphs.Relu("relu/1", ("data",), "a"),
        graphs.Relu("relu 1", ("a",), "b"),
        graphs.Relu("1x", ("b",), "c"),
        graphs.Same("drop", ("c",), "d"),
    )
    model = build_layers(graphs.connect("a-b.mat", layers, "d"), (4, 4))
    assert [layer.name for layer in model.layers] == ["image", "relu_1", "relu_1_1", "layer_1x"]
