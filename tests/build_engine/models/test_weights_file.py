"""Weights files: what is written is what is read, and whatever else is refused with the name of what is wrong."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy

from fcnedge.build_engine.models import Architecture, build_model
from fcnedge.build_engine.models.fcn_head import BilinearDiagonal
from fcnedge.build_engine.models.weights_file import WeightsInfo, load_weights, read_info, save_weights
from fcnedge.runtime.errors import UserError

INFO = WeightsInfo("street", "fcn8s-lite0", ("background", "car", "Zürich"), (320, 512), "letterbox")


@pytest.fixture(autouse=True)
def clear_session():
    yield
    keras.utils.clear_session()


def small_model(classes: int = 3, *, seed: int = 0, width: int = 4) -> keras.Model:
    """A few layers of every kind that the architectures have, named alike each time."""
    image = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(width, 3, strides=2, use_bias=False, padding="same", name="stem")(image)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = keras.layers.Dropout(0.5, name="drop")(x)
    x = keras.layers.Conv2D(classes, 1, name="score")(x)
    x = keras.layers.Conv2DTranspose(
        classes, 4, strides=2, padding="same", use_bias=False, kernel_initializer=BilinearDiagonal(), name="upsample"
    )(x)
    model = keras.Model(image, x, name="small")
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if "upsample" not in variable.path:
            variable.assign(rng.uniform(0.1, 1, variable.shape).astype(np.float32))
    return model


def values(model: keras.Model) -> dict[str, np.ndarray]:
    return {variable.path: np.asarray(variable.value) for variable in model.weights}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_weights_survive_the_round_trip(dtype, tmp_path):
    saved, loaded = small_model(seed=1), small_model(seed=2)
    save_weights(saved, tmp_path / "w.safetensors", INFO, dtype)
    load_weights(loaded, tmp_path / "w.safetensors")
    expected = {path: array.astype(dtype).astype(np.float32) for path, array in values(saved).items()}
    for path, array in values(loaded).items():
        np.testing.assert_array_equal(array, expected[path], strict=True)
    assert {path.name for path in tmp_path.iterdir()} == {"w.safetensors"}


def test_float16_halves_the_file(tmp_path):
    model = small_model(width=256)
    for dtype in ("float16", "float32"):
        save_weights(model, tmp_path / dtype, INFO, dtype)
    assert (tmp_path / "float16").stat().st_size == pytest.approx((tmp_path / "float32").stat().st_size / 2, rel=0.1)


def test_vgg16_with_its_dropout_layers_can_be_saved_as_float16(tmp_path):
    model = build_model(Architecture(32, "vgg16"), classes=2, fc_channels=2)
    save_weights(model, tmp_path / "w.safetensors", INFO)
    stored = safetensors.numpy.load_file(tmp_path / "w.safetensors")
    assert set(stored) == {name for name in values(model) if not name.startswith("upsample")}
    assert not [name for name in stored if "seed" in name]


def upsampling(factor: int, classes: int = 2) -> keras.Model:
    image = keras.Input((4, 4, classes))
    layer = keras.layers.Conv2DTranspose(
        classes, 2 * factor, strides=factor, use_bias=False, kernel_initializer=BilinearDiagonal(), name="upsample"
    )
    return keras.Model(image, layer(image))


@pytest.mark.parametrize("as_values", [False, True], ids=["by name", "as float16 values"])
@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_bilinear_kernel_is_exact_again_after_float16(factor, as_values, tmp_path):
    saved, loaded, path = upsampling(factor), upsampling(factor), tmp_path / "w.safetensors"
    if as_values:
        arrays = {name: array.astype(np.float16) for name, array in values(saved).items()}
        safetensors.numpy.save_file(arrays, str(path))
    else:
        save_weights(saved, path, INFO, "float16")
        assert not safetensors.numpy.load_file(path)
    loaded.weights[0].assign(np.zeros(loaded.weights[0].shape, np.float32))
    load_weights(loaded, path)
    np.testing.assert_array_equal(np.asarray(loaded.weights[0]), np.asarray(saved.weights[0]))


@pytest.mark.parametrize("text", ["{", "3", "[3]", '["norm/beta"]'])
def test_broken_list_of_bilinear_kernels_is_a_missing_variable(text, tmp_path):
    path = tmp_path / "w.safetensors"
    arrays = {
        name: array for name, array in values(small_model()).items() if name not in ("norm/beta", "upsample/kernel")
    }
    safetensors.numpy.save_file(arrays, str(path), metadata={"fcnedge bilinear": text})
    assert "has no norm/beta" in refused(small_model(), path)


def test_learned_kernel_next_to_bilinear_stays_as_stored(tmp_path):
    saved, loaded = small_model(), small_model()
    kernel = saved.get_layer("upsample").kernel
    almost = np.asarray(kernel).copy()
    almost[0, 0, 0, 0] *= 1.01
    kernel.assign(almost)
    save_weights(saved, tmp_path / "w.safetensors", INFO)
    load_weights(loaded, tmp_path / "w.safetensors")
    np.testing.assert_array_equal(np.asarray(loaded.get_layer("upsample").kernel), almost.astype(np.float16))


def test_description_survives_the_round_trip(tmp_path):
    save_weights(small_model(), tmp_path / "w.safetensors", INFO)
    assert read_info(tmp_path / "w.safetensors") == INFO


def test_file_of_another_program_has_no_description(tmp_path):
    safetensors.numpy.save_file({"a": np.zeros(1)}, str(tmp_path / "w.safetensors"), metadata={"format": "pt"})
    assert read_info(tmp_path / "w.safetensors") is None


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        json.dumps({"name": "a", "arch": "b", "classes": 3, "size": [1, 2], "fit": "c"}),
        json.dumps({"name": "a", "arch": "b", "classes": ["x"], "size": [1], "fit": "c"}),
        json.dumps({"name": "a", "arch": "b", "classes": ["x"], "size": ["wide", 2], "fit": "c"}),
    ],
)
def test_broken_description_is_refused(text, tmp_path):
    path = tmp_path / "w.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(1)}, str(path), metadata={"fcnedge": text})
    with pytest.raises(UserError, match="describes its model wrongly") as caught:
        read_info(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("value", [65_520.0, -1e6, np.inf, np.nan])
def test_value_beyond_float16_is_refused_and_leaves_no_file(value, tmp_path):
    model = small_model()
    variance = model.get_layer("norm").moving_variance
    variance.assign(np.array([1, value, 1, 1], np.float32))
    with pytest.raises(UserError, match=f"{variance.path} holds values that float16 cannot"):
        save_weights(model, tmp_path / "w.safetensors", INFO)
    assert list(tmp_path.iterdir()) == []


def test_largest_float16_value_is_kept(tmp_path):
    saved, loaded = small_model(), small_model()
    saved.get_layer("norm").moving_variance.assign(np.array([1, 65_504, 1, 1], np.float32))
    save_weights(saved, tmp_path / "w.safetensors", INFO)
    load_weights(loaded, tmp_path / "w.safetensors")
    assert np.asarray(loaded.get_layer("norm").moving_variance).tolist() == [1, 65_504, 1, 1]


def test_failed_save_leaves_no_temporary_file_and_the_old_file_whole(tmp_path):
    path = tmp_path / "w.safetensors"
    (path / "in-the-way").mkdir(parents=True)  # a folder cannot be replaced by a file
    with pytest.raises(OSError, match=r"w\.safetensors"):
        save_weights(small_model(), path, INFO)
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]
    assert (path / "in-the-way").is_dir()


def test_saving_again_replaces_the_file(tmp_path):
    path = tmp_path / "w.safetensors"
    first, second, loaded = small_model(seed=1), small_model(seed=2), small_model(seed=3)
    save_weights(first, path, INFO, "float32")
    save_weights(second, path, INFO, "float32")
    load_weights(loaded, path)
    for name, array in values(loaded).items():
        np.testing.assert_array_equal(array, values(second)[name])


def refused(model: keras.Model, path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_weights(model, path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_wrong_number_of_classes_is_refused_and_named(tmp_path):
    save_weights(small_model(classes=3), tmp_path / "w.safetensors", INFO)
    message = refused(small_model(classes=5), tmp_path / "w.safetensors")
    assert "score/kernel has shape (1, 1, 4, 3) where small has (1, 1, 4, 5)" in message
    assert "class list" in message


def test_missing_variable_is_refused_and_named(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(small_model(), path, INFO)
    arrays = safetensors.numpy.load_file(path)
    del arrays["norm/beta"]
    safetensors.numpy.save_file(arrays, str(path))
    assert "has no norm/beta" in refused(small_model(), path)


@pytest.mark.parametrize(("dtype", "item_bytes"), [("BF16", 2), ("I8", 1), ("I32", 4)])
def test_weights_that_are_no_numpy_floats_are_refused_and_named(dtype, item_bytes, tmp_path):
    header, end = {}, 0
    for name, array in values(small_model()).items():
        begin, end = end, end + array.size * item_bytes
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))
    assert f"stem/kernel holds {dtype}, not F16 or F32 or F64" in refused(small_model(), tmp_path / "w.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_file_is_refused(keep, tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(small_model(), path, INFO)
    path.write_bytes(path.read_bytes()[:keep])
    assert "is not a readable safetensors file" in refused(small_model(), path)
    with pytest.raises(UserError, match="is not a readable safetensors file"):
        read_info(path)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n" + bytes(64), b"PK\x03\x04" + bytes(64), b"\xff" * 64])
def test_file_of_another_kind_is_refused(content, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(content)
    assert "is not a readable safetensors file" in refused(small_model(), tmp_path / "w.safetensors")


def test_missing_file_is_refused(tmp_path):
    assert "there is no weights file" in refused(small_model(), tmp_path / "w.safetensors")


def test_unknown_kind_of_file_is_refused(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"")
    assert "it reads .safetensors and .weights.h5" in refused(small_model(), tmp_path / "w.pth")


def test_keras_weights_survive_the_round_trip(tmp_path):
    saved, loaded = small_model(seed=1), small_model(seed=2)
    saved.save_weights(tmp_path / "w.weights.h5")
    load_weights(loaded, tmp_path / "w.weights.h5")
    for path, array in values(loaded).items():
        np.testing.assert_array_equal(array, values(saved)[path], strict=True)


def test_keras_weights_of_another_model_are_refused(tmp_path):
    small_model(classes=3).save_weights(tmp_path / "w.weights.h5")
    assert "does not hold weights of small" in refused(small_model(classes=5), tmp_path / "w.weights.h5")


def test_file_that_is_no_hdf5_is_refused(tmp_path):
    (tmp_path / "w.weights.h5").write_bytes(b"not HDF5")
    assert "does not hold weights of small" in refused(small_model(), tmp_path / "w.weights.h5")
