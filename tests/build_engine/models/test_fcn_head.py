"""The head's bilinear deconvolutions against SciPy's linear interpolation, and its skip sums."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from fcnedge.build_engine.models.fcn_head import BilinearDiagonal, bilinear_diagonal, bilinear_kernel, fcn_head

CLASSES = 3
FACTORS = [2, 8, 16, 32]


@pytest.fixture(autouse=True)
def clear_session():
    yield
    keras.utils.clear_session()


@pytest.mark.parametrize("factor", [1, 2, 3, 5, 8, 16, 32])
def test_kernel_is_the_hat_function_at_pixel_centres(factor):
    # Caffe's bilinear filler: 1 - |x / f - c| with f = ceil(k / 2), c = (2f - 1 - f % 2) / (2f), for k = 2·factor
    # and an even k this centre is (k - 1) / 2.
    size = 2 * factor
    caffe = [1 - abs(x - (size - 1) / 2) / factor for x in range(size)]
    np.testing.assert_allclose(bilinear_kernel(factor), caffe, rtol=2**-23)
    assert bilinear_kernel(factor).dtype == np.float32


@pytest.mark.parametrize("factor", FACTORS)
def test_every_output_pixel_receives_weights_that_sum_to_one(factor):
    kernel = bilinear_kernel(factor).astype(np.float64)
    np.testing.assert_allclose(kernel[:factor] + kernel[factor:], 1, rtol=2**-22)


def test_initial_kernel_upsamples_each_class_by_itself():
    kernel = np.asarray(BilinearDiagonal()((4, 4, CLASSES, CLASSES)))
    taps = np.outer([0.25, 0.75, 0.75, 0.25], [0.25, 0.75, 0.75, 0.25])
    for a, b in np.ndindex(CLASSES, CLASSES):
        np.testing.assert_array_equal(kernel[:, :, a, b], taps if a == b else 0 * taps)


def test_rectangular_kernel_and_unequal_channels_are_bilinear_where_they_can_be():
    kernel = bilinear_diagonal((4, 16, 2, 3))
    np.testing.assert_array_equal(kernel[:, :, 1, 1], np.outer(bilinear_kernel(2), bilinear_kernel(8)))
    assert not kernel[:, :, :, 2].any()


def test_initialiser_survives_saving():
    config = keras.saving.serialize_keras_object(BilinearDiagonal())
    assert isinstance(keras.saving.deserialize_keras_object(config), BilinearDiagonal)


def untrained_head(stride: int, sides: tuple[int, int]) -> keras.Model:
    """FCN head over one-channel features of a (32·h, 32·w) input."""
    features = [
        keras.Input((sides[0] * 32 // at, sides[1] * 32 // at, 1), name=f"stride{at}", batch_size=1)
        for at in (8, 16, 32)
    ]
    return keras.Model(features, fcn_head(*features, stride=stride, classes=CLASSES))


def set_scores(model: keras.Model, gains: dict[str, float]) -> None:
    """Class c of a score layer becomes gain · feature + c."""
    for name, gain in gains.items():
        model.get_layer(name).set_weights(
            [np.full((1, 1, 1, CLASSES), gain, np.float32), np.arange(CLASSES, dtype=np.float32)]
        )


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_a_constant_stays_that_constant_in_the_interior(stride):
    model = untrained_head(stride, (3, 4))
    gains = {"score_fr": 1.0, "score_pool4": 2.0, "score_pool3": 4.0}
    used = dict(list(gains.items())[: {32: 1, 16: 2, 8: 3}[stride]])
    set_scores(model, used)
    inputs = [np.ones(tensor.shape, np.float32) for tensor in model.inputs]
    scores = np.asarray(model(inputs))[0]
    interior = scores[32:-32, 32:-32]  # the border, where zeros come in, is half a grid cell of each deconvolution
    expected = sum(used.values()) + len(used) * np.arange(CLASSES)
    np.testing.assert_array_equal(interior, np.broadcast_to(expected.astype(np.float32), interior.shape))
    assert (scores[0, 0] < scores[48, 48]).all()


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_head_is_half_pixel_linear_interpolation_of_the_skip_sums(stride):
    model = untrained_head(stride, (3, 4))
    gains = {"score_fr": 1.0, "score_pool4": -0.5, "score_pool3": 0.25}
    set_scores(model, dict(list(gains.items())[: {32: 1, 16: 2, 8: 3}[stride]]))
    rng = np.random.default_rng(0)
    features = {at: rng.standard_normal((3 * 32 // at, 4 * 32 // at)) for at in (8, 16, 32)}
    inputs = [features[at][None, ..., None].astype(np.float32) for at in (8, 16, 32)]
    scores = np.asarray(model(inputs))[0]
    expected = features[32]
    at = 32
    for finer, gain in ((16, -0.5), (8, 0.25)):
        if stride <= finer:
            expected = upsampled(expected, 2) + gain * features[finer]
            at = finer
    classes = {32: 1, 16: 2, 8: 3}[stride] * np.arange(CLASSES)
    expected = upsampled(expected, at)[..., None] + classes
    inside = slice(32, -32)
    np.testing.assert_allclose(scores[inside, inside], expected[inside, inside], atol=1e-5)


def upsampled(grid: np.ndarray, factor: int) -> np.ndarray:
    """Linear interpolation at pixel centres; outside the outermost grid points it extrapolates, so look inside only."""
    axes = [factor * (np.arange(side) + 0.5) - 0.5 for side in grid.shape]
    rows, columns = (np.arange(factor * side) for side in grid.shape)
    interpolator = RegularGridInterpolator(axes, grid, bounds_error=False, fill_value=None)
    return interpolator(np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1))


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_shallower_features_than_the_stride_are_not_read(stride):
    model = untrained_head(stride, (2, 2))
    names = {layer.name for layer in model.layers}
    assert ("score_pool4" in names, "score_pool3" in names) == (stride <= 16, stride <= 8)


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_context_adds_its_scores_to_every_pixel(stride):
    """Each picture's own, away from the border, where deconvolutions fall off."""
    features = [keras.Input((160 // at, 192 // at, 1)) for at in (8, 16, 32)]
    context = keras.Input((1, 1, 4))
    inputs = [*features, context]
    model = keras.Model(inputs, fcn_head(*features, stride=stride, classes=CLASSES, context=context))
    random = np.random.default_rng(0)
    kernel, bias = random.normal(size=(4, CLASSES)), random.normal(size=CLASSES)
    model.get_layer("score_context").set_weights([kernel[None, None], bias])
    pictures = [random.normal(size=(2, *tensor.shape[1:])).astype(np.float32) for tensor in inputs]
    with_context = model.predict_on_batch(pictures)
    model.get_layer("score_context").set_weights([0 * kernel[None, None], 0 * bias])
    added = (with_context - model.predict_on_batch(pictures))[:, 64:-64, 64:-64]
    expected = np.broadcast_to((pictures[-1] @ kernel + bias), added.shape)
    np.testing.assert_allclose(added, expected, rtol=0, atol=1e-4)
