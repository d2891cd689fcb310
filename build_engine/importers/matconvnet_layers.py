"""Layers of a MatConvNet DagNN: each class's `block` of settings and its parameters, as layers of a LayerGraph.

Sources: dagnn.Conv, ConvTranspose, Pooling, Crop (getAdaptedCrops) and their vl_nn functions in MatConvNet's manual.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fcnedge.runtime.errors import UserError

from . import layer_graph as graphs

_SHOWN = 80
"""Characters of a wrong setting in a message."""


def listed(value: Any) -> list[Any]:
    """A cell array or struct array; MATLAB keeps one of one element, and a lone name, as the element itself."""
    if isinstance(value, np.ndarray):
        return value.reshape(-1).tolist()
    return value if isinstance(value, list) else [value] if value != "" else []


@dataclass(frozen=True)
class Block:
    """A layer's `block`, the settings of its class, with questions about them."""

    path: Path
    base: graphs.Layer
    settings: dict[str, Any]
    parameters: list[str]

    def pair(self, name: str, default: int = 1) -> graphs.Pair:
        """A scalar or [rows columns]."""
        values = self.integers(name, [default])
        if len(values) not in (1, 2):
            raise self.error(f"{name} has {len(values)} numbers, expected 1 or 2")
        return values[0], values[-1]

    def sides(self, name: str) -> graphs.Sides:
        """[top bottom left right], [rows columns] or a scalar, as (top, bottom, left, right)."""
        values = self.integers(name, [0])
        if len(values) not in (1, 2, 4):
            raise self.error(f"{name} has {len(values)} numbers, expected 1, 2 or 4")
        top, bottom, left, right = values if len(values) == 4 else np.repeat(values, 4 // len(values)).tolist()
        return top, bottom, left, right

    def integers(self, name: str, default: list[int]) -> list[int]:
        """A setting as whole numbers; `default` where it is not there or empty."""
        value = self._value(name)
        if value is None:
            return default
        if not _is_numbers(value) or not np.array_equal(value, np.round(value)) or abs(value).max() > 1 << 20:
            raise self.error(f"{name} is {_shown(value)}, expected whole numbers")
        return [int(number) for number in value.reshape(-1)]

    def number(self, name: str) -> float:
        """A scalar setting, 0 where it is not there."""
        value = self._value(name)
        if value is None:
            return 0.0
        if not _is_numbers(value) or value.size != 1 or not 0 <= value.item() < np.inf:
            raise self.error(f"{name} is {_shown(value)}, expected a number from 0 up")
        return float(value.item())

    def word(self, name: str, default: str) -> str:
        """A text setting."""
        value = self._value(name)
        return default if value is None else value if isinstance(value, str) else _shown(value)

    def flag(self, name: str) -> bool | None:
        """A logical setting, None where it is not there."""
        value = self._value(name)
        if value is not None and not _is_numbers(value):
            raise self.error(f"{name} is {_shown(value)}, expected true or false")
        return None if value is None else bool(np.all(value))

    def _value(self, name: str) -> Any:
        """A setting, None where it is not there or empty."""
        value = self.settings.get(name)
        return None if value is None or (value.size if isinstance(value, np.ndarray) else len(value)) == 0 else value

    def error(self, reason: str) -> UserError:
        """The one sentence that names file and layer."""
        return UserError(f"{self.path}: the layer {self.base.name} cannot be read: {reason}.")


class Values:
    """Parameters with the values that the file holds."""

    def __init__(self, net: dict[str, Any]) -> None:
        structs = listed(net.get("params", []))
        self._values = {str(each.get("name")): each.get("value") for each in structs if isinstance(each, dict)}

    def filters(self, block: Block) -> np.ndarray:
        """A layer's filters, four axes, float32. Raises UserError when they are missing or of another shape."""
        array = self._array(block, 0, "filters")
        array = array.reshape(array.shape + (1,) * (4 - array.ndim))  # MATLAB drops trailing axes of length 1
        said = block.integers("size", [])
        said += [1] * (4 - len(said)) if said else []
        if said and all(said) and tuple(said) != array.shape:
            raise block.error(f"its filters {block.parameters[0]} are {array.shape}, its size says {tuple(said)}")
        return array

    def bias(self, block: Block, channels: int) -> np.ndarray | None:
        """(channels,) float32; None for a layer without."""
        said = block.flag("hasBias")
        if not (len(block.parameters) > 1 if said is None else said):
            return None
        array = self._array(block, 1, "bias").reshape(-1)
        if array.size != channels:
            raise block.error(f"its bias {block.parameters[1]} has {array.size} numbers for {channels} channels")
        return array

    def _array(self, block: Block, index: int, what: str) -> np.ndarray:
        if index >= len(block.parameters):
            raise block.error(f"it names no parameter for its {what}")
        name = block.parameters[index]
        value = self._values.get(name)
        if value is None:
            raise block.error(f"its parameter {name} is missing from params")
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu" or value.size == 0 or value.ndim > 4:
            raise block.error(f"its parameter {name} holds no numbers of up to four dimensions")
        return np.asarray(value, np.float32)


class Shapes(Values):
    """Parameters as zeros of the shape that the layers tell, without memory: enough to count classes.

    Where a layer does not tell, the file's parameters are read after all, by `read`.
    """

    def __init__(self, net: dict[str, Any], read: Callable[[], dict[str, Any]]) -> None:
        super().__init__(net)
        self._read = read

    def filters(self, block: Block) -> np.ndarray:
        """A layer's filters as zeros, four axes."""
        shape = block.integers("size", [])
        shape += [1] * (4 - len(shape)) if shape else []
        if len(shape) == 4 and min(shape) > 0:
            return np.broadcast_to(np.float32(0), shape)
        if not self._values:
            super().__init__(self._read())
        return super().filters(block)

    def bias(self, block: Block, channels: int) -> np.ndarray | None:
        """None: a bias tells nothing about classes."""
        return None


def _is_numbers(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiub"


def _shown(value: Any) -> str:
    """A value in one line, however large it is."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _convolution(block: Block, parameters: Values) -> graphs.Layer:
    filters = parameters.filters(block)
    return graphs.Convolution(
        **vars(block.base),
        filters=filters,
        bias=parameters.bias(block, filters.shape[3]),
        stride=block.pair("stride"),
        pads=block.sides("pad"),
        dilation=block.pair("dilate"),
    )


def _deconvolution(block: Block, parameters: Values) -> graphs.Layer:
    filters = parameters.filters(block)
    groups = block.integers("numGroups", [1])[0]
    return graphs.Deconvolution(
        **vars(block.base),
        filters=filters,
        bias=parameters.bias(block, filters.shape[2] * groups),
        stride=block.pair("upsample"),
        crop=block.sides("crop"),
        groups=groups,
    )


def _pool(block: Block, _: Values) -> graphs.Layer:
    method = block.word("method", "max")
    if method not in ("max", "avg"):
        raise block.error(f"its method is {method}, expected max or avg")
    return graphs.Pool(
        **vars(block.base),
        kernel=block.pair("poolSize"),
        stride=block.pair("stride"),
        pads=block.sides("pad"),
        mean=method == "avg",
    )


def _crop(block: Block, _: Values) -> graphs.Layer:
    return graphs.Crop(**vars(block.base), before=block.pair("crop", 0), at_most=True)


def _relu(block: Block, _: Values) -> graphs.Layer:
    return graphs.Relu(**vars(block.base), slope=block.number("leak"))


def _plain(kind: type[graphs.Layer]) -> Callable[[Block, Values], graphs.Layer]:
    return lambda block, _: kind(**vars(block.base))


READERS: dict[str, Callable[[Block, Values], graphs.Layer]] = {
    "Conv": _convolution,
    "ConvTranspose": _deconvolution,
    "Pooling": _pool,
    "ReLU": _relu,
    "Sum": _plain(graphs.Sum),
    "Crop": _crop,
    "DropOut": _plain(graphs.Same),
    "SoftMax": _plain(graphs.Softmax),
}
