"""The command line's words about a model: resolved, or refused with a sentence that says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from fcnedge.build_engine.model_source import (
    WEIGHTS_FOLDER,
    ModelSource,
    keras_model,
    read_classes,
    resolve_source,
    shipped_models,
)
from fcnedge.build_engine.models.fcn_head import bilinear_diagonal
from fcnedge.build_engine.models.names import ARCHITECTURES
from fcnedge.build_engine.models.weights_file import WeightsInfo, save_weights
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.palette import VOC_CLASSES

ROAD = ("background", "road", "person")


def write_weights(folder: Path, arch: str = "fcn8s-lite0", classes: tuple[str, ...] = ROAD) -> Path:
    """A safetensors file that describes itself; its only array is not looked at before Keras is loaded."""
    from fcnedge.build_engine.models import weights_file

    path = folder / f"{arch}.safetensors"
    description = (
        f'{{"name": "{arch}", "arch": "{arch}", "classes": {list(classes)}, "size": [96, 160], "fit": "letterbox"}}'
    )
    arrays = {"x": np.zeros(1, np.float32)}
    safetensors.numpy.save_file(arrays, str(path), metadata={weights_file._METADATA_KEY: description.replace("'", '"')})
    return path


# --- classes


def test_number_of_classes_gives_numbered_names():
    assert read_classes("3") == ("class0", "class1", "class2")


def test_21_classes_are_vocs():
    assert read_classes("21") == VOC_CLASSES
    assert (len(VOC_CLASSES), VOC_CLASSES[0], VOC_CLASSES[15]) == (21, "background", "person")


@pytest.mark.parametrize("text", ["0", "1", "256", "99999"])
def test_numbers_that_no_mask_can_hold_are_refused(text):
    with pytest.raises(UserError, match=rf"--classes is {text}; a model has 2 to 255 classes\.$"):
        read_classes(text)


def test_classes_from_a_text_file_one_name_per_line(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_bytes("\ufeffbackground\r\n\r\n  traffic light \r\nköping\r\n".encode())  # as Windows' Notepad saves it
    assert read_classes(str(file)) == ("background", "traffic light", "köping")


def test_classes_from_a_file_of_any_name(tmp_path):
    file = tmp_path / "labels"
    file.write_text("a\nb\n", encoding="utf-8")
    assert read_classes(str(file)) == ("a", "b")


def test_classes_from_a_list_with_commas():
    assert read_classes("background, road ,person") == ROAD


def test_long_list_with_commas_is_no_file_name():
    names = tuple(f"class number {index}" for index in range(255))  # longer than any file name may be
    assert read_classes(",".join(names)) == names


@pytest.mark.parametrize("text", ["a,b,a", "a, b,b "])
def test_name_given_twice_is_refused(text):
    with pytest.raises(UserError, match="names a class twice; every name must differ"):
        read_classes(text)


@pytest.mark.parametrize("text", ["lonely", "a,,b", "a,b\tc", "a," + "b" * 201, ",".join(map(str, range(256))), "²"])
def test_lists_that_are_no_class_names_are_refused(text):
    with pytest.raises(UserError, match="must give 2 to 255 printable names"):
        read_classes(text)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00a"])
def test_class_file_that_cannot_be_read_is_refused(tmp_path, content):
    file = tmp_path / "classes.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"the class list .*classes\.txt cannot be read .*; write one name per line"):
        read_classes(str(file))


# --- models and weights


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_architecture_alone_takes_vocs_classes_and_random_weights(arch):
    assert resolve_source(arch) == ModelSource(arch, arch, VOC_CLASSES, (512, 512), "stretch", None)


def test_weights_say_classes_size_and_fit(tmp_path):
    weights = write_weights(tmp_path)
    assert resolve_source("fcn8s-lite0", weights=weights) == ModelSource(
        "fcn8s-lite0", "fcn8s-lite0", ROAD, (96, 160), "letterbox", weights
    )


def test_command_line_overrules_the_weights(tmp_path):
    source = resolve_source(
        "fcn8s-lite0", weights=write_weights(tmp_path), classes="a,b,c", size=(32, 64), fit="stretch"
    )
    assert (source.classes, source.size, source.fit) == (("a", "b", "c"), (32, 64), "stretch")


@pytest.mark.parametrize("name", ["fcn8s", "fcn4s-vgg16", "resnet", "", "model.keras"])
def test_unknown_model_is_refused_with_the_known_ones(name):
    with pytest.raises(UserError) as caught:
        resolve_source(name)
    assert str(caught.value).startswith(f"{name!r} is not a model that fcnedge knows; choose one of ")
    assert all(arch in str(caught.value) for arch in ARCHITECTURES)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_file_of_another_kind_is_refused_with_the_endings_that_are_read(kind, tmp_path):
    path = tmp_path / "model.pt"
    path.mkdir() if kind == "folder" else path.write_bytes(b"x")
    with pytest.raises(UserError, match=rf"^{path} is not a model file; those end in \.mat, .*SavedModel\.$"):
        resolve_source(str(path))


def test_class_list_that_disagrees_with_the_weights_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"scores 3 classes, --classes names 2; they must agree\.$"):
        resolve_source("fcn8s-lite0", weights=write_weights(tmp_path), classes="a,b")


def test_weights_of_another_architecture_are_refused(tmp_path):
    weights = write_weights(tmp_path, arch="fcn16s-vgg16")
    with pytest.raises(UserError, match="was trained as fcn16s-vgg16, not as fcn8s-lite0; build it as fcn16s-vgg16"):
        resolve_source("fcn8s-lite0", weights=weights)


@pytest.mark.parametrize("name", ["gone.safetensors", "gone.weights.h5", "."])
def test_missing_weights_are_refused_before_keras_is_loaded(tmp_path, name):
    with pytest.raises(UserError, match=r"there is no weights file .*; check the path"):
        resolve_source("fcn8s-lite0", weights=tmp_path / name)


@pytest.mark.parametrize("keep", [0, 4, 40])
def test_truncated_weights_are_refused_before_keras_is_loaded(tmp_path, keep):
    weights = write_weights(tmp_path)
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(UserError, match="is not a readable safetensors file"):
        resolve_source("fcn8s-lite0", weights=weights)


def test_safetensors_of_another_program_need_no_description(tmp_path):
    path = tmp_path / "theirs.safetensors"
    safetensors.numpy.save_file({"x": np.zeros(1, np.float32)}, str(path))
    assert resolve_source("fcn16s-lite0", weights=path, classes="4").classes == ("class0", "class1", "class2", "class3")


def test_shipped_models_are_the_files_in_the_package():
    assert shipped_models() == tuple(sorted(path.stem for path in WEIGHTS_FOLDER.glob("*.safetensors")))


@pytest.mark.parametrize("name", shipped_models() or [None])
def test_shipped_model_takes_no_other_weights(tmp_path, name):
    if name is None:
        pytest.skip("no trained model ships with this version")
    assert resolve_source(name).weights == WEIGHTS_FOLDER / f"{name}.safetensors"
    with pytest.raises(UserError, match="ships with its weights; use an architecture such as fcn8s-lite0"):
        resolve_source(name, weights=write_weights(tmp_path))


# --- the Keras model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """Give a Keras FCN-32s with known score weights, and its safetensors file."""
    model, _ = keras_model(
        ModelSource("m", "fcn32s-lite0", ROAD, (32, 64), "stretch", None), fc_channels=8, fixed_size=True
    )
    kernel, bias = model.get_layer("score_fr").get_weights()
    model.get_layer("score_fr").set_weights([np.full_like(kernel, 0.25), np.arange(3, dtype=bias.dtype)])
    path = tmp_path_factory.mktemp("weights") / "m.safetensors"
    save_weights(model, path, WeightsInfo("m", "fcn32s-lite0", ROAD, (32, 64), "stretch"))
    return model, path


def test_keras_model_holds_the_weights_of_the_file(trained):
    loaded, preprocessing = keras_model(
        resolve_source("fcn32s-lite0", weights=trained[1]), fc_channels=8, fixed_size=True
    )
    np.testing.assert_array_equal(loaded.get_layer("score_fr").get_weights()[1], [0, 1, 2])
    assert (loaded.get_layer("score_fr").get_weights()[0] == 0.25).all()
    assert loaded.input_shape == (None, 32, 64, 3)
    assert (preprocessing.channel_order, preprocessing.mean) == ("rgb", (127.0, 127.0, 127.0))


def test_model_to_train_takes_any_size(trained):
    model, _ = keras_model(resolve_source("fcn32s-lite0", weights=trained[1]), fc_channels=8, fixed_size=False)
    assert model.input_shape == (None, None, None, 3)
    assert model.output_shape == (None, None, None, 3)


def test_foreign_weights_of_another_class_count_are_refused(trained, tmp_path):
    arrays = safetensors.numpy.load_file(str(trained[1]))
    path = tmp_path / "theirs.safetensors"
    safetensors.numpy.save_file(arrays, str(path))
    # the score layers are the ones whose shapes the class count sets: the first of them is named
    with pytest.raises(UserError, match=r"score_\w+/kernel has shape \(1, 1, \d+, 3\) where .* has \(1, 1, \d+, 4\)"):
        keras_model(resolve_source("fcn32s-lite0", weights=path, classes="4"), fc_channels=8, fixed_size=True)


def test_training_may_start_from_weights_of_another_class_count(trained):
    """The trunk is the file's, the score layers are new."""
    source = resolve_source("fcn32s-lite0", weights=trained[1], classes="5", new_scores=True)
    model, _ = keras_model(source, fc_channels=8, fixed_size=False, new_scores=True)
    assert model.output_shape[-1] == 5
    stored = safetensors.numpy.load_file(str(trained[1]))
    for variable in model.weights:
        if variable.path.startswith("upsample"):
            assert variable.path not in stored  # bilinear: kept by name
            np.testing.assert_array_equal(variable.numpy(), bilinear_diagonal(variable.shape))
        elif variable.path.startswith("score"):
            assert variable.shape != stored[variable.path].shape
        else:
            np.testing.assert_array_equal(variable.numpy(), stored[variable.path].astype(np.float32))
    with pytest.raises(UserError, match="score_context/kernel has shape"):
        keras_model(source, fc_channels=8, fixed_size=False)
