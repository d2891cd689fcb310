"""Rule 6: whatever lies between bytes and the first convolution becomes Cast → Transpose → [Sub] → Conv."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from fcnedge.build_engine.fusion.input_layout import input_layout
from fcnedge.build_engine.models import Architecture

from .conftest import EXPORTED

UNIT = 2.0**-24
IMAGE_SIZE = (5, 6)
CANONICAL = ["Cast", "Transpose", "Sub", "Conv"]
FLOAT = TensorProto.FLOAT
ARITHMETIC = {"Mul": np.multiply, "Div": np.divide, "Add": np.add, "Sub": np.subtract}


def kinds_until_convolution(model) -> list[str]:
    kinds = []
    for node in model.graph:
        kinds.append(node.op_type)
        if node.op_type == "Conv":
            break
    return kinds


@pytest.mark.parametrize("name", EXPORTED)
def test_real_export_reads_bytes_as_planes(name, exported, image, infer):
    model = exported(name)
    before = infer(model, image)
    report = input_layout(model.graph)
    assert (report.applied, report.refused) == (1, ())
    assert kinds_until_convolution(model) == CANONICAL
    mean = next(node for node in model.graph if node.op_type == "Sub").inputs[1].const_value.numpy()
    blue_green_red = Architecture.parse(name).preprocessing.mean[::-1]
    np.testing.assert_allclose(mean.reshape(3), blue_green_red, rtol=2 * UNIT)
    # The first layer adds 27 products in another order, and each layer behind it reads, and so rounds, slightly other
    # numbers: four units each, as in test_affine_into_convolution.
    convolutions = sum(node.op_type == "Conv" for node in model.graph)
    assert np.abs(infer(model, image) - before).max() <= (2 * 27 + 4 * convolutions) * UNIT * np.ptp(before)
    assert input_layout(model.graph).applied == 0


class Chain:
    """Nodes from `image` to the first convolution, and what they compute per pixel in float64."""

    def __init__(self, size: tuple[int, int] = IMAGE_SIZE) -> None:
        self.image = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
        self.nodes, self.constants, self.value = [], {}, "image"
        self.axes = [0, 1, 2, 3]
        self.pixels = self.image.astype(np.float64)  # always (1, H, W, 3)
        self.magnitude = self.pixels
        self.of_black = np.zeros(3)  # what the chain makes of a pixel of zeros

    @property
    def channel_axis(self) -> int:
        return self.axes.index(3)

    def add(self, kind: str, *constants: np.ndarray, first: bool = False, **attributes) -> None:
        names = [f"c{len(self.constants) + i}" for i in range(len(constants))]
        self.constants |= dict(zip(names, constants, strict=True))
        inputs = [*names, self.value] if first else [self.value, *names]
        self.value = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [self.value], name=f"{kind}{len(self.nodes)}", **attributes))

    def cast(self) -> None:
        self.add("Cast", to=FLOAT)

    def transpose(self, permutation: tuple[int, ...]) -> None:
        self.add("Transpose", perm=permutation)
        self.axes = [self.axes[axis] for axis in permutation]

    def gather(self, order: list[int], dtype: type, *, negative: bool = False) -> None:
        indices = np.array(order, dtype) - (3 if negative else 0)
        self.add("Gather", indices, axis=self.channel_axis - (4 if negative else 0))
        self.reorder(order)

    def reverse(self, start: int, end: int, *, negative: bool) -> None:
        axis = self.channel_axis - (4 if negative else 0)
        self.add("Slice", *(np.array([number], np.int64) for number in (start, end, axis, -1)))
        self.reorder([2, 1, 0])

    def reorder(self, order: list[int]) -> None:
        self.pixels, self.magnitude = self.pixels[..., order], self.magnitude[..., order]
        self.of_black = self.of_black[order]

    def affine(
        self, kind: str, values: np.ndarray, *, padded_shape: bool = False, constant_first: bool = False
    ) -> None:
        """values: (3,) or () float32."""
        trailing = 3 - self.channel_axis
        shaped = values.reshape(-1, *(1,) * trailing) if values.ndim else values
        if padded_shape and values.ndim:
            shaped = shaped.reshape((1,) * (4 - shaped.ndim) + shaped.shape)
        self.add(kind, shaped, first=constant_first)
        exact = values.astype(np.float64)
        self.pixels = ARITHMETIC[kind](self.pixels, exact)
        self.of_black = ARITHMETIC[kind](self.of_black, exact)
        self.magnitude = ARITHMETIC["Add" if kind == "Sub" else kind](self.magnitude, np.abs(exact))

    def model(self, graph, kernel: np.ndarray, pads=(1, 0, 1, 1), **attributes):
        convolution = helper.make_node("Conv", [self.value, "kernel"], ["y"], name="conv", pads=pads, **attributes)
        constants = {**self.constants, "kernel": kernel}
        return graph([*self.nodes, convolution], {"image": self.image}, ["y"], constants)


def kernel_of(outputs: int = 2, sides: tuple[int, int] = (3, 2)) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((outputs, 3, *sides)).astype(np.float32)


def convolve(pixels: np.ndarray, kernel: np.ndarray, pads: tuple[int, ...]) -> np.ndarray:
    """(1, H, W, 3) with (out, 3, k, k), zeros around the *preprocessed* pixels, float64."""
    padded = np.pad(pixels[0], ((pads[0], pads[2]), (pads[1], pads[3]), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[2:], axis=(0, 1))
    return np.einsum("hwcij,ocij->ohw", windows, kernel.astype(np.float64))[None]


@settings(max_examples=250, deadline=None)
@given(data=st.data(), pads=st.tuples(*[st.integers(0, 1)] * 4))
def test_any_chain_becomes_canonical_and_stays_exact_at_the_border(data, pads, graph, infer):
    chain = Chain(data.draw(st.tuples(st.integers(3, 6), st.integers(3, 6))))
    steps = data.draw(st.permutations(["cast", "transpose", "order", "affine", "affine", "order"]))
    has_cast = False
    for step in [*steps[: data.draw(st.integers(2, 6))], "cast", "transpose"]:
        if step == "cast" and not has_cast:
            chain.cast()
            has_cast = True
        elif step == "transpose" and chain.axes == [0, 1, 2, 3]:
            chain.transpose((0, 3, 1, 2))
        elif step == "order":
            draw_order(data, chain)
        elif step == "affine" and has_cast:
            draw_affine(data, chain)
    kernel = kernel_of()
    is_canonical = [node.op_type for node in chain.nodes] in (["Cast", "Transpose"], ["Cast", "Transpose", "Sub"])
    model = chain.model(graph, kernel, pads)
    raw = infer(model, chain.image)
    report = input_layout(model.graph)
    assert (report.applied, report.refused) == (0 if is_canonical else 1, ())
    assert kinds_until_convolution(model) in (CANONICAL, ["Cast", "Transpose", "Conv"])
    assert ("Sub" in kinds_until_convolution(model)) == bool(np.any(chain.of_black))
    reference = convolve(chain.pixels, kernel, pads)
    # Each output adds 18 products; each step of the chain, and its folding, rounds once.
    bound = (18 + 2 * len(chain.nodes) + 4) * UNIT * convolve(chain.magnitude, np.abs(kernel), pads)
    assert (np.abs(raw - reference) <= bound).all()
    assert (np.abs(infer(model, chain.image) - reference) <= bound).all()
    assert input_layout(model.graph).applied == 0


def draw_order(data: st.DataObject, chain: Chain) -> None:
    negative = data.draw(st.booleans())
    if data.draw(st.booleans()):
        order = list(data.draw(st.permutations([0, 1, 2])))
        chain.gather(order, data.draw(st.sampled_from([np.int32, np.int64])), negative=negative)
    else:
        start = data.draw(st.sampled_from([2, -1, 2**31 - 1]))
        chain.reverse(start, data.draw(st.sampled_from([-4, -(2**31), -(2**63) + 1])), negative=negative)


def draw_affine(data: st.DataObject, chain: Chain) -> None:
    """Add one per-channel operation."""
    kind = data.draw(st.sampled_from(["Mul", "Div", "Add", "Sub"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    values = rng.uniform(0.5, 2, 3) if kind in ("Mul", "Div") else rng.uniform(100, 130, 3)
    values = np.asarray(values[0] if data.draw(st.booleans()) else values, np.float32)
    constant_first = kind in ("Mul", "Add") and data.draw(st.booleans())
    chain.affine(kind, values, padded_shape=data.draw(st.booleans()), constant_first=constant_first)


@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 1, 1, 1), (0, 0, 2, 2)])
def test_border_keeps_zeros_of_preprocessed_pixels_not_of_bytes(pads, graph, infer):
    chain = Chain()
    chain.cast()
    chain.affine("Sub", np.full(3, 128, np.float32))
    chain.transpose((0, 3, 1, 2))
    kernel = np.ones((1, 3, 3, 3), np.float32)  # integers below 2**24: float32 is exact
    model = chain.model(graph, kernel, pads)
    assert input_layout(model.graph).applied == 1
    np.testing.assert_array_equal(infer(model, chain.image), convolve(chain.pixels, kernel, pads))


def test_strided_convolution_and_its_bias_are_left_as_they_are(graph, infer):
    chain = Chain()
    chain.cast()
    chain.gather([2, 1, 0], np.int64)
    chain.transpose((0, 3, 1, 2))
    chain.constants["bias"] = np.array([1, -2], np.float32)
    node = helper.make_node("Conv", [chain.value, "kernel", "bias"], ["y"], strides=[2, 2], pads=[0, 0, 1, 1])
    model = graph([*chain.nodes, node], {"image": chain.image}, ["y"], {**chain.constants, "kernel": kernel_of()})
    before = infer(model, chain.image)
    assert input_layout(model.graph).applied == 1
    total = 255 * np.abs(kernel_of()).sum() + 2
    assert np.abs(infer(model, chain.image) - before).max() <= 2 * 19 * UNIT * total


def chain_of(*steps) -> Chain:
    chain = Chain()
    for step in steps:
        step(chain)
    return chain


def cast(chain):
    chain.cast()


def to_nchw(chain):
    chain.transpose((0, 3, 1, 2))


def to_ncwh(chain):
    chain.transpose((0, 3, 2, 1))


def cast_to_half_and_back(chain):
    chain.add("Cast", to=TensorProto.FLOAT16)
    chain.cast()


def subtract_bytes(chain):
    chain.add("Sub", np.full(3, 100, np.uint8))


def per_pixel(chain):
    chain.add("Mul", np.arange(6, dtype=np.float32)[:, None])


def per_row(chain):
    chain.add("Sub", np.arange(5, dtype=np.float32)[:, None, None])


def from_255(chain):
    chain.add("Sub", np.array([255], np.float32), first=True)


def inverse(chain):
    chain.add("Add", np.array([1], np.float32))
    chain.add("Div", np.array([1], np.float32), first=True)


def times_zero(chain):
    chain.add("Mul", np.array([1, 0, 1], np.float32))


def five_dimensional_scale(chain):
    chain.add("Mul", np.ones((1, 1, 1, 1, 1), np.float32))
    chain.add("Squeeze", np.array([0]))


def relu(chain):
    chain.add("Relu")


def repeat_red(chain):
    chain.add("Gather", np.array([2, 2, 2]), axis=3)


def gather_columns(chain):
    chain.add("Gather", np.array([2, 1, 0]), axis=2)


def mirror(chain):
    chain.add("Slice", *(np.array([number]) for number in (-1, -(2**31), 2, -1)))


def one_channel_fewer(chain):
    chain.add("Slice", *(np.array([number]) for number in (0, 2, 3, 1)))


def slice_without_axes(chain):
    chain.add("Slice", np.array([0] * 4), np.array([9] * 4))


PER_CHANNEL = "before the first convolution is not per channel."
REORDER = "the Slice does not reverse the three colour channels."


@pytest.mark.parametrize(
    ("steps", "kernel", "reason"),
    [
        ((cast, relu, to_nchw), (2, 3, 3, 2), "Relu before the first convolution is not a per-channel operation."),
        ((cast, per_pixel, to_nchw), (2, 3, 3, 2), f"Mul {PER_CHANNEL}"),
        ((cast, per_row, to_nchw), (2, 3, 3, 2), f"Sub {PER_CHANNEL}"),
        ((cast, five_dimensional_scale, to_nchw), (2, 3, 3, 2), f"Mul {PER_CHANNEL}"),
        ((cast, from_255, to_nchw), (2, 3, 3, 2), "Sub divides or subtracts from a constant."),
        ((cast, inverse, to_nchw), (2, 3, 3, 2), "Div divides or subtracts from a constant."),
        ((subtract_bytes, cast, to_nchw), (2, 3, 3, 2), "Sub calculates with bytes, which wrap around."),
        (
            (cast_to_half_and_back, to_nchw),
            (2, 3, 3, 2),
            "the pixels are cast to something other than float32.",
        ),
        ((cast, times_zero, to_nchw), (2, 3, 3, 2), "a channel is multiplied by zero."),
        ((cast, repeat_red, to_nchw), (2, 3, 3, 2), "the channels are not only reordered."),
        ((cast, gather_columns, to_nchw), (2, 3, 3, 2), "the Gather does not reorder the three colour channels."),
        ((cast, mirror, to_nchw), (2, 3, 3, 2), REORDER),
        ((cast, slice_without_axes, to_nchw), (2, 3, 3, 2), REORDER),
        ((cast, one_channel_fewer, to_nchw), (2, 2, 3, 2), "the channels are not only reordered."),
        ((cast,), (2, 5, 3, 2), "the layout is not NCHW when it reaches the first convolution."),
        ((cast, to_ncwh), (2, 3, 3, 2), "the layout is not NCHW when it reaches the first convolution."),
    ],
)
def test_refusal_is_reported_and_changes_nothing(steps, kernel, reason, graph, infer):
    chain = chain_of(*steps)
    model = chain.model(graph, np.random.default_rng(2).standard_normal(kernel).astype(np.float32))
    before = infer(model, chain.image)
    report = input_layout(model.graph)
    assert report.applied == 0
    assert [refusal.reason for refusal in report.refused] == [reason]
    np.testing.assert_array_equal(infer(model, chain.image), before, strict=True)


def test_grouped_first_convolution_is_refused(graph, infer):
    chain = chain_of(cast, to_nchw)
    chain.add("Mul", np.array([2], np.float32))
    model = chain.model(graph, np.ones((3, 1, 3, 2), np.float32), group=3)
    before = infer(model, chain.image)
    report = input_layout(model.graph)
    assert [refusal.reason for refusal in report.refused] == [
        "the first convolution's kernel is not a constant over three channels."
    ]
    np.testing.assert_array_equal(infer(model, chain.image), before, strict=True)


def test_kernel_computed_at_run_time_is_refused(graph, infer):
    chain = chain_of(cast, to_nchw)
    chain.add("Mul", np.array([2], np.float32))
    node = helper.make_node("Conv", [chain.value, "kernel"], ["y"])
    model = graph([*chain.nodes, node], {"image": chain.image, "kernel": kernel_of()}, ["y"], chain.constants)
    before = infer(model, chain.image, kernel_of())
    report = input_layout(model.graph)
    assert [refusal.reason for refusal in report.refused] == [
        "the first convolution's kernel is not a constant over three channels."
    ]
    np.testing.assert_array_equal(infer(model, chain.image, kernel_of()), before, strict=True)


def test_channel_bounds_computed_at_run_time_are_refused(graph, infer):
    chain = chain_of(cast)
    chain.add("Slice", *(np.array([number]) for number in (-1, -(2**31), 3, -1)))
    start = chain.constants.pop("c0")
    to_nchw(chain)
    node = helper.make_node("Conv", [chain.value, "kernel"], ["y"])
    constants = {**chain.constants, "kernel": kernel_of()}
    model = graph([*chain.nodes, node], {"image": chain.image, "c0": start}, ["y"], constants)
    before = infer(model, chain.image, start)
    assert [refusal.reason for refusal in input_layout(model.graph).refused] == [REORDER]
    np.testing.assert_array_equal(infer(model, chain.image, start), before, strict=True)


@pytest.mark.parametrize("reads_again", ["image", "v0"])
def test_image_or_chain_read_by_another_node_is_refused(reads_again, graph, infer):
    chain = chain_of(cast, to_nchw)
    chain.add("Mul", np.array([2], np.float32))
    nodes = [
        *chain.nodes,
        helper.make_node("Conv", [chain.value, "kernel"], ["y"]),
        helper.make_node("Shape", [reads_again], ["z"]),
    ]
    model = graph(nodes, {"image": chain.image}, ["y", "z"], {**chain.constants, "kernel": kernel_of()})
    before = infer(model, chain.image)
    report = input_layout(model.graph)
    assert (report.applied, [(refusal.node, refusal.reason) for refusal in report.refused]) == (
        0,
        [(reads_again, "the input is read by several nodes.")],
    )
    np.testing.assert_array_equal(infer(model, chain.image), before, strict=True)


def test_unknown_size_stays_unknown(graph, infer):
    chain = chain_of(cast)
    chain.gather([2, 1, 0], np.int64)
    to_nchw(chain)
    node = helper.make_node("Conv", [chain.value, "kernel"], ["y"])
    constants = {**chain.constants, "kernel": kernel_of()}
    model = graph([*chain.nodes, node], {"image": (np.uint8, (1, "h", "w", 3))}, ["y"], constants)
    before = infer(model, chain.image)
    assert input_layout(model.graph).applied == 1
    total = 255 * np.abs(kernel_of()).sum()
    assert np.abs(infer(model, chain.image) - before).max() <= 2 * 19 * UNIT * total
