"""One layer on its way into Keras: what it reads, what it is called, and helpers that every kind of layer needs."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import layers

from fcnedge.runtime.errors import UserError

from .layer_graph import Layer, Pair, Sides


class Step:
    """One layer being built: its Keras inputs, its Keras name, and where its weights are noted for later."""

    def __init__(self, layer: Layer, inputs: list[Any], name: str, weights: list[tuple[Any, list[np.ndarray]]]) -> None:
        self.layer, self.inputs, self.name = layer, inputs, name
        self._weights = weights

    @property
    def size(self) -> Pair:
        """(rows, columns) of the first input."""
        return self.inputs[0].shape[1], self.inputs[0].shape[2]

    @property
    def channels(self) -> int:
        """Of the first input."""
        return self.inputs[0].shape[3]

    def weighted(self, built: Any, filters: np.ndarray, bias: np.ndarray | None, x: Any) -> Any:
        """Apply a Keras layer with weights."""
        y = built(x)
        self._weights.append((built, [filters] if bias is None else [filters, bias]))
        return y

    def padded(self, x: Any, pads: Sides) -> Any:
        """Zeros around x."""
        top, bottom, left, right = pads
        if not any(pads):
            return x
        return layers.ZeroPadding2D(((top, bottom), (left, right)), name=f"{self.name}_pad")(x)

    def cropped(self, x: Any, crop: Sides) -> Any:
        """x without its outermost rows and columns."""
        top, bottom, left, right = crop
        if not any(crop):
            return x
        return layers.Cropping2D(((top, bottom), (left, right)), name=f"{self.name}_crop")(x)

    def error(self, reason: str) -> UserError:
        """The one sentence that names the layer."""
        return UserError(f"the layer {self.layer.name} does not fit into its network: {reason}.")

    def check_reach(self, reach: tuple[int, ...], pads: Sides) -> None:
        """Raise UserError where a window of `reach` pixels is larger than the padded input."""
        for axis in (0, 1):
            if self.size[axis] + sum(pads[2 * axis : 2 * axis + 2]) < reach[axis]:
                raise self.error(
                    f"its window of {reach[1]}x{reach[0]} is larger than its padded input; take a larger --size"
                )
