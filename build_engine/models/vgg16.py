"""VGG16 trunk cut loose from its classifier: fc6 and fc7 become convolutions.

Source: Simonyan & Zisserman (arXiv:1409.1556), configuration D; Long et al. (CVPR 2015) for the convolutionalised
fc6 and fc7. Layer names are those of MatConvNet's pascal-fcn8s-tvg-dag. "Same" padding everywhere: the pad of 100 in
the Caffe original exists for alignment only and costs 1.68x the multiply-adds at 500 x 500.
"""

from __future__ import annotations

import keras
from keras import layers

_CONVOLUTIONS_PER_STAGE = (2, 2, 3, 3, 3)
_CHANNELS_PER_STAGE = (64, 128, 256, 512, 512)


def vgg16_trunk(
    image: keras.KerasTensor, *, fc_channels: int
) -> tuple[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor]:
    """Stack VGG16 on `image` and return pool3, pool4 and fc7.

    image: (N, H, W, 3) float32, mean-subtracted; H and W multiples of 32.
    Returns (N, H/8, W/8, 256), (N, H/16, W/16, 512), (N, H/32, W/32, fc_channels).
    """
    x = image
    pools = []
    for stage, (repeats, channels) in enumerate(zip(_CONVOLUTIONS_PER_STAGE, _CHANNELS_PER_STAGE, strict=True), 1):
        for index in range(1, repeats + 1):
            x = _conv_relu(x, channels, 3, f"conv{stage}_{index}")
        x = layers.MaxPooling2D(2, name=f"pool{stage}")(x)
        pools.append(x)
    x = layers.Dropout(0.5, name="drop6")(_conv_relu(x, fc_channels, 7, "fc6"))
    x = layers.Dropout(0.5, name="drop7")(_conv_relu(x, fc_channels, 1, "fc7"))
    return pools[2], pools[3], x


def _conv_relu(x: keras.KerasTensor, channels: int, kernel: int, name: str) -> keras.KerasTensor:
    return layers.Conv2D(
        channels, kernel, padding="same", activation="relu", kernel_initializer="he_uniform", name=name
    )(x)
