"""Which file is read by whom, with which flags."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import pytest

from fcnedge.build_engine.importers.flags import read_flags
from fcnedge.build_engine.importers.origin import ImportFlags, Origin, kind_of, origin_of
from fcnedge.build_engine.model_source import resolve_source
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.preprocessing import Preprocessing

WORDS = {
    "padding": None, "mean": None, "scale": None, "channel_order": None, "rgb": False, "layout": None,
    "output_name": None,
}  # fmt: skip


def words(**given) -> SimpleNamespace:
    return SimpleNamespace(**WORDS | given)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("pascal-fcn8s-dag.mat", "matconvnet"), ("A.MAT", "matconvnet"), ("n.caffemodel", "caffe"),
        ("n.keras", "keras"), ("n.h5", "keras"), ("n.onnx", "onnx"), ("n.weights.h5", None),
        ("fcn8s-vgg16", None), ("n.pt", None),
    ],
)  # fmt: skip
def test_ending_says_the_kind(name, kind, tmp_path):
    assert kind_of(tmp_path / name) == kind


def test_saved_model_is_known_by_its_file(tmp_path):
    (tmp_path / "model").mkdir()
    assert kind_of(tmp_path / "model") is None
    (tmp_path / "model" / "saved_model.pb").touch()
    assert kind_of(tmp_path / "model") == "keras"


def test_flags_as_numbers():
    flags = read_flags(words(mean="1,2.5,3", scale="0.5", rgb=True, layout="nchw", output_name="out", padding="same"))
    assert flags == ImportFlags("same", (1.0, 2.5, 3.0), (0.5, 0.5, 0.5), "rgb", "nchw", "out")
    assert read_flags(words()) == ImportFlags()


@pytest.mark.parametrize("text", ["", "a", "1,2", "1,2,3,4", "1,nan,2", "inf"])
def test_what_is_no_mean(text):
    with pytest.raises(UserError, match=r"--mean is '.*'; it takes one number, or three with commas between them"):
        read_flags(words(mean=text))


def test_flags_that_contradict_or_say_nothing():
    with pytest.raises(UserError, match="--rgb and --channel-order bgr contradict each other; keep one"):
        read_flags(words(rgb=True, channel_order="bgr"))
    with pytest.raises(UserError, match="a channel that is multiplied by 0 says nothing"):
        read_flags(words(scale="1,0,1"))


@pytest.mark.parametrize(
    ("name", "flags", "flag"),
    [("n.onnx", {"padding": "same"}, "--padding"), ("n.mat", {"layout": "nchw"}, "--layout")],
)
def test_flag_that_does_not_apply_is_refused(name, flags, flag, tmp_path):
    with pytest.raises(UserError, match=f"{flag} says nothing about {name}, a model of kind "):
        origin_of(tmp_path / name, ImportFlags(**flags))


def test_flags_are_for_files_of_other_programs():
    with pytest.raises(UserError, match="--padding is for model files of other programs; fcn8s-vgg16 is none"):
        resolve_source("fcn8s-vgg16", imports=ImportFlags(padding="same"))


def test_origin_survives_the_way_to_the_child(tmp_path):
    origin = origin_of(tmp_path / "n.mat", ImportFlags(mean=(1.0, 2.0, 3.0), padding="same"))
    assert Origin.from_json(json.loads(json.dumps(dataclasses.asdict(origin), default=str))) == origin


@pytest.mark.parametrize(("order", "mean", "scale"), [
    (None, (3.0, 2.0, 1.0), (30.0, 20.0, 10.0)),
    ("bgr", (3.0, 2.0, 1.0), (30.0, 20.0, 10.0)),
    ("rgb", (1.0, 2.0, 3.0), (10.0, 20.0, 30.0)),
])  # fmt: skip
def test_flags_are_in_the_order_of_rgb_whatever_the_network_takes(order, mean, scale, tmp_path):
    default = Preprocessing("bgr", (3.0, 2.0, 1.0), (30.0, 20.0, 10.0))
    told = Origin(mean=(1.0, 2.0, 3.0), scale=(10.0, 20.0, 30.0), channel_order=order)
    expected = Preprocessing(order or "bgr", mean, scale)
    assert told.preprocessing(default) == Origin(channel_order=order).preprocessing(default) == expected


def test_source_of_a_file(dagnn, tmp_path):
    path = dagnn.write_v7(tmp_path / "my net (2).mat", dagnn.published(8, channels=(1,) * 6))
    source = resolve_source(str(path), imports=ImportFlags(padding="same"), size=(64, 96))
    assert (source.name, source.arch, source.classes) == ("my-net-2", "matconvnet fcn8s", dagnn.NAMES)
    assert (source.size, source.fit, source.weights) == ((64, 96), "stretch", None)
    assert source.origin == Origin(kind="matconvnet", path=path, padding="same")
    with pytest.raises(UserError, match=r"scores 4 classes, --classes names 2; they must agree"):
        resolve_source(str(path), imports=ImportFlags(), classes="a,b")
    with pytest.raises(UserError, match="holds its own weights; leave out --weights"):
        resolve_source(str(path), imports=ImportFlags(), weights=path)


@pytest.mark.parametrize(
    ("classes", "words"),
    [(1, "scores 1 class, a model has 2 to 255; give the background a channel of its own."),
     (256, "scores 256 classes, a model has 2 to 255; train it for fewer.")],
)  # fmt: skip
def test_file_with_a_number_of_classes_that_no_bundle_has(classes, words, dagnn, tmp_path):
    dag = dagnn.published(32, channels=(1,) * 6, classes=classes)
    dag.meta["classes"] = {"name": dagnn.cell([f"class {index}" for index in range(classes)])}
    path = dagnn.write_v7(tmp_path / "net.mat", dag)
    for named in (None, "a,b"):
        with pytest.raises(UserError) as caught:
            resolve_source(str(path), imports=ImportFlags(), classes=named)
        assert str(caught.value) == f"{path} {words}"


def test_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"there is no model file .*gone\.mat; check the path"):
        resolve_source(str(tmp_path / "gone.mat"), imports=ImportFlags())


def test_training_starts_from_no_such_file(tmp_path):
    with pytest.raises(UserError, match="is not a model that fcnedge knows"):
        resolve_source(str(tmp_path / "net.mat"))
