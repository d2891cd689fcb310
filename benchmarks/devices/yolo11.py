"""YOLO11 detectors, for which measurements on three Orins are published: https://docs.ultralytics.com/models/yolo11/.

Written from the description of its blocks in arXiv:2410.17725 and compared with the published operation counts.
Attention's two matrix products (0.2% of the multiply-adds) are left out; its convolutions are not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .graph_builder import GraphBuilder, Tensor

_SCALES = {
    "n": (0.5, 0.25, 1024),
    "s": (0.5, 0.5, 1024),
    "m": (0.5, 1.0, 512),
    "l": (1.0, 1.0, 512),
    "x": (1.0, 1.5, 512),
}
"""Depth, width and the most channels before the width is applied."""
_CLASSES = 80
_SIDES = 4 * 16
"""Four sides of a box, each a distribution over 16 distances."""


def yolo11(scale: str) -> Callable[[int, int], Any]:
    """The detector of size `scale`, one of n, s, m, l, x."""

    def build(height: int, width: int) -> Any:
        return _Yolo(GraphBuilder(height, width), scale).model()

    return build


class _Yolo:
    def __init__(self, g: GraphBuilder, scale: str) -> None:
        self.g = g
        self.depth, self.width, self.most = _SCALES[scale]
        self.large = scale in "mlx"

    def model(self) -> Any:
        g = self.g
        x = self._conv(self._conv(g.picture, 64, 3, 2), 128, 3, 2)
        x = self._conv(self._c3k2(x, 256, False, 0.25), 256, 3, 2)
        third = self._c3k2(x, 512, False, 0.25)
        fourth = self._c3k2(self._conv(third, 512, 3, 2), 512, True)
        fifth = self._c3k2(self._conv(fourth, 1024, 3, 2), 1024, True)
        fifth = self._attention(self._pooled(fifth))
        up = self._c3k2(g.concat(g.upsample(fifth), fourth), 512, False)
        fine = self._c3k2(g.concat(g.upsample(up), third), 256, False)
        middle = self._c3k2(g.concat(self._conv(fine, 256, 3, 2), up), 512, False)
        coarse = self._c3k2(g.concat(self._conv(middle, 512, 3, 2), fifth), 1024, True)
        return g.model(*(part for level in (fine, middle, coarse) for part in self._detect(level, fine.channels)))

    def _channels(self, channels: int) -> int:
        return -(-int(min(channels, self.most) * self.width) // 8) * 8

    def _conv(self, x: Tensor, channels: int, kernel: int = 1, stride: int = 1) -> Tensor:
        return self.g.conv(x, self._channels(channels), kernel, stride, act="Silu")

    def _silu(self, x: Tensor, channels: int, kernel: int = 1) -> Tensor:
        return self.g.conv(x, channels, kernel, act="Silu")

    def _c3k2(self, x: Tensor, channels: int, nested: bool, expansion: float = 0.5) -> Tensor:
        """Two branches, one of which goes through residual blocks and is read at every step."""
        wide = self._channels(channels)
        half = int(wide * expansion)
        kept, y = self.g.split(self._silu(x, 2 * half))
        parts = [kept, y]
        for _ in range(max(1, round(2 * self.depth))):
            y = self._c3k(y, half) if nested or self.large else self._residual(y, half, half // 2)
            parts.append(y)
        return self._silu(self.g.concat(*parts), wide)

    def _c3k(self, x: Tensor, channels: int) -> Tensor:
        half = channels // 2
        y = self._silu(x, half)
        for _ in range(2):
            y = self._residual(y, half, half)
        return self._silu(self.g.concat(y, self._silu(x, half)), channels)

    def _residual(self, x: Tensor, channels: int, middle: int) -> Tensor:
        return self.g.add(self._silu(self._silu(x, middle, 3), channels, 3), x)

    def _pooled(self, x: Tensor) -> Tensor:
        parts = [self._silu(x, x.channels // 2)]
        for _ in range(3):
            parts.append(self.g.max_pool(parts[-1], 5, 1, 2))
        return self._silu(self.g.concat(*parts), x.channels)

    def _attention(self, x: Tensor) -> Tensor:
        """Position-sensitive attention over half of the channels; heads of 64, keys half as wide."""
        g, half = self.g, x.channels // 2
        kept, y = g.split(self._silu(x, 2 * half))
        for _ in range(max(1, round(2 * self.depth))):
            g.conv(y, 2 * half, act=None)
            y = g.add(g.conv(g.depthwise(y, 3, act=None), half, act=None), y)
            y = g.add(g.conv(self._silu(y, 2 * half), half, act=None), y)
        return self._silu(g.concat(kept, y), x.channels)

    def _detect(self, x: Tensor, finest: int) -> tuple[Tensor, Tensor]:
        g = self.g
        box, kind = max(16, finest // 4, _SIDES), max(finest, min(_CLASSES, 100))
        sides = g.conv(self._silu(self._silu(x, box, 3), box, 3), _SIDES, act=None)
        scores = x
        for _ in range(2):
            scores = self._silu(g.depthwise(scores, 3, act="Silu"), kind)
        return sides, g.conv(scores, _CLASSES, act=None)
