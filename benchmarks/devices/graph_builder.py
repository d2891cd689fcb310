"""Build an ONNX graph layer by layer from shapes alone: its weights have dimensions and no values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import onnx
from onnx import TensorProto, helper


@dataclass(frozen=True)
class Tensor:
    """A value on the way through the graph. shape: (channels, height, width), or (features,)."""

    name: str
    shape: tuple[int, ...]

    @property
    def channels(self) -> int:
        """The first of its sides."""
        return self.shape[0]


class GraphBuilder:
    """Batch 1, NCHW, float32. Every method takes tensors and gives the tensor that it adds."""

    def __init__(self, height: int, width: int, channels: int = 3) -> None:
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self.picture = Tensor("picture", (channels, height, width))

    def conv(
        self,
        x: Tensor,
        channels: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        *,
        groups: int = 1,
        pad: int | None = None,
        act: str | None = "Relu",
    ) -> Tensor:
        """A convolution with bias (batch normalisation folded in) and `act` after it. pad: per side; None: "same"."""
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        pads = [each // 2 if pad is None else pad for each in sides]
        shape = (channels, *(_out(size, k, stride, p) for size, k, p in zip(x.shape[1:], sides, pads, strict=True)))
        inputs = [x.name, self._weight((channels, x.channels // groups, *sides)), self._weight((channels,))]
        y = self._node("Conv", inputs, shape, strides=[stride] * 2, pads=pads * 2, group=groups)
        return self.act(y, act)

    def depthwise(self, x: Tensor, kernel: int = 3, stride: int = 1, act: str | None = "Relu") -> Tensor:
        """A convolution of each channel by itself."""
        return self.conv(x, x.channels, kernel, stride, groups=x.channels, act=act)

    def act(self, x: Tensor, act: str | None = "Relu") -> Tensor:
        """`Relu`, `Silu` or nothing."""
        if act == "Silu":
            return self._node("Mul", [x.name, self._node("Sigmoid", [x.name], x.shape).name], x.shape)
        return x if act is None else self._node(act, [x.name], x.shape)

    def batch_norm(self, x: Tensor) -> Tensor:
        """One that cannot be folded into a convolution before it."""
        weights = [self._weight((x.channels,)) for _ in range(4)]
        return self._node("BatchNormalization", [x.name, *weights], x.shape)

    def max_pool(self, x: Tensor, kernel: int, stride: int, pad: int = 0, *, ceil: bool = False) -> Tensor:
        """The largest of each window. ceil: a window may reach over the edge."""
        return self._pool("MaxPool", x, kernel, stride, pad, ceil)

    def average_pool(self, x: Tensor, kernel: int, stride: int, pad: int = 0) -> Tensor:
        """The mean of each window."""
        return self._pool("AveragePool", x, kernel, stride, pad, ceil=False)

    def mean(self, x: Tensor) -> Tensor:
        """The mean of each channel, (channels, 1, 1)."""
        return self._node("GlobalAveragePool", [x.name], (x.channels, 1, 1))

    def add(self, x: Tensor, y: Tensor, act: str | None = None) -> Tensor:
        """Their sum."""
        return self.act(self._node("Add", [x.name, y.name], x.shape), act)

    def concat(self, *parts: Tensor) -> Tensor:
        """Their channels side by side."""
        shape = (sum(part.channels for part in parts), *parts[0].shape[1:])
        return self._node("Concat", [part.name for part in parts], shape, axis=1)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Two halves of its channels: views, since whoever wrote them can write them apart."""
        half = (x.channels // 2, *x.shape[1:])
        names = [f"t{len(self._nodes)}.{place}" for place in (0, 1)]
        self._nodes.append(helper.make_node("Split", [x.name], names, name=names[0], axis=1))
        return Tensor(names[0], half), Tensor(names[1], half)

    def upsample(self, x: Tensor) -> Tensor:
        """Twice the size, nearest."""
        scales = self._constant([1.0, 1.0, 2.0, 2.0])
        shape = (x.channels, *(2 * side for side in x.shape[1:]))
        return self._node("Resize", [x.name, "", scales], shape, mode="nearest")

    def dense(self, x: Tensor, features: int, act: str | None = None) -> Tensor:
        """A fully connected layer over all of `x`."""
        if len(x.shape) > 1:
            x = self._node("Flatten", [x.name], (prod(x.shape),), axis=1)
        inputs = [x.name, self._weight((x.channels, features)), self._weight((features,))]
        return self.act(self._node("Gemm", inputs, (features,)), act)

    def model(self, *outputs: Tensor) -> Any:
        """The graph as onnx.ModelProto."""
        picture = helper.make_tensor_value_info(self.picture.name, TensorProto.FLOAT, (1, *self.picture.shape))
        results = [helper.make_tensor_value_info(each.name, TensorProto.FLOAT, (1, *each.shape)) for each in outputs]
        graph = helper.make_graph(self._nodes, "network", [picture], results, initializer=self._weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def _pool(self, kind: str, x: Tensor, kernel: int, stride: int, pad: int, ceil: bool) -> Tensor:
        sides = (_out(side + (stride - 1 if ceil else 0), kernel, stride, pad) for side in x.shape[1:])
        options = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4, "ceil_mode": int(ceil)}
        return self._node(kind, [x.name], (x.channels, *sides), **options)

    def _node(self, kind: str, inputs: Sequence[str], shape: tuple[int, ...], **attributes: Any) -> Tensor:
        name = f"t{len(self._nodes)}"
        self._nodes.append(
            helper.make_node(kind, inputs, [name], name=f"{kind.lower()}{len(self._nodes)}", **attributes)
        )
        return Tensor(name, shape)

    def _weight(self, shape: tuple[int, ...]) -> str:
        name = f"w{len(self._weights)}"
        self._weights.append(onnx.TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT))
        return name

    def _constant(self, values: Sequence[float]) -> str:
        name = f"w{len(self._weights)}"
        self._weights.append(helper.make_tensor(name, TensorProto.FLOAT, [len(values)], values))
        return name


def _out(size: int, kernel: int, stride: int, pad: int) -> int:
    return (size + 2 * pad - kernel) // stride + 1
