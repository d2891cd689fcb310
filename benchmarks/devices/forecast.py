"""What is expected of a network on a device: a range, what bounds it, and which size reaches a frame rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fcnedge.runtime.errors import UserError

from .device import Device
from .efficiency import Efficiency, efficiency
from .frame_stages import after_network, before_network
from .graph import Network
from .kernel_time import FAST_KERNEL_MS, KERNEL_MS, roofline
from .layer import Layer

BOUNDS = ("compute", "memory", "launch")
SIZE_STEP = 32
"""The coarsest stride of our networks: other sizes would leave a part of a score point over."""
MIN_SIDE, MAX_SIDE = 64, 4096


@dataclass(frozen=True)
class Range:
    """Milliseconds: what is expected, and the ends of the range."""

    expected: float
    low: float
    high: float

    def __add__(self, other: Range) -> Range:
        """One after the other."""
        return Range(self.expected + other.expected, self.low + other.low, self.high + other.high)

    def shown(self, unit: str = "ms") -> str:
        """`12.3 ms (10.1 to 15.6)`."""
        return f"{_digits(self.expected)} {unit} ({_digits(self.low)} to {_digits(self.high)})"


@dataclass(frozen=True)
class LayerForecast:
    """One kernel on the device. precision: what it is computed in; ms: expected.

    work: which of `compute` and `memory` its work is bound by; bound: one of BOUNDS, `launch` where even that is less
    than what starting a kernel costs.
    """

    layer: Layer
    precision: str
    unit: str
    ms: float
    work: str
    bound: str


@dataclass(frozen=True)
class StageForecast:
    """One stage outside the network. optional: whether it is left out of the sum."""

    name: str
    ms: float
    optional: bool


@dataclass(frozen=True)
class Forecast:
    """One network on one device. size, frame: (height, width). outside: of copies and our kernels, without overlay."""

    device: Device
    efficiency: Efficiency
    size: tuple[int, int]
    frame: tuple[int, int]
    network: Range
    outside: Range
    layers: tuple[LayerForecast, ...]
    stages: tuple[StageForecast, ...]

    @property
    def whole(self) -> Range:
        """From frame to mask."""
        return self.network + self.outside

    @property
    def fps(self) -> Range:
        """Frames per second, one after the other."""
        return Range(1e3 / self.whole.expected, 1e3 / self.whole.high, 1e3 / self.whole.low)

    def shares(self) -> dict[str, float]:
        """Of the network's time: work of kernels bound by computing, of those bound by memory, and starting them."""
        total = self.network.expected
        return {
            **{
                kind: sum(each.ms - KERNEL_MS for each in self.layers if each.work == kind) / total
                for kind in BOUNDS[:2]
            },
            "launch": KERNEL_MS * len(self.layers) / total,
        }


def forecast(network: Network, device: Device, frame: tuple[int, int]) -> Forecast:
    """What `network` should take on `device` for frames of (height, width)."""
    fitted = efficiency(device.architecture)
    rooflines = [roofline(layer, device) for layer in network.layers]
    layers = tuple(
        LayerForecast(
            each.layer, each.precision, each.unit, each.predicted_ms(fitted.share), each.work, each.bound(fitted.share)
        )
        for each in rooflines
    )
    stages = [*before_network(frame, network.size), *after_network(frame, network.score_bytes)]
    outside = tuple(
        StageForecast(stage.name, _stage_ms(stage.memory, stage.ideal_ms(device), fitted.share), stage.optional)
        for stage in stages
    )
    needed = [stage for stage in stages if not stage.optional]
    kernels = sum(1 for stage in needed if stage.memory)
    return Forecast(
        device=device,
        efficiency=fitted,
        size=network.size,
        frame=frame,
        network=_range(sum(each.ms for each in rooflines), len(rooflines), fitted),
        outside=_range(sum(stage.ideal_ms(device) for stage in needed), kernels, fitted),
        layers=layers,
        stages=outside,
    )


def largest_size(
    read: Callable[[tuple[int, int]], Network],
    device: Device,
    frame: tuple[int, int],
    like: tuple[int, int],
    fps: float,
) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """The largest (height, width) of the aspect of `like` that reaches `fps`: as expected, and even at the slow end.

    read: gives the network at a size. None where not even the smallest does, or where the graph fits no other size.
    """
    sizes = list(_sizes(like))
    known: dict[tuple[int, int], Forecast] = {}

    def at(size: tuple[int, int]) -> Forecast:
        if size not in known:
            known[size] = forecast(read(size), device, frame)
        return known[size]

    try:
        return (
            _last(sizes, lambda size: at(size).whole.expected <= 1e3 / fps),
            _last(sizes, lambda size: at(size).whole.high <= 1e3 / fps),
        )
    except UserError:  # a graph with a reshape or a crop to fixed numbers has no other size
        return None, None


def _sizes(like: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Sizes of about the same aspect, from small to large, sides in steps of SIZE_STEP."""
    short, long = min(like), max(like)
    for side in range(MIN_SIDE, MAX_SIDE + 1, SIZE_STEP):
        other = max(SIZE_STEP, round(side * long / short / SIZE_STEP) * SIZE_STEP)
        if other <= MAX_SIDE:
            yield (side, other) if like[0] <= like[1] else (other, side)


def _last(sizes: list[tuple[int, int]], reached: Callable[[tuple[int, int]], bool]) -> tuple[int, int] | None:
    """The last of the sizes that reaches it, by halving: a larger one is never faster."""
    low, high = 0, len(sizes)
    while low < high:
        middle = (low + high) // 2
        if reached(sizes[middle]):
            low = middle + 1
        else:
            high = middle
    return sizes[low - 1] if low else None


def _range(at_peak_ms: float, kernels: int, fitted: Efficiency) -> Range:
    work = at_peak_ms / fitted.share
    expected = work + KERNEL_MS * kernels
    fast = work + FAST_KERNEL_MS.get(fitted.architecture, KERNEL_MS) * kernels
    return Range(expected, fast * min(1.0, fitted.low), expected * max(1.0, fitted.high))


def _stage_ms(memory: int, ideal_ms: float, share: float) -> float:
    return ideal_ms / share + (KERNEL_MS if memory else 0.0)


def _digits(value: float) -> str:
    """Three digits."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"
