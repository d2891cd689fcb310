"""Where a Keras model's last upsampling is."""

from __future__ import annotations

import pytest

from fcnedge.build_engine.keras_graph import last_upsampling_layer

keras = pytest.importorskip("keras")
layers = keras.layers


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        ([layers.Conv2DTranspose(2, 4, 2, name="up")], "up"),
        ([layers.UpSampling2D(2, interpolation="bilinear", name="up"), layers.Softmax()], "up"),
        ([layers.Resizing(16, 16, name="up"), layers.Cropping2D(2), layers.Activation("softmax")], "up"),
        ([layers.UpSampling2D(2, interpolation="nearest")], None),
        ([layers.Resizing(16, 16, interpolation="bicubic")], None),
        ([layers.Conv2DTranspose(2, 4, 2), layers.Conv2D(2, 1)], None),
        ([layers.Conv2D(2, 1)], None),
    ],
)
def test_last_upsampling_is_the_one_whose_output_decides(tail, expected):
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 1, name="score"), *tail])
    found = last_upsampling_layer(model)
    assert (found and found.name) == expected
