"""Build a Keras FCN from an architecture: a trunk and the FCN head on its features."""

from __future__ import annotations

import keras

from .efficientnet_lite import lite_context, lite_trunk
from .fcn_head import fcn_head
from .names import Architecture, check_size
from .vgg16 import vgg16_trunk

DEFAULT_FC_CHANNELS = 4096


def build_model(
    architecture: Architecture,
    *,
    classes: int,
    size: tuple[int, int] | tuple[None, None] = (None, None),
    fc_channels: int = DEFAULT_FC_CHANNELS,
) -> keras.Model:
    """Build an untrained Keras FCN: (N, H, W, 3) float32 normalised pixels → (N, H, W, classes) float32 scores.

    size: (height, width), multiples of 32, or (None, None) for any such size; fc_channels: width of VGG16's fc6 and
    fc7. Raises UserError for a size that is not a multiple of 32.
    """
    if size[0] is not None and size[1] is not None:
        check_size((size[0], size[1]))
    image = keras.Input((*size, 3), name="image")
    if architecture.trunk == "vgg16":
        features, context = vgg16_trunk(image, fc_channels=fc_channels), None
    else:
        features = lite_trunk(image, architecture.trunk)
        context = lite_context(features[-1])
    scores = fcn_head(*features, stride=architecture.stride, classes=classes, context=context)
    return keras.Model(image, scores, name=architecture.name.replace("-", "_"))
