"""Rule 3a against float64: scales, shifts and batch norms around (de)convolutions, grouped, padded and strided."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from fcnedge.build_engine.fusion.affine_into_convolution import affine_into_convolution

from .conftest import EXPORTED

UNIT = 2.0**-24  # the largest relative error of one float32 rounding
EPSILON = 1e-3
SKIPS = {"fcn32s": 0, "fcn16s": 1, "fcn8s": 2}
LITE0_ADDS = 9 + 1  # residual ones, and the context's
# tf2onnx leaves 38 of lite0's batch norms as Mul and Add (it folds the others, and VGG16's biases, itself).
EXPECTED = {"vgg16": 0, "lite0": 2 * 38}


@pytest.mark.parametrize("name", EXPORTED)
def test_every_affine_of_a_real_export_folds(name, exported, image, infer):
    model = exported(name)
    raw = Counter(node.op_type for node in model.graph)
    before = infer(model, image)
    report = affine_into_convolution(model.graph)
    left = Counter(node.op_type for node in model.graph)
    kept_adds = SKIPS[name.split("-")[0]] + LITE0_ADDS * name.endswith("lite0")
    assert (left["Add"], left["Mul"], left["Sub"], left["BatchNormalization"]) == (kept_adds, 1, 1, 0)  # 1: the input's
    assert report.applied == sum(raw[kind] - left[kind] for kind in ("Add", "Mul", "Sub", "BatchNormalization"))
    assert report.applied == EXPECTED[name.split("-")[1]]
    # One rounding of each folded kernel and bias against two of each product and sum it replaces: at most four units
    # per convolution and none amplified, because every layer keeps the scale of what it reads.
    bound = 4 * UNIT * left["Conv"] * np.ptp(before)
    assert np.abs(infer(model, image) - before).max() <= bound
    assert affine_into_convolution(model.graph).applied == 0


class Convolution(NamedTuple):
    """A drawn Conv or ConvTranspose. kernel: (out, in / group, k, k) or (in, out / group, k, k); pads as in ONNX."""

    kind: str
    kernel: np.ndarray
    bias: np.ndarray | None
    group: int
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]

    @property
    def channels(self) -> tuple[int, int]:
        first, second = self.kernel.shape[0], self.kernel.shape[1] * self.group
        return (second, first) if self.kind == "Conv" else (first, second)

    def __call__(self, x: np.ndarray, kernel: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        """The convolution in float64, tap by tap."""
        return (conv64 if self.kind == "Conv" else deconv64)(self, x, kernel, bias)


def conv64(c: Convolution, x: np.ndarray, kernel: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    top, left, bottom, right = c.pads
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    reach = [(kernel.shape[2 + i] - 1) * c.dilations[i] for i in range(2)]
    rows, columns = ((x.shape[2 + i] - reach[i] - 1) // c.strides[i] + 1 for i in range(2))
    grouped = x.reshape(c.group, -1, *x.shape[2:])
    weights = kernel.reshape(c.group, -1, *kernel.shape[1:])
    y = np.zeros((c.group, weights.shape[1], rows, columns))
    for i, j in np.ndindex(*kernel.shape[2:]):
        window = grouped[:, :, i * c.dilations[0] :, j * c.dilations[1] :][:, :, :: c.strides[0], :: c.strides[1]]
        y += np.einsum("goc,gchw->gohw", weights[..., i, j], window[:, :, :rows, :columns])
    return y.reshape(1, -1, rows, columns) + (0 if bias is None else bias[:, None, None])


def deconv64(c: Convolution, x: np.ndarray, kernel: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    height, width = (
        c.strides[i] * (x.shape[2 + i] - 1) + (kernel.shape[2 + i] - 1) * c.dilations[i] + 1 for i in range(2)
    )
    grouped = x.reshape(c.group, -1, *x.shape[2:])
    weights = kernel.reshape(c.group, -1, *kernel.shape[1:])
    y = np.zeros((c.group, kernel.shape[1], height, width))
    for i, j in np.ndindex(*kernel.shape[2:]):
        row, column = i * c.dilations[0], j * c.dilations[1]
        rows = slice(row, row + c.strides[0] * (x.shape[2] - 1) + 1, c.strides[0])
        columns = slice(column, column + c.strides[1] * (x.shape[3] - 1) + 1, c.strides[1])
        y[:, :, rows, columns] += np.einsum("gco,gchw->gohw", weights[..., i, j], grouped)
    top, left, bottom, right = c.pads
    y = y.reshape(1, -1, height, width)[:, :, top : height - bottom, left : width - right]
    return y + (0 if bias is None else bias[:, None, None])


class Affine(NamedTuple):
    """Mul, Div, Add, Sub, rSub (constant - x) or BatchNormalization with its constants."""

    kind: str
    arrays: tuple[np.ndarray, ...]

    def scale_and_shift(self) -> tuple[np.ndarray, np.ndarray]:
        """Float64, broadcastable to (1, C, h, w)."""
        first = self.arrays[0].astype(np.float64)
        if self.kind == "BatchNormalization":
            gamma, beta, mean, variance = (array.astype(np.float64)[:, None, None] for array in self.arrays)
            scale = gamma / np.sqrt(variance + np.float64(np.float32(EPSILON)))
            return scale, beta - scale * mean
        one = np.ones(())
        zero = np.zeros(())
        return {
            "Mul": (first, zero),
            "Div": (1 / first, zero),
            "Add": (one, first),
            "Sub": (one, -first),
            "rSub": (-one, first),
        }[self.kind]

    def magnitude(self) -> tuple[np.ndarray, np.ndarray]:
        """Scale and shift of the sum of absolute terms, whose rounding is bounded by them."""
        scale, shift = self.scale_and_shift()
        if self.kind == "BatchNormalization":
            shift = np.abs(self.arrays[1][:, None, None]) + np.abs(scale * self.arrays[2][:, None, None])
        return np.abs(scale), np.abs(shift)

    def nodes(self, source: str, target: str, prefix: str, *, as_nodes: bool) -> tuple[list, dict[str, np.ndarray]]:
        names = [f"{prefix}{i}" for i in range(len(self.arrays))]
        constants = dict(zip(names, self.arrays, strict=True))
        made = []
        if as_nodes:
            made = [
                helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
                for name, array in constants.items()
            ]
            constants = {}
        if self.kind == "BatchNormalization":
            node = helper.make_node(self.kind, [source, *names], [target], epsilon=EPSILON, name=prefix)
        elif self.kind == "rSub":
            node = helper.make_node("Sub", [*names, source], [target], name=prefix)
        else:
            node = helper.make_node(self.kind, [source, *names], [target], name=prefix)
        return [*made, node], constants


@st.composite
def convolutions(draw: st.DrawFn) -> Convolution:
    group = draw(st.sampled_from([1, 1, 2, 3]))
    per_group = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    sides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    pads = draw(st.one_of(st.just((0, 0, 0, 0)), st.tuples(*[st.integers(0, side - 1) for side in sides * 2])))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    kind = draw(st.sampled_from(["Conv", "ConvTranspose"]))
    kernel = rng.standard_normal((per_group[0] * group, per_group[1], *sides)).astype(np.float32)
    outputs = kernel.shape[0] if kind == "Conv" else kernel.shape[1] * group
    bias = rng.standard_normal(outputs).astype(np.float32) if draw(st.booleans()) else None
    small = st.tuples(st.integers(1, 2), st.integers(1, 2))
    return Convolution(kind, kernel, bias, group, draw(small), draw(small), pads)


@st.composite
def affines(draw: st.DrawFn, channels: int, kinds: tuple[str, ...]) -> Affine:
    kind = draw(st.sampled_from(kinds))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    if kind == "BatchNormalization":
        gamma, variance = rng.uniform(-2, 2, channels), rng.uniform(0.1, 2, channels)
        arrays = (gamma, rng.standard_normal(channels), rng.standard_normal(channels), variance)
    else:
        shape = draw(st.sampled_from([(), (1,), (1, 1, 1, 1), (channels, 1, 1), (1, channels, 1, 1)]))
        arrays = (rng.uniform(0.3, 2, shape) * rng.choice([-1, 1], shape),)
    return Affine(kind, tuple(np.asarray(array, np.float32) for array in arrays))


ELEMENTWISE = ("Mul", "Div", "Add", "Sub", "rSub")


@settings(max_examples=250, deadline=None)
@given(data=st.data(), convolution=convolutions(), size=st.tuples(st.integers(5, 7), st.integers(5, 8)))
def test_any_chain_of_affines_folds_within_float32_rounding(data, convolution, size, graph, infer):
    inputs, outputs = convolution.channels
    before = data.draw(st.lists(affines(inputs, ELEMENTWISE), max_size=3))
    after = data.draw(st.lists(affines(outputs, (*ELEMENTWISE, "BatchNormalization")), max_size=3))
    model, x = chain_model(graph, convolution, before, after, size, as_nodes=data.draw(st.booleans()))
    raw = infer(model, x)
    report = affine_into_convolution(model.graph)

    foldable = convolution.kind == "Conv" and not any(convolution.pads)
    stays = [i for i, affine in enumerate(before) if affine.kind not in ("Mul", "Div") and not foldable]
    kept = stays[-1] + 1 if stays else 0  # everything in front of a shift that cannot fold stays with it
    assert report.applied == len(before) - kept + len(after)
    left = [node for node in model.graph if node.op_type != "Constant"]
    assert len(left) == 1 + kept
    said = {refusal.reason for refusal in report.refused}
    assert said == ({"a shift in front of a convolution folds only where nothing is padded."} if kept else set())
    reference, bound = float64_chain(convolution, before, after, x)
    assert (np.abs(raw - reference) <= bound).all()
    assert (np.abs(infer(model, x) - reference) <= bound).all()
    assert affine_into_convolution(model.graph).applied == 0


def chain_model(graph, convolution: Convolution, before, after, size, *, as_nodes: bool = False):
    x = np.random.default_rng(3).standard_normal((1, convolution.channels[0], *size)).astype(np.float32)
    nodes, constants, value = [], {"kernel": convolution.kernel}, "x"
    for i, affine in enumerate(before):
        made, arrays = affine.nodes(value, f"before{i}", f"b{i}_", as_nodes=as_nodes)
        nodes, constants, value = nodes + made, constants | arrays, f"before{i}"
    names = [value, "kernel"]
    if convolution.bias is not None:
        names, constants["bias"] = [*names, "bias"], convolution.bias
    attributes = {name: getattr(convolution, name) for name in ("group", "strides", "dilations", "pads")}
    nodes.append(helper.make_node(convolution.kind, names, ["conv"], name="conv", **attributes))
    value = "conv"
    for i, affine in enumerate(after):
        made, arrays = affine.nodes(value, f"after{i}", f"a{i}_", as_nodes=as_nodes)
        nodes, constants, value = nodes + made, constants | arrays, f"after{i}"
    return graph(nodes, {"x": x}, [value], constants), x


def float64_chain(convolution: Convolution, before, after, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The chain in float64, and how far float32 may be off: (additions + roundings) units of the absolute terms."""
    y, total = x.astype(np.float64), np.abs(x.astype(np.float64))
    for affine in before:
        scale, shift = affine.scale_and_shift()
        y = scale * y + shift
        scale, shift = affine.magnitude()
        total = scale * total + shift
    kernel, bias = convolution.kernel.astype(np.float64), convolution.bias
    y = convolution(y, kernel, None if bias is None else bias.astype(np.float64))
    total = convolution(total, np.abs(kernel), None if bias is None else np.abs(bias.astype(np.float64)))
    for affine in after:
        scale, shift = affine.scale_and_shift()
        y = scale * y + shift
        scale, shift = affine.magnitude()
        total = scale * total + shift
    terms = kernel[0].size * (1 if convolution.kind == "Conv" else kernel.shape[0])
    return y, (terms + 5 * (len(before) + len(after)) + 3) * UNIT * total


def plain_convolution(**changes) -> Convolution:
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((3, 2, 3, 3)).astype(np.float32)
    return Convolution("Conv", kernel, None, 1, (1, 1), (1, 1), (0, 0, 0, 0))._replace(**changes)


def scalar(kind: str, value: float = 0.01) -> Affine:
    return Affine(kind, (np.array(value, np.float32),))


@pytest.mark.parametrize(
    "convolution",
    [
        plain_convolution(pads=(0, 0, 0, 1)),
        plain_convolution(kind="ConvTranspose"),
    ],
    ids=["padded", "deconvolution"],
)
def test_shift_before_a_padded_convolution_or_a_deconvolution_is_refused(convolution, graph, infer):
    model, x = chain_model(graph, convolution, [scalar("Add")], [], (5, 5))
    raw = infer(model, x)
    report = affine_into_convolution(model.graph)
    assert report.applied == 0
    assert [(refusal.node, refusal.reason) for refusal in report.refused] == [
        ("b0_", "a shift in front of a convolution folds only where nothing is padded.")
    ]
    np.testing.assert_array_equal(infer(model, x), raw, strict=True)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
def test_shift_before_an_automatically_padded_convolution_is_refused(auto_pad, graph, infer):
    x = np.ones((1, 2, 5, 5), np.float32)
    nodes = [
        helper.make_node("Add", ["x", "shift"], ["shifted"], name="shift"),
        helper.make_node("Conv", ["shifted", "kernel"], ["y"], auto_pad=auto_pad),
    ]
    kernel = plain_convolution().kernel
    model = graph(nodes, {"x": x}, ["y"], {"kernel": kernel, "shift": np.ones(1, np.float32)})
    raw = infer(model, x)
    report = affine_into_convolution(model.graph)
    assert (report.applied, [refusal.node for refusal in report.refused]) == (0, ["shift"])
    np.testing.assert_array_equal(infer(model, x), raw, strict=True)


def test_scale_that_others_read_too_is_refused(graph, infer):
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 5)).astype(np.float32)
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["scaled"], name="scale"),
        helper.make_node("Conv", ["scaled", "kernel"], ["y"]),
        helper.make_node("Relu", ["scaled"], ["z"]),
    ]
    kernel = plain_convolution().kernel
    model = graph(nodes, {"x": x}, ["y", "z"], {"kernel": kernel, "scale": np.full(1, 0.5, np.float32)})
    raw = infer(model, x)
    report = affine_into_convolution(model.graph)
    assert report.applied == 0
    assert [(r.node, r.reason) for r in report.refused] == [("scale", "its result is used elsewhere too.")]
    np.testing.assert_array_equal(infer(model, x), raw, strict=True)


def per_pixel() -> tuple[list, list[str], dict]:
    return [helper.make_node("Mul", ["conv", "a"], ["y"])], ["y"], {"a": np.arange(9, dtype=np.float32).reshape(3, 3)}


def five_dimensional() -> tuple[list, list[str], dict]:
    return [helper.make_node("Mul", ["conv", "a"], ["y"])], ["y"], {"a": np.full((1,) * 5, 0.5, np.float32)}


def along_rows() -> tuple[list, list[str], dict]:
    return [helper.make_node("Add", ["conv", "a"], ["y"])], ["y"], {"a": np.arange(3, dtype=np.float32)}


def constant_over_scores() -> tuple[list, list[str], dict]:
    return [helper.make_node("Div", ["a", "conv"], ["y"])], ["y"], {"a": np.full((3, 1, 1), 0.5, np.float32)}


def division_by_zero() -> tuple[list, list[str], dict]:
    return [helper.make_node("Div", ["conv", "a"], ["y"])], ["y"], {"a": np.zeros((3, 1, 1), np.float32)}


def convolution_read_twice() -> tuple[list, list[str], dict]:
    nodes = [helper.make_node("Mul", ["conv", "a"], ["y"]), helper.make_node("Relu", ["conv"], ["z"])]
    return nodes, ["y", "z"], {"a": np.full(1, 0.5, np.float32)}


def convolution_is_an_output() -> tuple[list, list[str], dict]:
    return [helper.make_node("Mul", ["conv", "a"], ["y"])], ["conv", "y"], {"a": np.full(1, 0.5, np.float32)}


def square() -> tuple[list, list[str], dict]:
    return [helper.make_node("Mul", ["conv", "conv"], ["y"])], ["y"], {}


def normalised_by_its_batch() -> tuple[list, list[str], dict]:
    names = ["gamma", "beta", "mean", "variance"]
    node = helper.make_node("BatchNormalization", ["conv", *names], ["y", "m", "v"], training_mode=1)
    return [node], ["y"], {name: np.full(3, 0.5 + i, np.float32) for i, name in enumerate(names)}


def behind_an_activation() -> tuple[list, list[str], dict]:
    nodes = [helper.make_node("Relu", ["conv"], ["relu"]), helper.make_node("Mul", ["relu", "a"], ["y"])]
    return nodes, ["y"], {"a": np.full(1, 0.5, np.float32)}


@pytest.mark.parametrize(
    "case",
    [
        per_pixel,
        five_dimensional,
        along_rows,
        constant_over_scores,
        division_by_zero,
        convolution_read_twice,
        convolution_is_an_output,
        square,
        normalised_by_its_batch,
        behind_an_activation,
    ],
)
def test_what_is_no_affine_of_one_convolution_stays(case, graph, infer):
    nodes, outputs, constants = case()
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 5)).astype(np.float32)
    convolution = helper.make_node("Conv", ["x", "kernel"], ["conv"])
    model = graph([convolution, *nodes], {"x": x}, outputs, {"kernel": plain_convolution().kernel, **constants})
    raw = infer(model, x)
    assert affine_into_convolution(model.graph).applied == 0
    np.testing.assert_array_equal(infer(model, x), raw, strict=True)


@pytest.mark.parametrize("dynamic", ["kernel", "bias"])
def test_convolution_with_computed_weights_stays(dynamic, graph, infer):
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 5)).astype(np.float32)
    weights = {"kernel": plain_convolution().kernel, "bias": np.ones(3, np.float32)}
    computed = {dynamic: weights.pop(dynamic)}
    nodes = [
        helper.make_node("Conv", ["x", "kernel", "bias"], ["conv"]),
        helper.make_node("Mul", ["conv", "a"], ["y"]),
    ]
    model = graph(nodes, {"x": x, **computed}, ["y"], {**weights, "a": np.full(1, 0.5, np.float32)})
    raw = infer(model, x, *computed.values())
    assert affine_into_convolution(model.graph).applied == 0
    np.testing.assert_array_equal(infer(model, x, *computed.values()), raw, strict=True)


def test_kernel_shared_by_two_convolutions_is_scaled_for_one_only(graph, infer):
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 5)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["one"]),
        helper.make_node("Conv", ["x", "kernel"], ["two"]),
        helper.make_node("Mul", ["one", "a"], ["scaled"]),
        helper.make_node("Concat", ["scaled", "two"], ["y"], axis=1),
    ]
    model = graph(nodes, {"x": x}, ["y"], {"kernel": plain_convolution().kernel, "a": np.full(1, 4, np.float32)})
    raw = infer(model, x)
    assert affine_into_convolution(model.graph).applied == 1
    np.testing.assert_array_equal(infer(model, x), raw, strict=True)  # a power of two rounds nothing


def test_caffe_score_scale_folds_into_the_score_convolution_behind_it(graph, infer):
    convolution = plain_convolution(kernel=np.ones((3, 2, 1, 1), np.float32), bias=np.ones(3, np.float32))
    model, x = chain_model(graph, convolution, [scalar("Mul", 1e-4)], [], (4, 4))
    assert affine_into_convolution(model.graph).applied == 1
    (node,) = model.graph
    np.testing.assert_array_equal(node.inputs[1].const_value.numpy(), np.full((3, 2, 1, 1), 1e-4, np.float32))
    np.testing.assert_array_equal(node.inputs[2].const_value.numpy(), np.ones(3, np.float32))
    assert infer(model, x).shape == (1, 3, 4, 4)
