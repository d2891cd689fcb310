"""Rule 4: the graph ends in scores and the runtime's head gives the same labels; otherwise it ends in labels itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from fcnedge.build_engine.fusion.fuse import fuse
from fcnedge.build_engine.fusion.last_upsampling import BilinearTail, last_upsampling
from fcnedge.build_engine.models import Architecture
from fcnedge.runtime import BilinearHead
from fcnedge.runtime.head import HeadGeometry
from fcnedge.runtime.preprocessing import Preprocessing

from .conftest import EXPORTED

SIZE = (64, 96)
CLASSES = 5
MIN_MARGIN = 1e-4


def assert_labels_agree(labels: np.ndarray, full: np.ndarray) -> None:
    """labels: (H, W); full: (C, H, W). Equal wherever the best class leads by more than 1e-4 of the range."""
    assert labels.dtype == np.uint8
    assert labels.shape == full.shape[1:]
    ordered = np.sort(full, axis=0)
    clear = ordered[-1] - ordered[-2] > MIN_MARGIN * np.ptp(full)
    assert clear.mean() > 0.9
    assert len(np.unique(full.argmax(axis=0))) > 1
    np.testing.assert_array_equal(labels[clear], full.argmax(axis=0)[clear])


def head_labels(tail: BilinearTail | None, scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    assert tail is not None
    return BilinearHead(HeadGeometry(tail.stride, tail.offset)).labels(scores, size)


@pytest.mark.parametrize("name", EXPORTED)
def test_scores_and_head_reproduce_the_labels_of_a_real_export(name, exported, image, infer):
    model = exported(name)
    full = infer(model, image)[0].transpose(2, 0, 1)
    report = fuse(model, SIZE)
    stride = Architecture.parse(name).stride
    assert (report.rules["last_upsampling"].applied, report.rules["last_upsampling"].refused) == (1, ())
    assert report.tail == BilinearTail(stride, 2 * stride, (0.0, 0.0))
    scores = infer(model, image)
    assert scores.shape == (1, CLASSES, SIZE[0] // stride, SIZE[1] // stride)
    assert_labels_agree(head_labels(report.tail, scores, SIZE), full)


@pytest.mark.parametrize("name", ["fcn8s-lite0", "fcn16s-vgg16"])
def test_bilinear_tail_stays_in_the_graph_when_labels_are_asked_for(name, exported, image, infer):
    model = exported(name)
    full = infer(model, image)[0].transpose(2, 0, 1)
    report = fuse(model, SIZE, labels=True)
    assert report.tail is None
    assert [refusal.reason for refusal in report.rules["last_upsampling"].refused] == ["the labels head was asked for."]
    (output,) = model.graph.outputs
    assert (output.name, output.dtype, output.shape) == ("labels", ir.DataType.UINT8, (1, *SIZE))
    assert_labels_agree(infer(model, image)[0], full)


def keras_export(tail: Callable, *, stride: int = 8, crop=None, **deconvolution) -> ir.Model:
    """A real export of score convolution → bilinear Conv2DTranspose → crop → `tail`, 64x96 pixels, 5 classes."""
    import keras
    from keras import layers

    from fcnedge.build_engine.export import export_onnx
    from fcnedge.build_engine.models.fcn_head import BilinearDiagonal

    keras.utils.clear_session()
    keras.utils.set_random_seed(3)
    pixels = keras.Input((*SIZE, 3))
    x = layers.Conv2D(CLASSES, 3, strides=stride, padding="same", bias_initializer="random_normal")(pixels)
    options = {"use_bias": False, "kernel_initializer": BilinearDiagonal(), **deconvolution}
    x = layers.Conv2DTranspose(CLASSES, 2 * stride, strides=stride, **options)(x)
    x = x if crop is None else layers.Cropping2D(crop)(x)
    model = keras.Model(pixels, tail(x))
    return export_onnx(model, Preprocessing("rgb", (120.0, 120.0, 120.0), (1 / 64, 1 / 64, 1 / 64)), SIZE)


def as_it_is(x):
    return x


def softmax(x):
    from keras import layers

    return layers.Softmax()(x)


def class_ids(x):
    import keras
    import tensorflow as tf

    class ArgMax(keras.layers.Layer):
        def call(self, scores):
            return tf.argmax(scores, axis=-1)

        def compute_output_spec(self, scores):
            return keras.KerasTensor(scores.shape[:-1], "int64")

    return ArgMax()(x)


def class_ids_of_softmax(x):
    return class_ids(softmax(x))


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize(
    ("tail", "removed"), [(as_it_is, 1), (softmax, 2), (class_ids, 1), (class_ids_of_softmax, 2)], ids=lambda x: str(x)
)
def test_tail_of_a_keras_model_is_cut_off(tail, removed, stride, image, infer):
    full = infer(keras_export(as_it_is, stride=stride, crop=stride // 2), image)[0].transpose(2, 0, 1)
    model = keras_export(tail, stride=stride, crop=stride // 2)
    report = fuse(model, SIZE)
    assert report.rules["last_upsampling"].applied == removed
    assert report.tail == BilinearTail(stride, 2 * stride, (0.0, 0.0))
    assert {node.op_type for node in model.graph} <= {"Transpose", "Cast", "Sub", "Conv"}
    assert_labels_agree(head_labels(report.tail, infer(model, image), SIZE), full)
    assert fuse(model, SIZE).rules["last_upsampling"].applied == 0


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_crop_of_bottom_and_right_only_shifts_the_head_by_half_a_stride(stride, image, infer):
    model = keras_export(as_it_is, stride=stride, crop=((0, stride), (0, stride)))
    full = infer(model, image)[0].transpose(2, 0, 1)
    report = fuse(model, SIZE)
    assert report.tail == BilinearTail(stride, 2 * stride, (-stride / 2, -stride / 2))
    assert_labels_agree(head_labels(report.tail, infer(model, image), SIZE), full)


def test_same_padding_is_the_symmetric_crop(image, infer):
    model = keras_export(as_it_is, padding="same")
    full = infer(model, image)[0].transpose(2, 0, 1)
    report = fuse(model, SIZE)
    assert report.tail == BilinearTail(8, 16, (0.0, 0.0))
    assert_labels_agree(head_labels(report.tail, infer(model, image), SIZE), full)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kernel_initializer": "glorot_uniform"}, "its kernel is learned, not bilinear."),
        (
            {"use_bias": True, "bias_initializer": "random_normal"},
            "its bias is not zero, which changes the winner at the border.",
        ),
    ],
    ids=["learned", "biased"],
)
@pytest.mark.parametrize("tail", [as_it_is, softmax, class_ids])
def test_learned_or_biased_upsampling_keeps_a_labels_head(tail, changes, reason, image, infer):
    full = infer(keras_export(as_it_is, crop=4, **changes), image)[0].transpose(2, 0, 1)
    model = keras_export(tail, crop=4, **changes)
    report = fuse(model, SIZE)
    assert report.tail is None
    assert report.rules["last_upsampling"].applied == 0
    assert [refusal.reason for refusal in report.rules["last_upsampling"].refused] == [reason]
    assert model.graph.outputs[0].name == "labels"
    labels = infer(model, image)
    assert labels.shape == (1, *SIZE)
    assert_labels_agree(labels[0], full)
    assert fuse(model, SIZE).tail is None
    np.testing.assert_array_equal(infer(model, image), labels, strict=True)


def bilinear(stride: int) -> np.ndarray:
    """(2s, 2s) by its definition: the hat function over one stride, sampled at pixel centres."""
    hat = [1 - abs(i + 0.5 - stride) / stride for i in range(2 * stride)]
    return np.array([[a * b for b in hat] for a in hat], np.float32)


def diagonal(kernels: np.ndarray, *, dense: bool) -> np.ndarray:
    """(C, k, k) → (C, C, k, k) or (C, 1, k, k)."""
    if not dense:
        return kernels[:, None]
    kernel = np.zeros((len(kernels), *kernels.shape), np.float32)
    kernel[np.arange(len(kernels)), np.arange(len(kernels))] = kernels
    return kernel


def deconvolution_graph(graph, kernel: np.ndarray, scores: np.ndarray, tail=(), output="up", constants=None, **attrs):
    """Neg (a stand-in for the network) → ConvTranspose `deconv` → nodes of `tail`."""
    stride = kernel.shape[2] // 2
    options = {"strides": [stride, stride], "group": scores.shape[1] // kernel.shape[1], **attrs}
    inputs = ["negated", "kernel", *(["bias"] if constants and "bias" in constants else [])]
    nodes = [
        helper.make_node("Neg", ["x"], ["negated"]),
        helper.make_node("ConvTranspose", inputs, ["up"], name="deconv", **options),
        *tail,
    ]
    return graph(nodes, {"x": scores}, [output], {"kernel": kernel, **(constants or {})})


def random_scores(classes: int, sides: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, classes, *sides)).astype(np.float32)


TAILS = {
    "none": [],
    "identity": [helper.make_node("Identity", ["up"], ["y"])],
    "nhwc": [helper.make_node("Transpose", ["up"], ["y"], perm=[0, 2, 3, 1])],
    "softmax": [helper.make_node("Softmax", ["up"], ["y"], axis=1)],
    "nhwc_softmax": [
        helper.make_node("Transpose", ["up"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Softmax", ["t"], ["y"]),
    ],
    "log_softmax_nhwc": [
        helper.make_node("LogSoftmax", ["up"], ["t"], axis=-3),
        helper.make_node("Transpose", ["t"], ["y"], perm=[0, 2, 3, 1]),
    ],
    "double": [helper.make_node("Cast", ["up"], ["y"], to=TensorProto.DOUBLE)],
    "argmax": [helper.make_node("ArgMax", ["up"], ["y"], axis=1, keepdims=0)],
    "argmax_with_an_axis_of_one": [helper.make_node("ArgMax", ["up"], ["y"], axis=1, keepdims=1)],
    "nhwc_argmax_cast": [
        helper.make_node("Transpose", ["up"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("ArgMax", ["t"], ["a"], axis=-1, keepdims=0),
        helper.make_node("Cast", ["a"], ["y"], to=TensorProto.UINT8),
    ],
    "softmax_argmax_squeeze": [
        helper.make_node("Softmax", ["up"], ["s"], axis=1),
        helper.make_node("ArgMax", ["s"], ["a"], axis=1, keepdims=1),
        helper.make_node("Squeeze", ["a", "one"], ["y"]),
    ],
}


@settings(max_examples=200, deadline=None)
@given(
    tail=st.sampled_from(sorted(TAILS)),
    stride=st.sampled_from([1, 2, 3, 4, 8, 16, 32]),
    sides=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    classes=st.integers(2, 6),
    gain=st.sampled_from([1.0, 0.25, 3.7, 1e-3, 1e4]),
    dense=st.booleans(),
    seed=st.integers(0, 2**16),
    data=st.data(),
)
def test_any_bilinear_tail_becomes_the_head(tail, stride, sides, classes, gain, dense, seed, data, graph, infer):
    before = data.draw(st.tuples(st.integers(0, stride), st.integers(0, stride)))
    extra = data.draw(st.tuples(st.integers(0, stride - 1), st.integers(0, stride - 1)))
    extra = [min(extra[i], before[i]) for i in range(2)]  # bottom padding is stride - before + extra, at most stride
    pads = [*before, *(stride - before[i] + extra[i] for i in range(2))]
    kernel = diagonal(np.stack([bilinear(stride) * np.float32(gain)] * classes), dense=dense)
    scores = random_scores(classes, sides, seed)
    attributes: dict[str, Any] = {"pads": pads, "output_padding": extra}
    full = infer(deconvolution_graph(graph, kernel, scores, **attributes), scores)[0]
    output = TAILS[tail][-1].output[0] if TAILS[tail] else "up"
    constants = {"one": np.array([1])} if "squeeze" in tail else {}
    model = deconvolution_graph(graph, kernel, scores, TAILS[tail], output, constants, **attributes)
    size = (sides[0] * stride, sides[1] * stride)
    report, found = last_upsampling(model.graph, size)
    assert (report.applied, report.refused) == (2 if "softmax" in tail else 1, ())
    assert found == BilinearTail(stride, 2 * stride, (before[0] - stride / 2, before[1] - stride / 2))
    cut = infer_output(model, infer, scores)
    np.testing.assert_array_equal(cut, -scores, strict=True)
    margin = np.diff(np.sort(full, axis=0)[-2:], axis=0)[0] > MIN_MARGIN * np.ptp(full)
    labels = head_labels(found, cut, size)
    np.testing.assert_array_equal(labels[margin], full.argmax(axis=0)[margin])
    again, _ = last_upsampling(model.graph, size)
    assert (again.applied, again.refused) == (0, ())


def infer_output(model: ir.Model, infer, scores: np.ndarray) -> np.ndarray:
    """Without the dead nodes, which fuse removes."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)
    return infer(model, scores)


def learned(classes: int = 3) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((classes, 1, 4, 4)).astype(np.float32)


def lopsided() -> np.ndarray:
    """Bilinear but for one tap, by one part in a thousand."""
    kernel = np.array([bilinear(2)] * 3)
    kernel[1, 0, 3] *= np.float32(1.001)
    return kernel[:, None]


def unequal_gains() -> np.ndarray:
    return (bilinear(2) * np.array([1, 1.001, 1], np.float32)[:, None, None])[:, None]


def negative_gain() -> np.ndarray:
    return -np.stack([bilinear(2)] * 3)[:, None]


def nearest() -> np.ndarray:
    return np.ones((3, 1, 4, 4), np.float32)


def mixing() -> np.ndarray:
    kernel = diagonal(np.stack([bilinear(2)] * 3), dense=True)
    kernel[0, 2, 1, 1] = 1e-6
    return kernel


def plain() -> np.ndarray:
    return np.stack([bilinear(2)] * 3)[:, None]


CROPPED: dict[str, Any] = {"pads": [1, 1, 1, 1]}
LEARNED = "its kernel is learned, not bilinear."
REACHES = "its kernel is dilated or its output reaches beyond its input."


@pytest.mark.parametrize(
    ("kernel", "attributes", "bias", "reason"),
    [
        (learned, CROPPED, None, LEARNED),
        (lopsided, CROPPED, None, LEARNED),
        (unequal_gains, CROPPED, None, LEARNED),
        (negative_gain, CROPPED, None, LEARNED),
        (nearest, CROPPED, None, LEARNED),
        (mixing, CROPPED, None, LEARNED),
        (plain, CROPPED, [0, 0, 1e-3], "its bias is not zero, which changes the winner at the border."),
        (plain, {"strides": [2, 1], "pads": [1, 0, 1, 0]}, None, "a 4x4 kernel at stride 2x1 is not bilinear."),
        (plain, {"strides": [4, 4]}, None, "a 4x4 kernel at stride 4x4 is not bilinear."),
        (plain, {}, None, "its output is 10x8 pixels where the input has 8x6."),
        (
            plain,
            {"auto_pad": "SAME_LOWER"},
            None,
            "the deconvolution's padding is SAME_LOWER, which depends on the size.",
        ),
        (plain, {"output_shape": [6, 8]}, None, "the deconvolution fixes its output_shape."),
        (plain, {"dilations": [2, 2], "pads": [1, 1, 1, 1]}, None, REACHES),
        (plain, {"pads": [2, 2, 0, 0], "output_padding": [1, 1]}, None, REACHES),
    ],
)
def test_refused_tail_ends_in_labels(kernel, attributes, bias, reason, graph, infer):
    scores, constants = random_scores(3, (3, 4)), {} if bias is None else {"bias": np.array(bias, np.float32)}
    full = infer(deconvolution_graph(graph, kernel(), scores, constants=constants, **attributes), scores)
    model = deconvolution_graph(graph, kernel(), scores, constants=constants, **attributes)
    report, tail = last_upsampling(model.graph, (6, 8))
    assert tail is None
    assert report.applied == 0
    assert [(refusal.node, refusal.reason) for refusal in report.refused] == [("deconv", reason)]
    labels = infer(model, scores)
    np.testing.assert_array_equal(labels, full.argmax(axis=1).astype(np.uint8), strict=True)
    assert model.graph.outputs[0].name == "labels"
    again, _ = last_upsampling(model.graph, (6, 8))
    assert (again.applied, again.refused) == (0, ())


def test_a_bias_of_zeros_is_no_bias(graph, infer):
    scores = random_scores(3, (3, 4))
    model = deconvolution_graph(graph, plain(), scores, constants={"bias": np.zeros(3, np.float32)}, **CROPPED)
    _, tail = last_upsampling(model.graph, (6, 8))
    assert tail == BilinearTail(2, 4, (0.0, 0.0))


@pytest.mark.parametrize(
    ("computed", "reason"),
    [
        ("kernel", "its kernel is not a constant."),
        ("bias", "its bias is not zero, which changes the winner at the border."),
    ],
)
def test_weights_computed_at_run_time_are_refused(computed, reason, graph, infer):
    scores, arrays = random_scores(3, (3, 4)), {"kernel": plain(), "bias": np.array([0, 0, 1], np.float32)}
    given_at_run_time = {computed: arrays.pop(computed)}
    node = helper.make_node("ConvTranspose", ["x", "kernel", "bias"], ["y"], strides=[2, 2], group=3, **CROPPED)
    model = graph([node], {"x": scores, **given_at_run_time}, ["y"], arrays)
    full = infer(model, scores, *given_at_run_time.values())
    report, tail = last_upsampling(model.graph, (6, 8))
    assert (tail, [refusal.reason for refusal in report.refused]) == (None, [reason])
    labels = infer(model, scores, *given_at_run_time.values())
    np.testing.assert_array_equal(labels, full.argmax(axis=1).astype(np.uint8), strict=True)


def test_unknown_size_is_refused(graph, infer):
    scores = random_scores(3, (3, 4))
    node = helper.make_node("ConvTranspose", ["x", "kernel"], ["y"], strides=[2, 2], group=3, **CROPPED)
    model = graph([node], {"x": (np.float32, (1, 3, "h", "w"))}, ["y"], {"kernel": plain()})
    full = infer(model, scores)
    report, tail = last_upsampling(model.graph, (6, 8))
    assert (tail, [r.reason for r in report.refused]) == (None, ["the size of its input is not known."])
    np.testing.assert_array_equal(infer(model, scores), full.argmax(axis=1).astype(np.uint8), strict=True)


# What a graph ends in → the axis of the classes in what it computes (None: it computes labels).
OTHER_ENDS = {
    "sigmoid_nhwc": (
        [
            helper.make_node("ConvTranspose", ["x", "kernel"], ["up"], strides=[2, 2], group=3, pads=[1] * 4),
            helper.make_node("Transpose", ["up"], ["t"], perm=[0, 2, 3, 1]),
            helper.make_node("Sigmoid", ["t"], ["y"]),
        ],
        3,
    ),
    "softmax_over_columns": (
        [
            helper.make_node("ConvTranspose", ["x", "kernel"], ["up"], strides=[2, 2], group=3, pads=[1] * 4),
            helper.make_node("Softmax", ["up"], ["y"], axis=3),
        ],
        1,
    ),
    "rounded_scores": (
        [
            helper.make_node("ConvTranspose", ["x", "kernel"], ["up"], strides=[2, 2], group=3, pads=[1] * 4),
            helper.make_node("Cast", ["up"], ["y"], to=TensorProto.INT32),
        ],
        1,
    ),
    "last_of_equal_classes": (
        [
            helper.make_node("ConvTranspose", ["x", "kernel"], ["up"], strides=[2, 2], group=3, pads=[1] * 4),
            helper.make_node("ArgMax", ["up"], ["y"], axis=1, keepdims=0, select_last_index=1),
        ],
        None,
    ),
}


@pytest.mark.parametrize("end", sorted(OTHER_ENDS))
def test_other_ends_keep_a_labels_head_with_the_same_labels(end, graph, infer):
    nodes, class_axis = OTHER_ENDS[end]
    scores = 3 * random_scores(3, (3, 4))
    scores[:, 1] = scores[:, 0]  # ties everywhere
    model = graph(nodes, {"x": scores}, ["y"], {"kernel": plain()})
    full = infer(model, scores)
    report, tail = last_upsampling(model.graph, (6, 8))
    assert tail is None
    assert [refusal.reason for refusal in report.refused] == [
        "the graph does not end in a deconvolution or Resize whose channels are the classes."
    ]
    expected = full if class_axis is None else full.argmax(axis=class_axis)
    np.testing.assert_array_equal(infer(model, scores), expected.astype(np.uint8), strict=True)
    assert model.graph.outputs[0].name == "labels"
