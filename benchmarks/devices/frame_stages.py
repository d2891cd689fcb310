"""What a frame costs outside the network: copies, and our three kernels. docs/gpu.md says what each does."""

from __future__ import annotations

from dataclasses import dataclass

from .device import Device


@dataclass(frozen=True)
class Stage:
    """Least work of one stage. memory, link: bytes; multiply_adds, cuda_multiply_adds: on Tensor Cores and beside them.

    optional: whether a mask can do without it.
    """

    name: str
    memory: int = 0
    link: int = 0
    multiply_adds: int = 0
    cuda_multiply_adds: int = 0
    precision: str = "fp16"
    optional: bool = False

    def ideal_ms(self, device: Device) -> float:
        """Milliseconds at the peak rates of `device` where what takes longest hides the rest."""
        link = self.link / device.link if device.link else 0.0
        precision = device.rates.computed_in(self.precision)
        operations = 2 * self.multiply_adds / device.peak(precision, tensor=True)
        if self.cuda_multiply_adds:
            operations += 2 * self.cuda_multiply_adds / device.peak("fp16", tensor=False)
        return 1e3 * max(self.memory / device.memory, link, operations)


def before_network(frame: tuple[int, int], network: tuple[int, int]) -> list[Stage]:
    """Stages from the camera's (height, width) to the network's; a byte counts once where it enters or leaves one."""
    pixels, image = 3 * frame[0] * frame[1], 3 * network[0] * network[1]
    touched = min(pixels, 4 * image)  # bilinear: four frame pixels for each of the network's
    return [Stage("frame to GPU", link=pixels), Stage("preprocess", memory=touched + image)]


def after_network(frame: tuple[int, int], score_bytes: int) -> list[Stage]:
    """Stages from the scores to a mask of the frame's (height, width)."""
    mask = frame[0] * frame[1]
    return [
        Stage("scores to labels", memory=score_bytes + mask),
        Stage("overlay, every pixel painted", memory=7 * mask, optional=True),
        Stage("mask to CPU", link=mask),
    ]
