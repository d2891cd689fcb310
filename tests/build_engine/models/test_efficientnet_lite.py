"""EfficientNet-Lite: parameters counted by hand from the paper's table, features at the right strides, residuals."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from fcnedge.build_engine.models.efficientnet_lite import lite_context, lite_stages, lite_trunk

# MBConv rows of EfficientNet-B0 (Tan & Le 2019, table 1): repeats, kernel, stride, expansion, output channels.
TABLE = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]
NORM = 4  # gamma, beta, moving mean, moving variance


def parameters_by_hand() -> int:
    total, channels = 27 * 32 + NORM * 32, 32
    for repeats, kernel, _, expansion, outputs in TABLE:
        for _ in range(repeats):
            wide = channels * expansion
            if expansion > 1:
                total += channels * wide + NORM * wide
            total += kernel**2 * wide + NORM * wide
            total += wide * outputs + NORM * outputs
            channels = outputs
    return total


@pytest.fixture(scope="module")
def trunk() -> keras.Model:
    keras.utils.clear_session()
    image = keras.Input((64, 96, 3))
    return keras.Model(image, lite_trunk(image))


def test_trunk_has_3_million_parameters(trunk):
    assert trunk.count_params() == parameters_by_hand() == 2_998_304


def test_parameters_are_those_of_the_published_classifier_without_its_head(trunk):
    # EfficientNet-Lite0 has 4,652,008 trainable ones, among them a 1x1 convolution to 1280, its norm and 1000 classes.
    classifier = 320 * 1280 + 2 * 1280 + (1280 + 1) * 1000
    trainable = sum(int(np.prod(variable.shape)) for variable in trunk.trainable_variables)
    assert trainable + classifier == 4_652_008


@pytest.fixture(scope="module")
def context() -> keras.Model:
    keras.utils.clear_session()
    stride32 = keras.Input((None, None, 320))
    return keras.Model(stride32, lite_context(stride32))


def test_trunk_and_context_are_the_published_classifier_without_its_classes(trunk, context):
    assert context.count_params() == 320 * 1280 + NORM * 1280
    trainable = sum(
        int(np.prod(variable.shape)) for model in (trunk, context) for variable in model.trainable_variables
    )
    assert trainable + (1280 + 1) * 1000 == 4_652_008


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (12, 12)])
def test_context_is_one_vector_per_picture_of_any_size(context, size):
    features = np.zeros((2, *size, 320), np.float32)
    assert context.predict_on_batch(features).shape == (2, 1, 1, 1280)


def test_context_is_the_average_over_the_picture_and_dropout_is_still(context):
    """Against float64 NumPy: convolution, norm, ReLU6, mean; so nothing is dropped when it is not trained."""
    random = np.random.default_rng(0)
    kernel = random.normal(0, 0.5, (320, 1280))
    gamma, beta, mean, variance = (random.uniform(0.5, 2, 1280) for _ in range(4))
    context.get_layer("conv7").set_weights([kernel[None, None]])
    context.get_layer("conv7_bn").set_weights([gamma, beta, mean, variance])
    features = random.normal(size=(2, 3, 4, 320)).astype(np.float32)
    wide = (features.astype(np.float64) @ kernel - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    assert (wide < 0).any()
    assert (wide > 6).any()
    expected = wide.clip(0, 6).mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(context.predict_on_batch(features), expected, rtol=0, atol=1e-4)


def test_a_fifth_of_the_context_is_dropped_in_training(context):
    context.get_layer("conv7_bn").trainable = False  # so that the batch's own statistics change nothing
    features = np.random.default_rng(0).normal(size=(8, 2, 2, 320)).astype(np.float32)
    still = keras.ops.convert_to_numpy(context(features, training=False))
    trained = keras.ops.convert_to_numpy(context(features, training=True))
    kept = trained != 0
    assert (still > 0).mean() > 0.9
    assert kept[still > 0].mean() == pytest.approx(0.8, abs=0.03)
    np.testing.assert_allclose(trained[kept] * 0.8, still[kept], rtol=1e-4)


def test_features_have_strides_8_16_and_32(trunk):
    assert [tensor.shape[1:] for tensor in trunk.outputs] == [(8, 12, 40), (4, 6, 112), (2, 3, 320)]


def test_blocks_that_keep_size_and_channels_add_their_input(trunk):
    added = {layer.name for layer in trunk.layers if isinstance(layer, keras.layers.Add)}
    expected, block = set(), 0
    for repeats, *_ in TABLE:
        expected |= {f"block{block + i}_add" for i in range(1, repeats)}
        block += repeats
    assert added == expected
    assert len(added) == 9


def test_activations_stop_at_6_and_nothing_squeezes(trunk):
    kinds = {type(layer).__name__ for layer in trunk.layers}
    assert kinds == {"InputLayer", "Conv2D", "DepthwiseConv2D", "BatchNormalization", "ReLU", "Add"}
    assert {layer.max_value for layer in trunk.layers if isinstance(layer, keras.layers.ReLU)} == {6.0}


def test_projections_are_linear(trunk):
    rectified = {layer.input.name for layer in trunk.layers if isinstance(layer, keras.layers.ReLU)}
    assert len(rectified) == 32
    assert not rectified & {trunk.get_layer(f"block{block}_project_bn").output.name for block in range(16)}


# Wider and deeper ones


@pytest.mark.parametrize(
    ("trunk", "published"),
    # Trainable parameters of the published classifiers, as their checkpoints hold them.
    [("lite0", 4_652_008), ("lite1", 5_416_680), ("lite2", 6_092_072)],
)
def test_trunk_and_context_have_the_parameters_of_the_published_classifier(trunk, published):
    keras.utils.clear_session()
    image = keras.Input((32, 32, 3))
    features = lite_trunk(image, trunk)
    model = keras.Model(image, lite_context(features[-1]))
    trainable = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    assert trainable + (1280 + 1) * 1000 == published


def test_depth_grows_but_for_the_first_and_last_stage():
    assert [stage.repeats for stage in lite_stages("lite0")] == [1, 2, 2, 3, 3, 4, 1]
    assert [stage.repeats for stage in lite_stages("lite1")] == [1, 3, 3, 4, 4, 5, 1]
    assert [stage.repeats for stage in lite_stages("lite2")] == [1, 3, 3, 4, 4, 5, 1]


def test_channels_are_multiples_of_eight_near_their_share():
    for plain, wide in zip(lite_stages("lite0"), lite_stages("lite2"), strict=True):
        assert wide.filters % 8 == 0
        assert 0.9 * 1.1 * plain.filters <= wide.filters <= 1.1 * plain.filters + 8
