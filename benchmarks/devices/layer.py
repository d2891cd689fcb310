"""One kernel of a compiled network: what it computes and what it moves, whatever the device."""

from __future__ import annotations

from dataclasses import dataclass

TENSOR_CHANNELS = {"fp32": 4, "fp16": 8, "int8": 16}
"""Channels come in such bundles on Tensor Cores; what is missing is computed as zeros.

https://docs.nvidia.com/deeplearning/performance/dl-performance-convolutional/index.html, section on channels
"""
_SMALL_INPUT = 4
"""The first convolution's three channels are padded to four: TensorRT has kernels of their own for it."""


@dataclass(frozen=True)
class Layer:
    """A convolution or matrix product with the element-wise operations fused into it, or one that only moves bytes.

    multiply_adds: as the mathematics has it. inputs, outputs: channels of the product, per group; 0 without one.
    read_bytes: activations; weight_bytes: read once a frame; written_bytes: its result. small_kernel: a dense 3x3
    convolution of stride 1. known: whether the operation is one of those whose work is known; others count by bytes.
    """

    name: str
    operation: str
    precision: str
    multiply_adds: int
    read_bytes: int
    weight_bytes: int
    written_bytes: int
    inputs: int = 0
    outputs: int = 0
    groups: int = 1
    small_kernel: bool = False
    known: bool = True

    @property
    def bytes(self) -> int:
        """All that crosses the memory's bus."""
        return self.read_bytes + self.weight_bytes + self.written_bytes

    @property
    def fits_tensor_cores(self) -> bool:
        """Depthwise convolutions, and groups narrower than a Tensor Core's bundle, run on CUDA cores."""
        width = TENSOR_CHANNELS[self.precision]
        return self.multiply_adds > 0 and (self.groups == 1 or min(self.inputs, self.outputs) >= width)

    @property
    def padded_multiply_adds(self) -> int:
        """What Tensor Cores compute: with channels rounded up to their bundles."""
        width = TENSOR_CHANNELS[self.precision]
        inputs = _SMALL_INPUT if self.inputs <= _SMALL_INPUT else _up(self.inputs, width)
        return round(self.multiply_adds * (inputs / self.inputs) * (_up(self.outputs, width) / self.outputs))


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
