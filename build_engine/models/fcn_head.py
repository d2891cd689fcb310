"""The FCN head: 1x1 score layers, bilinear deconvolutions, crops and skip sums.

Source: Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation" (CVPR 2015), section 4,
with the layer names of MatConvNet's pascal-fcn8s-tvg-dag and pascal-fcn16s-dag.
A deconvolution of factor s has a 2s x 2s kernel and no padding, so its output is s rows and columns too large; a
symmetric crop of s/2 brings it back, which is what half-pixel bilinear upsampling needs.
"""

from __future__ import annotations

from typing import NamedTuple

import keras
import numpy as np
from keras import layers


class SkipLayerNames(NamedTuple):
    """Names of the layers from the deepest score to the full-size output, for one head stride."""

    score_fr: str = "score_fr"
    score_context: str = "score_context"
    score2: str = "score2"
    score_pool4: str = "score_pool4"
    score4: str = "score4"
    score_pool3: str = "score_pool3"
    upsample: str = "upsample"


def fcn_head(
    stride8: keras.KerasTensor,
    stride16: keras.KerasTensor,
    stride32: keras.KerasTensor,
    *,
    stride: int,
    classes: int,
    context: keras.KerasTensor | None = None,
) -> keras.KerasTensor:
    """Score the three features, sum them down to `stride` and upsample to the input's size.

    stride8, stride16, stride32: (N, H/8, W/8, a), (N, H/16, W/16, b), (N, H/32, W/32, c) float32.
    stride: 8 (FCN-8s), 16 (FCN-16s) or 32 (FCN-32s).
    context: (N, 1, 1, d) float32, one vector per picture; its scores are added to every pixel of the deepest scores.
    Returns (N, H, W, classes) float32 class scores (no softmax).
    """
    names = SkipLayerNames(upsample="upsample_new" if stride == 16 else "upsample")
    x = _score(stride32, classes, names.score_fr)
    if context is not None:
        # In this order: Keras makes an addition of (N, 1, 1, C) from the right a bias, and tf2onnx 1.17 then writes a
        # convolution with two.
        x = layers.Add(name="sum_context")([_score(context, classes, names.score_context), x])
    if stride <= 16:
        x = _deconv_and_crop(x, classes, 2, names.score2)
        x = layers.Add(name="sum_pool4")([x, _score(stride16, classes, names.score_pool4)])
    if stride <= 8:
        x = _deconv_and_crop(x, classes, 2, names.score4)
        x = layers.Add(name="sum_pool3")([x, _score(stride8, classes, names.score_pool3)])
    return _deconv_and_crop(x, classes, stride, names.upsample)


def bilinear_kernel(factor: int) -> np.ndarray:
    """One-dimensional bilinear deconvolution kernel, (2·factor,) float32; its polyphase components sum to 1."""
    offsets = np.arange(2 * factor) - (factor - 0.5)
    return (1.0 - np.abs(offsets) / factor).astype(np.float32)


def bilinear_diagonal(shape: tuple[int, ...]) -> np.ndarray:
    """Deconvolution kernel (h, w, out, in) float32 that upsamples each class by itself; h and w are even."""
    kernel = np.zeros(shape, np.float32)
    channels = np.arange(min(shape[2:]))
    taps = np.outer(bilinear_kernel(shape[0] // 2), bilinear_kernel(shape[1] // 2))
    kernel[:, :, channels, channels] = taps[:, :, None]
    return kernel


@keras.saving.register_keras_serializable(package="fcnedge")
class BilinearDiagonal(keras.initializers.Initializer):
    """Initialise a Conv2DTranspose kernel (h, w, out, in) to per-class bilinear upsampling: diagonal in (out, in)."""

    def __call__(self, shape, dtype=None, **_):
        return keras.ops.convert_to_tensor(bilinear_diagonal(shape), dtype=dtype or "float32")


def _score(x: keras.KerasTensor, classes: int, name: str) -> keras.KerasTensor:
    return layers.Conv2D(classes, 1, name=name, kernel_initializer=keras.initializers.RandomNormal(stddev=0.01))(x)


def _deconv_and_crop(x: keras.KerasTensor, classes: int, factor: int, name: str) -> keras.KerasTensor:
    x = layers.Conv2DTranspose(
        classes,
        2 * factor,
        strides=factor,
        padding="valid",
        use_bias=False,
        kernel_initializer=BilinearDiagonal(),
        name=name,
    )(x)
    return layers.Cropping2D(factor // 2, name=f"{name}_crop")(x)
