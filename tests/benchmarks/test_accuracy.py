"""benchmarks/accuracy.py on pictures whose every pixel has a known class, with a bundle that reads colours."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from fcnedge.benchmarks import accuracy
from fcnedge.benchmarks.accuracy import AccuracyOptions, measure_accuracy
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.manifest import FileSpec, HeadSpec, InputSpec, Manifest
from fcnedge.runtime.preprocessing import Preprocessing

CLASSES = ("background", "aeroplane", "bicycle", "bird")
SIZE = (96, 96)
VOID = 255


@pytest.fixture(scope="session")
def colour_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a bundle that tells `voc_folder`'s colours apart: red is 1, blue is 2, anything dark is 0, nothing is 3."""
    folder = tmp_path_factory.mktemp("bundle")
    # labels = argmax of (100, red - green, blue - green, 0); pictures are BGR
    weight = np.array([[0, 0, 0], [0, -1, 1], [1, -1, 0], [0, 0, 0]], np.float32).reshape(4, 3, 1, 1)
    constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.float32([100, 0, 0, 0]), "b")]
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["pixels", "w", "b"], ["full"]),
        helper.make_node("ArgMax", ["full"], ["winner"], axis=1, keepdims=0),
        helper.make_node("Cast", ["winner"], ["labels"], to=TensorProto.UINT8),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, *SIZE, 3])
    labels = helper.make_tensor_value_info("labels", TensorProto.UINT8, [1, *SIZE])
    graph = helper.make_graph(nodes, "colours", [image], [labels], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = model.SerializeToString()
    (folder / "model.fp32.onnx").write_bytes(data)
    manifest = Manifest(
        name="colours",
        arch="one convolution",
        classes=CLASSES,
        palette=((0, 0, 0),) * 4,
        input=InputSpec(*SIZE, "letterbox"),
        preprocessing=Preprocessing("bgr", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        head=HeadSpec("labels"),
        files={"model.fp32.onnx": FileSpec(hashlib.sha256(data).hexdigest(), len(data), "fp32")},
        versions={"onnx": onnx.__version__},
    )
    (folder / "model.json").write_text(manifest.to_json(), encoding="utf-8")
    return folder


def options(bundle: Path, data: Path, **other: object) -> AccuracyOptions:
    return AccuracyOptions(bundle, data, **{"split": "val", "subset": "aeroplane,bicycle", "threads": 1} | other)


@pytest.fixture
def own_voc(voc_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(voc_folder, tmp_path / "VOC2012")


def test_right_answers_score_nearly_1(colour_bundle, voc_folder):
    """Not quite: JPEG blurs colours over the borders of objects, void or not."""
    found = measure_accuracy(options(colour_bundle, voc_folder))
    assert list(found.iou) == ["background", "aeroplane", "bicycle"]  # no picture holds a bird
    assert all(0.9 < value <= 1 for value in found.iou.values())
    assert found.miou == pytest.approx(np.mean(list(found.iou.values())))
    assert found.miou_subset == pytest.approx((found.iou["aeroplane"] + found.iou["bicycle"]) / 2)
    assert found.pixel_accuracy > 0.97


def test_wrong_answers_are_counted(colour_bundle, own_voc):
    """Aeroplanes painted over as birds in the masks: half of the objects are missed."""
    for path in (own_voc / "SegmentationClass").glob("val_*.png"):
        with Image.open(path) as mask:
            ids, palette = np.array(mask), mask.getpalette()
        ids[ids == 1] = 3
        changed = Image.fromarray(ids)
        changed.putpalette(palette)
        changed.save(path)
    found = measure_accuracy(options(colour_bundle, own_voc, subset="bird"))
    assert list(found.iou) == ["background", "bicycle", "bird"]
    assert found.iou["bird"] == found.miou_subset == 0.0


def test_result_says_what_was_measured(colour_bundle, voc_folder):
    found = measure_accuracy(options(colour_bundle, voc_folder, split="train"))
    assert (found.model, found.size, found.precision) == ("colours", "96x96 letterbox", "fp32")
    assert (found.split, found.pictures, found.subset) == ("train, 8 pictures", 8, ("aeroplane", "bicycle"))
    assert 0 < found.p50_ms < 60_000


def test_unknown_class_of_the_subset_is_refused(colour_bundle, voc_folder):
    with pytest.raises(UserError, match=r"^--subset names dragon, unicorn, which the model does not have\.$"):
        measure_accuracy(options(colour_bundle, voc_folder, subset="dragon,bicycle, unicorn"))


def test_mask_with_ids_that_the_model_lacks_is_refused_by_name(colour_bundle, own_voc):
    Image.fromarray(np.full((64, 96), 7, np.uint8)).save(own_voc / "SegmentationClass" / "val_000001.png")
    with pytest.raises(UserError, match=r"val_000001\.png does not fit its picture or the model: ids up to 7 for 4"):
        measure_accuracy(options(colour_bundle, own_voc))


def test_mask_of_another_size_than_its_picture_is_refused_by_name(colour_bundle, own_voc):
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(own_voc / "SegmentationClass" / "val_000001.png")
    with pytest.raises(UserError, match=r"val_000001\.png does not fit its picture or the model: truth is \(10, 10\)"):
        measure_accuracy(options(colour_bundle, own_voc))


def test_command_prints_and_writes_the_result(capsys, tmp_path, colour_bundle, voc_folder):
    words = [str(colour_bundle), "--data", str(voc_folder), "--subset", "bicycle", "--json", str(tmp_path / "r.json")]
    assert accuracy.main(words) == 0
    result = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert tuple(result) == (
        *("model", "size", "precision", "split", "pictures", "miou", "subset", "miou_subset", "pixel_accuracy"),
        *("iou", "p50_ms"),
    )
    out, error = capsys.readouterr()
    assert error == ""
    last = out.splitlines()[-1]
    assert last.startswith("colours fp32 at 96x96 letterbox on val, 3 pictures: mIoU over 3 classes ")
    assert f"{result['miou']:.4f}, mIoU-1 {result['miou_subset']:.4f}, pixel accuracy" in last


def test_mistake_is_one_line_and_exit_2(capsys, colour_bundle, voc_folder):
    words = [str(colour_bundle), "--data", str(voc_folder), "--split", "test"]
    assert accuracy.main(words) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.splitlines() == [f"accuracy.py: {voc_folder} has no split 'test'; it has train, val."]
