"""EfficientNet-Lite trunks: MBConv blocks without squeeze-excite, ReLU6 everywhere, made for INT8.

Source of the shape table and of how it is scaled: EfficientNet (Tan & Le 2019, arXiv:1905.11946) and its Lite
variants, which remove squeeze-excite, have ReLU6 in place of swish, and scale neither stem and head nor the depth of
the first and last stage:
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
"""

from __future__ import annotations

import math
from typing import NamedTuple

import keras
from keras import layers

BATCH_NORM_EPSILON = 1e-3


class Stage(NamedTuple):
    """One row of the EfficientNet table: `repeats` MBConv blocks; only the first one strides."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    filters: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
SCALES = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}
"""Width (channels) and depth (blocks per stage) of each trunk against the table."""
CHANNEL_STEP = 8
STRIDE_8_STAGE, STRIDE_16_STAGE, STRIDE_32_STAGE = 2, 4, 6
CONTEXT_CHANNELS = 1280
CONTEXT_DROPOUT = 0.2


def lite_stages(trunk: str) -> tuple[Stage, ...]:
    """The table of `trunk`, a name of `SCALES`."""
    width, depth = SCALES[trunk]
    last = len(STAGES) - 1
    return tuple(
        stage._replace(
            repeats=stage.repeats if number in (0, last) else math.ceil(depth * stage.repeats),
            filters=_rounded(width * stage.filters),
        )
        for number, stage in enumerate(STAGES)
    )


def lite_trunk(
    image: keras.KerasTensor, trunk: str = "lite0"
) -> tuple[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor]:
    """Stack the EfficientNet-Lite named `trunk` on `image` and return its stride-8, -16 and -32 features.

    image: (N, H, W, 3) float32, normalised; H and W multiples of 32.
    Returns (N, H/8, W/8, a), (N, H/16, W/16, b), (N, H/32, W/32, c); of lite0 a, b and c are 40, 112 and 320.
    """
    x = layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False, name="stem_conv")(image)
    x = _batch_norm(x, "stem_bn")
    x = layers.ReLU(6.0, name="stem_relu")(x)
    features = []
    block = 0
    for stage in lite_stages(trunk):
        for repeat in range(stage.repeats):
            stride = stage.stride if repeat == 0 else 1
            x = _mbconv(x, stage, stride, f"block{block}")
            block += 1
        features.append(x)
    return features[STRIDE_8_STAGE], features[STRIDE_16_STAGE], features[STRIDE_32_STAGE]


def lite_context(stride32: keras.KerasTensor) -> keras.KerasTensor:
    """What the whole picture shows: the classifier's last features, averaged over the picture.

    stride32: (N, H/32, W/32, c) float32. Returns (N, 1, 1, 1280) float32. The convolution is the one that the trunk
    classifies ImageNet with, so that its weights come with the trunk's.
    """
    x = layers.Conv2D(CONTEXT_CHANNELS, 1, use_bias=False, name="conv7")(stride32)
    x = _batch_norm(x, "conv7_bn")
    x = layers.ReLU(6.0, name="conv7_relu")(x)
    x = layers.GlobalAveragePooling2D(keepdims=True, name="context")(x)
    return layers.Dropout(CONTEXT_DROPOUT, name="context_dropout")(x)


def _rounded(channels: float) -> int:
    """To the nearest multiple of eight, but never more than a tenth down."""
    nearest = max(CHANNEL_STEP, int(channels + CHANNEL_STEP / 2) // CHANNEL_STEP * CHANNEL_STEP)
    return nearest + CHANNEL_STEP if nearest < 0.9 * channels else nearest


def _mbconv(x: keras.KerasTensor, stage: Stage, stride: int, name: str) -> keras.KerasTensor:
    channels = x.shape[-1]
    y = x
    if stage.expand != 1:
        y = layers.Conv2D(channels * stage.expand, 1, use_bias=False, name=f"{name}_expand")(y)
        y = _batch_norm(y, f"{name}_expand_bn")
        y = layers.ReLU(6.0, name=f"{name}_expand_relu")(y)
    y = layers.DepthwiseConv2D(stage.kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_depthwise")(
        y
    )
    y = _batch_norm(y, f"{name}_depthwise_bn")
    y = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(y)
    y = layers.Conv2D(stage.filters, 1, use_bias=False, name=f"{name}_project")(y)
    y = _batch_norm(y, f"{name}_project_bn")
    if stride == 1 and channels == stage.filters:
        y = layers.Add(name=f"{name}_add")([x, y])
    return y


def _batch_norm(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.BatchNormalization(epsilon=BATCH_NORM_EPSILON, momentum=0.99, name=name)(x)
