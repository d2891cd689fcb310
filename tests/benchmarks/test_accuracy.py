"""fcn-bench accuracy on pictures whose every pixel has a known class, with a bundle that reads colours."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fcnedge.benchmarks.accuracy import AccuracyOptions, compare_accuracy, measure_accuracy
from fcnedge.calibration.voc import VocSample
from fcnedge.runtime import Bundle, Segmenter
from fcnedge.runtime.errors import UserError

CLASSES = ("background", "aeroplane", "bicycle", "bird")


def options(bundle: Path, data: Path, **other: object) -> AccuracyOptions:
    given = {"split": "val", "backend": "onnxruntime", "subset": "aeroplane,bicycle", "threads": 1} | other
    return AccuracyOptions((bundle,), data, **given)


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
    with pytest.raises(
        UserError, match=r"^--subset names dragon, unicorn, which the model does not have; it has background, "
    ):
        measure_accuracy(options(colour_bundle, voc_folder, subset="dragon,bicycle, unicorn"))


def test_model_without_the_voc_seven_is_scored_over_all_its_classes(colour_bundle, voc_folder):
    found = measure_accuracy(options(colour_bundle, voc_folder, subset=None))
    assert found.subset == CLASSES
    assert found.miou_subset == found.miou


def test_mask_with_ids_that_the_model_lacks_is_refused_by_name(colour_bundle, own_voc):
    Image.fromarray(np.full((64, 96), 7, np.uint8)).save(own_voc / "SegmentationClass" / "val_000001.png")
    with pytest.raises(UserError, match=r"val_000001\.png does not fit its picture or the model: ids up to 7 for 4"):
        measure_accuracy(options(colour_bundle, own_voc))


def test_mask_of_another_size_than_its_picture_is_refused_by_name(colour_bundle, own_voc):
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(own_voc / "SegmentationClass" / "val_000001.png")
    with pytest.raises(UserError, match=r"val_000001\.png does not fit its picture or the model: truth is \(10, 10\)"):
        measure_accuracy(options(colour_bundle, own_voc))


# Rows against each other


def test_rows_are_precisions_by_backends_most_exact_first(colour_bundle, voc_folder):
    found = compare_accuracy(options(colour_bundle, voc_folder, precision="all", backend="onnxruntime, fake"))
    titles = [row.title for row in found.rows]
    assert titles == ["fp32 onnxruntime", "fp32 fake", "fp16 onnxruntime", "fp16 fake"]


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_one_row_is_that_of_measure_accuracy(colour_bundle, voc_folder, precision):
    (row,) = compare_accuracy(options(colour_bundle, voc_folder, precision=precision)).rows
    alone = measure_accuracy(options(colour_bundle, voc_folder, precision="fp16", backend="fake"))  # neither counts
    assert (row.precision, row.backend) == (alone.precision, "onnxruntime")
    assert (row.iou, row.miou, row.miou_subset) == (alone.iou, alone.miou, alone.miou_subset)
    assert (row.drop_points, row.labels_equal) == (0, 1)


def test_a_graph_that_sees_no_blue_loses_the_bicycles(colour_bundle, voc_folder):
    """Against the labels counted by hand: rows differ where the first one says bicycle, and nowhere else."""
    first, second = compare_accuracy(options(colour_bundle, voc_folder, precision="fp32,fp16")).rows
    assert second.iou["bicycle"] == 0.0
    assert second.iou["aeroplane"] == first.iou["aeroplane"]
    assert second.drop_points == pytest.approx(100 * first.iou["bicycle"] / 2)  # the subset is two classes
    blue = pixels = 0
    with Segmenter(colour_bundle, "onnxruntime", "fp32") as segment:
        for path in (voc_folder / "JPEGImages").glob("val_*.jpg"):
            mask = segment(cv2.imread(str(path)))
            blue, pixels = blue + int((mask == 2).sum()), pixels + mask.size
    assert 0 < blue < pixels
    assert second.labels_equal == pytest.approx(1 - blue / pixels)


def test_rows_come_in_the_order_asked_for(colour_bundle, voc_folder):
    first, second = compare_accuracy(options(colour_bundle, voc_folder, precision="fp16,fp32,fp16")).rows
    assert (first.precision, second.precision) == ("fp16", "fp32")
    assert (first.drop_points, first.labels_equal) == (0, 1)
    assert second.drop_points < 0


def test_size_is_that_of_graph_and_weights(colour_bundle, voc_folder):
    rows = compare_accuracy(options(colour_bundle, voc_folder)).rows
    sizes = {path.name: path.stat().st_size for path in colour_bundle.iterdir()}
    assert rows[0].graph_bytes == sizes["model.fp32.onnx"]
    assert rows[1].graph_bytes == sizes["model.fp16.onnx"] + sizes["model.fp16.data"]


def test_each_picture_is_decoded_once_for_all_rows(colour_bundle, voc_folder, monkeypatch):
    read = []
    real = VocSample.read_image
    monkeypatch.setattr(VocSample, "read_image", lambda sample: read.append(sample.name) or real(sample))
    compare_accuracy(options(colour_bundle, voc_folder, backend="onnxruntime,fake"))
    assert sorted(read) == ["val_000000", "val_000001", "val_000002"]


def test_openvino_and_onnxruntime_agree(colour_bundle, voc_folder):
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("the extra openvino is not installed")
    rows = compare_accuracy(options(colour_bundle, voc_folder, backend="onnxruntime,openvino", precision="fp32")).rows
    assert [row.backend for row in rows] == ["onnxruntime", "openvino"]
    assert rows[1].labels_equal == 1
    assert rows[1].iou == rows[0].iou


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            {"precision": "fp32,fp64"},
            r"^--precision has 'fp64'; it takes fp32, fp16, int8 with commas, all, or auto\.$",
        ),
        ({"precision": "fp32,"}, r"^--precision is 'fp32,'; it takes names with commas between them\.$"),
        ({"precision": "fp32,int8"}, r"holds no int8 graph, only fp32 and fp16; "),
        ({"backend": ""}, r"^--backend is ''; it takes names with commas between them\.$"),
        ({"backend": "onnxruntime,tensorflow"}, r"^'tensorflow' is not a backend; choose auto, "),
        ({"threads": 0}, r"^threads is 0; it must be from 1 to 1024"),
    ],
)
def test_wrong_choice_is_refused(colour_bundle, voc_folder, change, complaint):
    with pytest.raises(UserError, match=complaint):
        compare_accuracy(options(colour_bundle, voc_folder, **change))


# Several bundles


def test_bundles_have_a_row_each_and_their_own_first_row(colour_bundle, voc_folder):
    twice = replace(options(colour_bundle, voc_folder, precision="fp32,fp16"), bundles=(colour_bundle, colour_bundle))
    found = compare_accuracy(twice).rows
    assert [row.precision for row in found] == ["fp32", "fp16", "fp32", "fp16"]
    assert [row.drop_points for row in found[2:]] == [row.drop_points for row in found[:2]]
    assert found[0].drop_points == 0 < found[1].drop_points


def test_bundles_of_other_classes_are_refused(colour_bundle, voc_folder, tmp_path):
    other = Bundle.load(colour_bundle)
    renamed = replace(other.manifest, classes=("background", "boat", "bus", "bird"))
    changed = shutil.copytree(colour_bundle, tmp_path / "boats")
    (changed / "model.json").write_text(renamed.to_json(), encoding="utf-8")
    both = replace(options(colour_bundle, voc_folder), bundles=(colour_bundle, changed))
    with pytest.raises(UserError, match=r"boats has other classes than .*; compare models of the same classes\.$"):
        compare_accuracy(both)
