"""The networks that published measurements were taken of, from their papers: shapes and no weights.

Multiply-adds are compared with published ones in the tests. Input sizes are (height, width).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .graph_builder import GraphBuilder, Tensor
from .yolo11 import yolo11

Builder = Callable[[int, int], Any]
_VGG = {"11": (1, 1, 2, 2, 2), "13": (2, 2, 2, 2, 2), "16": (2, 2, 3, 3, 3), "19": (2, 2, 4, 4, 4)}
_RESNET = {
    **{"18": ((2, 2, 2, 2), False), "34": ((3, 4, 6, 3), False)},
    **{"50": ((3, 4, 6, 3), True), "101": ((3, 4, 23, 3), True), "152": ((3, 8, 36, 3), True)},
}
_DENSENET = {
    "121": (32, 64, (6, 12, 24, 16)),
    "161": (48, 96, (6, 12, 36, 24)),
    "169": (32, 64, (6, 12, 32, 32)),
    "201": (32, 64, (6, 12, 48, 32)),
}
_INVERTED = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 32, 3, 2, 3),
    (6, 64, 4, 2, 3),
    (6, 96, 3, 1, 3),
    (6, 160, 3, 2, 3),
    (6, 320, 1, 1, 3),
)
"""MobileNetV2, table 2 of arXiv:1801.04381: expansion, channels, repeats, stride, kernel."""
_MNAS = ((3, 24, 3, 2, 3), (3, 40, 3, 2, 5), (6, 80, 3, 2, 5), (6, 96, 2, 1, 3), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3))
"""MnasNet-B1, figure 7 of arXiv:1807.11626, after its separable convolution to 16 channels."""


def alexnet(height: int, width: int) -> Any:
    """The one-column variant, arXiv:1404.5997."""
    g = GraphBuilder(height, width)
    x = g.max_pool(g.conv(g.picture, 64, 11, 4, pad=2), 3, 2)
    x = g.max_pool(g.conv(x, 192, 5), 3, 2)
    for channels in (384, 256, 256):
        x = g.conv(x, channels, 3)
    return _classifier(g, g.max_pool(x, 3, 2))


def vgg(depth: str) -> Builder:
    """arXiv:1409.1556, configurations A, B, D and E."""

    def build(height: int, width: int) -> Any:
        g = GraphBuilder(height, width)
        x = g.picture
        for repeats, channels in zip(_VGG[depth], (64, 128, 256, 512, 512), strict=True):
            for _ in range(repeats):
                x = g.conv(x, channels, 3)
            x = g.max_pool(x, 2, 2)
        return _classifier(g, x)

    return build


def resnet(depth: str) -> Builder:
    """arXiv:1512.03385, with the stride in the 3x3 convolution (version 1.5), as torchvision and MLPerf have it."""

    def build(height: int, width: int) -> Any:
        g = GraphBuilder(height, width)
        return g.model(g.dense(g.mean(_resnet_trunk(g, depth)), 1000))

    return build


def fcn_resnet18(height: int, width: int) -> Any:
    """FCN-ResNet18 of jetson-inference: stride 32, a 3x3 and a 1x1 convolution to 21 scores, no upsampling."""
    g = GraphBuilder(height, width)
    x = _resnet_trunk(g, "18")
    return g.model(g.conv(g.conv(x, x.channels // 4, 3), 21, act=None))


def resnet_slim(depth: str) -> Builder:
    """ResNet v1 as TensorFlow-Slim has it: a stage's stride in its last block, shortcuts of every other pixel."""

    def build(height: int, width: int) -> Any:
        g = GraphBuilder(height, width)
        x = g.max_pool(g.conv(g.picture, 64, 7, 2), 3, 2, 1)
        for stage, repeats in enumerate(_RESNET[depth][0]):
            channels = 64 * 2**stage
            for block in range(repeats):
                stride = 2 if block == repeats - 1 and stage < 3 else 1
                x = _bottleneck(g, x, channels, stride)
        return g.model(g.dense(g.mean(x), 1000))

    return build


def densenet(depth: str) -> Builder:
    """arXiv:1608.06993; its batch normalisations come before the convolutions and stay."""

    def build(height: int, width: int) -> Any:
        growth, first, stages = _DENSENET[depth]
        g = GraphBuilder(height, width)
        x = g.max_pool(g.conv(g.picture, first, 7, 2), 3, 2, 1)
        for stage, repeats in enumerate(stages):
            for _ in range(repeats):
                x = g.concat(x, g.conv(g.conv(g.act(g.batch_norm(x)), 4 * growth), growth, 3, act=None))
            if stage < len(stages) - 1:
                x = g.average_pool(g.conv(g.act(g.batch_norm(x)), x.channels // 2, act=None), 2, 2)
        return g.model(g.dense(g.mean(g.act(g.batch_norm(x))), 1000))

    return build


def squeezenet(version: str) -> Builder:
    """arXiv:1602.07360, version 1.0 or 1.1."""

    def build(height: int, width: int) -> Any:
        g = GraphBuilder(height, width)
        first, pools = ((96, 7), (3, 7)) if version == "1_0" else ((64, 3), (2, 4))
        x = g.max_pool(g.conv(g.picture, *first, 2, pad=0), 3, 2, ceil=True)
        for place, squeezed in enumerate((16, 16, 32, 32, 48, 48, 64, 64)):
            if place in pools:
                x = g.max_pool(x, 3, 2, ceil=True)
            narrow = g.conv(x, squeezed)
            x = g.concat(g.conv(narrow, 4 * squeezed), g.conv(narrow, 4 * squeezed, 3))
        return g.model(g.mean(g.conv(x, 1000)))

    return build


def mobilenet_v1(height: int, width: int) -> Any:
    """arXiv:1704.04861, table 1."""
    g = GraphBuilder(height, width)
    x = g.conv(g.picture, 32, 3, 2)
    for channels, stride in (
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        *[(512, 1)] * 5,
        (1024, 2),
        (1024, 1),
    ):
        x = g.conv(g.depthwise(x, 3, stride), channels)
    return g.model(g.dense(g.mean(x), 1001))


def mobilenet_v2(height: int, width: int) -> Any:
    """arXiv:1801.04381."""
    g = GraphBuilder(height, width)
    x = _inverted_residuals(g, g.conv(g.picture, 32, 3, 2), _INVERTED)
    return g.model(g.dense(g.mean(g.conv(x, 1280)), 1000))


def mnasnet(height: int, width: int) -> Any:
    """MnasNet-B1, arXiv:1807.11626."""
    g = GraphBuilder(height, width)
    x = g.conv(g.depthwise(g.conv(g.picture, 32, 3, 2)), 16, act=None)
    return g.model(g.dense(g.mean(g.conv(_inverted_residuals(g, x, _MNAS), 1280)), 1000))


def _resnet_trunk(g: GraphBuilder, depth: str) -> Tensor:
    stages, wide = _RESNET[depth]
    x = g.max_pool(g.conv(g.picture, 64, 7, 2), 3, 2, 1)
    for stage, repeats in enumerate(stages):
        for block in range(repeats):
            stride = 2 if stage > 0 and block == 0 else 1
            x = (_bottleneck if wide else _basic)(g, x, 64 * 2**stage, stride)
    return x


def _basic(g: GraphBuilder, x: Tensor, channels: int, stride: int) -> Tensor:
    y = g.conv(g.conv(x, channels, 3, stride), channels, 3, act=None)
    shortcut = x if x.shape == y.shape else g.conv(x, channels, 1, stride, act=None)
    return g.add(y, shortcut, "Relu")


def _bottleneck(g: GraphBuilder, x: Tensor, channels: int, stride: int) -> Tensor:
    y = g.conv(g.conv(g.conv(x, channels), channels, 3, stride), 4 * channels, act=None)
    if x.channels != y.channels:
        shortcut = g.conv(x, 4 * channels, 1, stride, act=None)
    else:
        shortcut = x if stride == 1 else g.max_pool(x, 1, stride)
    return g.add(y, shortcut, "Relu")


def _inverted_residuals(g: GraphBuilder, x: Tensor, table: tuple[tuple[int, int, int, int, int], ...]) -> Tensor:
    for expansion, channels, repeats, stride, kernel in table:
        for block in range(repeats):
            wide = x if expansion == 1 else g.conv(x, expansion * x.channels)
            y = g.conv(g.depthwise(wide, kernel, stride if block == 0 else 1), channels, act=None)
            x = g.add(y, x) if x.shape == y.shape else y
    return x


def _classifier(g: GraphBuilder, x: Tensor) -> Any:
    return g.model(g.dense(g.dense(g.dense(x, 4096, "Relu"), 4096, "Relu"), 1000))


NETWORKS: dict[str, Builder] = {
    "alexnet": alexnet,
    "fcn_resnet18": fcn_resnet18,
    "mnasnet1_0": mnasnet,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    **{f"vgg{depth}": vgg(depth) for depth in _VGG},
    **{f"resnet{depth}": resnet(depth) for depth in _RESNET},
    **{f"resnet_slim{depth}": resnet_slim(depth) for depth in ("50", "101", "152")},
    **{f"densenet{depth}": densenet(depth) for depth in _DENSENET},
    **{f"squeezenet{version}": squeezenet(version) for version in ("1_0", "1_1")},
    **{f"yolo11{scale}": yolo11(scale) for scale in "nsmlx"},
}
