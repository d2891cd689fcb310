"""VGG16: parameters counted by hand, features at the right strides."""

from __future__ import annotations

from itertools import pairwise

import keras
import numpy as np
import pytest

from fcnedge.build_engine.models.vgg16 import vgg16_trunk

CHANNELS = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
# Configuration D of Simonyan & Zisserman without its classifier.
TRUNK_PARAMETERS = 14_714_688


@pytest.fixture(autouse=True)
def clear_session():
    yield
    keras.utils.clear_session()


def head_parameters(classes: int, fc_channels: int) -> int:
    scores = (fc_channels + 1) * classes + (512 + 1) * classes + (256 + 1) * classes
    deconvolutions = (2 * 4**2 + 16**2) * classes**2
    return (49 * 512 + 1) * fc_channels + (fc_channels + 1) * fc_channels + scores + deconvolutions


def test_fcn8s_has_134_million_parameters():
    assert sum((9 * a + 1) * b for a, b in pairwise(CHANNELS)) == TRUNK_PARAMETERS
    published, fc8 = 138_357_544, (4096 + 1) * 1000
    scores_and_deconvolutions = (4097 + 513 + 257) * 21 + (2 * 4**2 + 16**2) * 21**2
    by_hand = TRUNK_PARAMETERS + head_parameters(classes=21, fc_channels=4096)
    assert by_hand == published - fc8 + scores_and_deconvolutions == 134_489_759


@pytest.mark.parametrize(("classes", "fc_channels"), [(21, 16), (5, 8)])
def test_parameters_are_those_counted_by_hand(classes, fc_channels):
    from fcnedge.build_engine.models import Architecture, build_model

    model = build_model(Architecture(8, "vgg16"), classes=classes, fc_channels=fc_channels)
    assert model.count_params() == TRUNK_PARAMETERS + head_parameters(classes, fc_channels)


def test_default_width_is_that_of_the_paper():
    from fcnedge.build_engine.models.architecture import DEFAULT_FC_CHANNELS

    assert DEFAULT_FC_CHANNELS == 4096


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (224, 320)])
def test_features_have_strides_8_16_and_32(size):
    features = vgg16_trunk(keras.Input((*size, 3)), fc_channels=4)
    shapes = [feature.shape for feature in features]
    assert shapes == [
        (None, size[0] // stride, size[1] // stride, channels) for stride, channels in ((8, 256), (16, 512), (32, 4))
    ]


def test_every_convolution_is_rectified_and_padded_to_keep_its_size():
    image = keras.Input((32, 64, 3))
    model = keras.Model(image, vgg16_trunk(image, fc_channels=4))
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.kernel.shape[0] for layer in convolutions] == [3] * 13 + [7, 1]
    for layer in convolutions:
        assert layer.activation is keras.activations.relu
        assert layer.output.shape[1:3] == layer.input.shape[1:3]


def test_dropout_is_off_when_the_network_runs():
    image = keras.Input((32, 32, 3))
    model = keras.Model(image, vgg16_trunk(image, fc_channels=4))
    pixels = np.random.default_rng(0).standard_normal((1, 32, 32, 3)).astype(np.float32)
    first, second = (np.asarray(model(pixels, training=False)[2]) for _ in range(2))
    np.testing.assert_array_equal(first, second)
