"""An ONNX tensor whose value stays in its Keras variable until it is written."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

_SLAB_BYTES = 16 << 20


class KerasWeight(ir.LazyTensor):
    """A Keras variable seen through layout changes (transposes, reshapes) as an ONNX initialiser.

    Nothing is copied until the tensor is read; `tofile` writes slabs of 16 MB, so that VGG16's 411 MB fc6 never
    exists twice. The variable must live as long as the tensor.
    """

    def __init__(self, variable, name: str, changes: tuple[tuple[str, tuple[int, ...]], ...] = ()):
        self._variable = variable
        self._changes = changes
        shape = self._view(np.broadcast_to(np.float32(0), tuple(variable.shape))).shape
        super().__init__(self._read, dtype=ir.DataType.FLOAT, shape=ir.Shape(shape), name=name)

    def changed(self, operation: str, argument: tuple[int, ...]) -> KerasWeight:
        """The same variable through one more "transpose" (argument: perm) or "reshape" (argument: shape)."""
        return KerasWeight(self._variable, self.name or "", (*self._changes, (operation, argument)))

    def tofile(self, file) -> None:
        """Write the values to an open binary file, slab by slab."""
        view = self._view(_shared_array(self._variable))
        rows = max(1, _SLAB_BYTES // max(1, view.nbytes // max(1, view.shape[0])))
        for start in range(0, view.shape[0], rows):
            file.write(np.ascontiguousarray(view[start : start + rows]).data)

    def _read(self) -> ir.Tensor:
        return ir.Tensor(np.ascontiguousarray(self._view(_shared_array(self._variable))), name=self.name)

    def _view(self, array: np.ndarray) -> np.ndarray:
        for operation, argument in self._changes:
            array = array.transpose(argument) if operation == "transpose" else array.reshape(argument)
        return array


def _shared_array(variable) -> np.ndarray:
    """The variable's memory itself: `numpy()` of a TensorFlow tensor is a copy, its buffer is not."""
    import tensorflow as tf

    return np.asarray(memoryview(tf.convert_to_tensor(variable.value)))  # type: ignore[arg-type]
