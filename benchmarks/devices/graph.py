"""An ONNX graph as the kernels that TensorRT would make of it: element-wise operations join their producer.

https://docs.nvidia.com/deeplearning/tensorrt/latest/performance/best-practices.html, sections on layer fusion
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from fcnedge.runtime.errors import UserError

from .layer import Layer
from .onnx_shapes import set_size, with_shapes

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
POINTWISE = (
    *("Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Erf", "Sqrt", "Exp"),
    *("Add", "Sub", "Mul", "Div", "Min", "Max", "Pow", "Neg", "Abs", "BatchNormalization", "Cast", "QuantizeLinear"),
)
MOVERS = (
    *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceSum", "Softmax", "ArgMax"),
    *(
        "Transpose",
        "Slice",
        "Split",
        "Pad",
        "Resize",
        "Gather",
        "LRN",
        "DepthToSpace",
        "SpaceToDepth",
        "Expand",
        "Tile",
    ),
)
FREE = (
    "Identity",
    "Dropout",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "DequantizeLinear",
    "Concat",
    "Constant",
    "Shape",
)
"""No kernel: a view, read by whoever comes next, or (Concat) written in place by who came before."""
_PRECISIONS = {1: "fp32", 10: "fp16", 16: "fp16", 2: "int8", 3: "int8", 11: "fp32"}


@dataclass(frozen=True)
class Network:
    """What `read_network` gives.

    size: (height, width) of the input; score_bytes: of what leaves it; unknown: operations that are not in the tables.
    """

    layers: tuple[Layer, ...]
    size: tuple[int, int]
    score_bytes: int
    unknown: tuple[str, ...]

    @property
    def multiply_adds(self) -> int:
        """Of one frame."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def weight_bytes(self) -> int:
        """Of all layers."""
        return sum(layer.weight_bytes for layer in self.layers)


@dataclass
class _Kernel:
    """Nodes that run as one. end: the tensor that leaves it."""

    nodes: list[Any]
    end: str


def read_network(model: Any, size: tuple[int, int] | None = None, precision: str | None = None) -> Network:
    """The kernels of one inference, in the graph's order. The model is changed: what weights hold is dropped.

    size: (height, width) to infer the shapes for instead of the graph's own. precision: of layers that the graph has in
    FP32, for a graph without types that is compiled in FP16 or INT8.
    Raises UserError where shapes are not static.
    """
    height, width = set_size(model, size)
    graph = _Graph(with_shapes(model), precision)
    layers = tuple(graph.layer(kernel) for kernel in graph.kernels())
    unknown = sorted({layer.operation for layer in layers if not layer.known})
    return Network(layers, (height, width), graph.result_bytes(), tuple(unknown))


class _Graph:
    def __init__(self, model: Any, precision: str | None) -> None:
        self.nodes = list(model.graph.node)
        self.assumed = precision
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.types: dict[str, int] = {}
        self.weights = {tensor.name for tensor in model.graph.initializer}
        for tensor in model.graph.initializer:
            self.shapes[tensor.name], self.types[tensor.name] = tuple(tensor.dims), tensor.data_type
        for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
            kind = value.type.tensor_type
            self.types[value.name] = kind.elem_type
            if kind.HasField("shape") and all(side.HasField("dim_value") for side in kind.shape.dim):
                self.shapes[value.name] = tuple(side.dim_value for side in kind.shape.dim)
        self.producer = {name: node for node in self.nodes for name in node.output}
        self.place = {name: place for place, node in enumerate(self.nodes) for name in node.output}
        self.consumers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)
        self.outputs = {value.name for value in model.graph.output}

    def kernels(self) -> list[_Kernel]:
        """Every node that starts one, with what joins it."""
        found: list[_Kernel] = []
        ending: dict[str, _Kernel] = {}
        for node in self.nodes:
            if node.op_type in FREE or all(self._constant(name) for name in node.input if name):
                continue
            kernel = self._joined(node, ending) if node.op_type in POINTWISE else None
            if kernel is None:
                kernel = _Kernel([node], node.output[0])
                found.append(kernel)
            else:
                kernel.nodes.append(node)
                if not self._gates(node):
                    kernel.end = node.output[0]
            ending.update(dict.fromkeys(node.output, kernel))
        return found

    def layer(self, kernel: _Kernel) -> Layer:
        """What one kernel computes and moves."""
        node = kernel.nodes[0]
        inside = {name for each in kernel.nodes for name in each.output}
        sources = {self._stored(name) for each in kernel.nodes for name in each.input if name and name not in inside}
        weights = {name for name in sources if self._constant(name)}
        product = node.op_type in PRODUCTS
        precision = self._precision(node)
        inputs, outputs, groups, multiply_adds = self._product(node) if product else (0, 0, 1, 0)
        return Layer(
            name=node.name or node.output[0],
            operation="depthwise Conv" if node.op_type == "Conv" and groups > 1 and inputs == 1 else node.op_type,
            precision=precision,
            multiply_adds=multiply_adds,
            read_bytes=sum(self._bytes(name, precision) for name in sources - weights),
            weight_bytes=sum(self._bytes(name, precision) for name in weights & self.weights),
            written_bytes=self._bytes(kernel.end, precision),
            inputs=inputs,
            outputs=outputs,
            groups=groups,
            small_kernel=node.op_type == "Conv" and groups == 1 and self._is_small(node),
            known=product or node.op_type in POINTWISE or node.op_type in MOVERS,
        )

    def result_bytes(self) -> int:
        """Of all outputs."""
        return sum(self._bytes(name, self.assumed or "fp32") for name in self.outputs)

    def _joined(self, node: Any, ending: dict[str, _Kernel]) -> _Kernel | None:
        """The kernel that an element-wise node joins: the latest whose result nobody else reads."""
        free = [name for name in node.input if name in ending and self._only(name, node)]
        return ending[max(free, key=self.place.__getitem__)] if free else None

    def _only(self, name: str, node: Any) -> bool:
        """Whether `name` is read by this node alone, or by it and a gate of it: x · sigmoid(x)."""
        if name in self.outputs:
            return False
        readers = self.consumers.get(name, [])
        if self._gates(node):
            product = self.consumers[node.output[0]][0]
            return all(reader is node or reader is product for reader in readers)
        return all(reader is node or (self._gates(reader) and reader.output[0] in node.input) for reader in readers)

    def _gates(self, node: Any) -> bool:
        """Whether a node is the sigmoid of x · sigmoid(x)."""
        if node.op_type not in ("Sigmoid", "HardSigmoid"):
            return False
        readers = self.consumers.get(node.output[0], [])
        return len(readers) == 1 and readers[0].op_type == "Mul" and node.input[0] in readers[0].input

    def _stored(self, name: str) -> str:
        """The tensor that memory holds for `name`: before DequantizeLinear and reshapes."""
        while (producer := self.producer.get(name)) is not None and producer.op_type in FREE and producer.input:
            if producer.op_type == "Concat":
                break
            name = producer.input[0]
        return name

    def _constant(self, name: str) -> bool:
        name = self._stored(name)
        if name in self.weights:
            return True
        producer = self.producer.get(name)
        return producer is not None and producer.op_type in ("Constant", "Shape")

    def _precision(self, node: Any) -> str:
        """What a node computes in: INT8 where its operands come out of DequantizeLinear, else its input's type."""
        operands = [name for name in node.input[:2] if name]
        dequantised = [self.producer.get(name) for name in operands]
        if node.op_type in PRODUCTS and all(
            each is not None and each.op_type == "DequantizeLinear" for each in dequantised
        ):
            return "int8"
        found = _PRECISIONS.get(self.types.get(operands[0] if operands else node.output[0], 1), "fp32")
        if found == "int8":  # what a cast reads
            found = _PRECISIONS.get(self.types.get(node.output[0], 1), "fp32")
        return self.assumed if self.assumed is not None and found == "fp32" else found

    def _bytes(self, name: str, precision: str) -> int:
        kind = self.types.get(name, 1)
        each = {1: 4, 10: 2, 16: 2, 2: 1, 3: 1, 9: 1, 7: 8, 11: 8}.get(kind, 4)
        if self.assumed is not None and kind == 1:
            each = {"fp32": 4, "fp16": 2, "int8": 1}[precision]
        return prod(self._shape(name)) * each

    def _product(self, node: Any) -> tuple[int, int, int, int]:
        """(channels in and out per group, groups, multiply-adds)."""
        result = self._shape(node.output[0])
        if node.op_type in ("Gemm", "MatMul"):
            depth = self._shape(node.input[0])[-1]
            return depth, result[-1], 1, prod(result) * depth
        kernel = self._shape(node.input[1])
        groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        if node.op_type == "Conv":
            return kernel[1], kernel[0] // groups, groups, result[0] * prod(result[2:]) * prod(kernel)
        positions = self._shape(node.input[0])
        return kernel[0] // groups, kernel[1], groups, positions[0] * prod(positions[2:]) * prod(kernel)

    def _is_small(self, node: Any) -> bool:
        """Whether a convolution is 3x3 with stride and dilation 1."""
        steps = [step for each in node.attribute if each.name in ("strides", "dilations") for step in each.ints]
        return self._shape(node.input[1])[2:] == (3, 3) and all(step == 1 for step in steps)

    def _shape(self, name: str) -> tuple[int, ...]:
        try:
            return self.shapes[name]
        except KeyError:
            raise UserError(
                f"the shape of {name!r} is not known beforehand; a prediction needs static shapes: export the model "
                "with a fixed input size."
            ) from None
