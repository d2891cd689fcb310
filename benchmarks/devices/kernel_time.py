"""A roofline for one kernel: the longer of computing and moving, at a share of the peak, and what starting it costs.

    ms = max(operations / peak operations, bytes / bandwidth) / efficiency + a kernel's own time

One efficiency per architecture is fitted (efficiency.py); nothing else is. On CUDA cores a dense 3x3 convolution of
stride 1 needs 2.25 times fewer multiplications, by Winograd's F(2x2, 3x3): arXiv:1509.09308.
"""

from __future__ import annotations

from dataclasses import dataclass

from .device import Device
from .layer import Layer

KERNEL_MS = 0.02
"""What a kernel takes beyond its work: filling and draining the GPU, and its launch.

The one round number among 5, 10, 15, 20, 30 µs with which all architectures' fitted networks agree best.
"""
FAST_KERNEL_MS = {"ampere": 0.005, "hopper": 0.005, "blackwell": 0.005}
"""… and at best: MLPerf's ResNet-50 on AGX Orin takes 11 µs a kernel, its work included. On Xavier it takes 32."""
_WINOGRAD = 2.25
_WINOGRAD_CHANNELS = 16
"""Below so many input channels the transforms cost more than they save."""


@dataclass(frozen=True)
class Roofline:
    """A layer at the peak rates of a device. unit: what computes it, empty where nothing is computed."""

    layer: Layer
    precision: str
    unit: str
    compute_ms: float
    memory_ms: float

    @property
    def ms(self) -> float:
        """The longer of the two, at the peak."""
        return max(self.compute_ms, self.memory_ms)

    def predicted_ms(self, efficiency: float, kernel_ms: float = KERNEL_MS) -> float:
        """With that share of the peak."""
        return self.ms / efficiency + kernel_ms

    def bound(self, efficiency: float) -> str:
        """What takes longest: `compute`, `memory` or `launch`."""
        if self.ms / efficiency < KERNEL_MS:
            return "launch"
        return self.work

    @property
    def work(self) -> str:
        """Which of the two is longer: `compute` or `memory`."""
        return "compute" if self.compute_ms > self.memory_ms else "memory"


def roofline(layer: Layer, device: Device) -> Roofline:
    """The least time of `layer` on `device`, both ways."""
    precision = device.rates.computed_in(layer.precision)
    tensor = layer.fits_tensor_cores and precision in device.rates.tensor
    work = float(layer.padded_multiply_adds if tensor else layer.multiply_adds)
    if not tensor and layer.small_kernel and precision != "int8" and layer.inputs >= _WINOGRAD_CHANNELS:
        work /= _WINOGRAD
    unit = "" if not layer.multiply_adds else "Tensor Cores" if tensor else "CUDA cores"
    compute = 2 * work / device.peak(precision, tensor=tensor) if work else 0.0
    return Roofline(layer, precision, unit, 1e3 * compute, 1e3 * layer.bytes / device.memory)
