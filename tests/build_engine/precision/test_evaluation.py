"""SQNR, mIoU and its standard error against plain loops in float64; which pictures are taken; what is refused."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper
from PIL import Image

from fcnedge.build_engine.precision import open_simulated, place
from fcnedge.build_engine.precision.evaluation import LabelledPictures, choose_samples, int8_bytes
from fcnedge.calibration.ranges import read_ranges
from fcnedge.calibration.voc import VOID, VocSample, read_voc
from fcnedge.runtime import BilinearHead
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.head import HeadGeometry
from fcnedge.runtime.preprocessing import fit_frame

SIZE = (64, 64)
HEAD = BilinearHead(HeadGeometry(4))


def prepared(graph: Path, samples: list[VocSample], **other: object) -> LabelledPictures:
    return LabelledPictures(graph, samples, SIZE, "letterbox", HEAD, threads=1, **other)


@pytest.fixture(scope="module")
def graph(loud_bundle: Path) -> Path:
    return loud_bundle / "model.fp32.onnx"


@pytest.fixture(scope="module")
def quantised(loud_bundle: Path, graph: Path) -> bytes:
    """The default placement: a graph with much noise."""
    return int8_bytes(graph, read_ranges(loud_bundle / "ranges.json").tensors, place(ir.load(graph)))


@pytest.fixture
def own_voc(voc_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(voc_folder, tmp_path / "VOC2012")


def scores_of(source: Path | bytes, samples: list[VocSample]) -> list[np.ndarray]:
    """Float64 scores (C, h, w) of each picture."""
    session = open_simulated(source, threads=1)
    images = [fit_frame(sample.read_image(), SIZE, "letterbox")[0][None] for sample in samples]
    return [session.run(None, {"image": image})[0][0].astype(np.float64) for image in images]


def masks_of(source: Path | bytes, samples: list[VocSample]) -> list[np.ndarray]:
    sizes = [sample.read_image().shape[:2] for sample in samples]
    contents = [fit_frame(sample.read_image(), SIZE, "letterbox")[1] for sample in samples]
    scores = [each.astype(np.float32) for each in scores_of(source, samples)]
    return [HEAD.labels(*each) for each in zip(scores, sizes, contents, strict=True)]


def mean_iou(masks: list[np.ndarray], truths: list[np.ndarray], subset: tuple[int, ...] = (0, 1, 2)) -> float:
    found, truth = (np.concatenate([each.ravel() for each in arrays]) for arrays in (masks, truths))
    found, truth = found[truth != VOID], truth[truth != VOID]
    return float(np.mean([np.sum((found == c) & (truth == c)) / np.sum((found == c) | (truth == c)) for c in subset]))


def test_fp32_itself_loses_nothing(graph, voc_folder):
    pictures = prepared(graph, read_voc(voc_folder, "val"))
    found = pictures.measure(graph)
    assert (found.miou, found.drop, found.drop_error, found.labels_equal) == (pictures.miou, 0, 0, 1)
    assert found.sqnr_db == pictures.sqnr_db(graph) == math.inf
    assert pictures.miou > 0.8, "the network was meant to read colours"


def test_sqnr_is_that_of_scores_centred_over_classes(graph, quantised, voc_folder):
    samples = read_voc(voc_folder, "train")
    for count in (3, 8):
        signal = noise = 0.0
        exact, rounded = scores_of(graph, samples)[:count], scores_of(quantised, samples)[:count]
        for first, second in zip(exact, rounded, strict=True):
            first, second = first - first.mean(axis=0), second - second.mean(axis=0)
            signal, noise = signal + (first**2).sum(), noise + ((first - second) ** 2).sum()
        pictures = prepared(graph, samples, sqnr_pictures=count)
        # the measured ones are centred in float32: 24 bits of scores around 1000
        assert pictures.sqnr_db(quantised) == pytest.approx(10 * np.log10(signal / noise), rel=1e-6)
        assert pictures.measure(quantised).sqnr_db == pictures.sqnr_db(quantised)


def test_what_moves_all_classes_alike_is_no_noise(graph, make_loud_bundle, voc_folder, tmp_path):
    shifted = make_loud_bundle(tmp_path / "shifted", bias=64.0) / "model.fp32.onnx"
    found = prepared(graph, read_voc(voc_folder, "val")).measure(shifted)
    assert (found.drop, found.labels_equal) == (0, 1)
    assert found.sqnr_db > 120, "float32 has 24 bits: 144 dB"


@pytest.mark.parametrize("subset", [None, (1,), (0, 2)])
def test_miou_drop_and_error_against_loops(graph, quantised, voc_folder, subset):
    samples = read_voc(voc_folder, "train")
    truths = [sample.read_mask() for sample in samples]
    both, classes = [masks_of(source, samples) for source in (graph, quantised)], subset or (0, 1, 2)
    exact, rounded = (mean_iou(masks, truths, classes) for masks in both)
    pictures = prepared(graph, samples, subset=subset)
    found = pictures.measure(quantised)
    assert pictures.miou == pytest.approx(exact, rel=1e-12)
    assert (found.miou, found.drop) == pytest.approx((rounded, 100 * (exact - rounded)), rel=1e-12)
    drops = []
    for left_out in range(len(samples)):
        rest = [[mask for index, mask in enumerate(each) if index != left_out] for each in (*both, truths)]
        drops.append(100 * (mean_iou(rest[0], rest[2], classes) - mean_iou(rest[1], rest[2], classes)))
    assert found.drop_error == pytest.approx(math.sqrt(7 * np.var(drops)), rel=1e-9)
    assert found.drop_error > 0
    equal = np.concatenate([(first == second).ravel() for first, second in zip(*both, strict=True)])
    assert found.labels_equal == pytest.approx(equal.mean(), rel=1e-12)


def test_one_picture_has_no_error(graph, quantised, voc_folder):
    assert math.isnan(prepared(graph, read_voc(voc_folder, "val")[:1]).measure(quantised).drop_error)


def test_weights_in_a_file_of_their_own_come_along(loud_bundle, graph, quantised, tmp_path):
    ir.save(ir.load(graph), tmp_path / "model.onnx", external_data="weights.data", size_threshold_bytes=0)
    ranges = read_ranges(loud_bundle / "ranges.json").tensors
    found = int8_bytes(tmp_path / "model.onnx", ranges, place(ir.load(graph)))
    shutil.rmtree(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), np.uint8)
    first, second = (open_simulated(each, threads=1).run(None, {"image": image})[0] for each in (found, quantised))
    assert np.array_equal(first, second)


def test_labels_instead_of_scores_are_refused(make_graph, voc_folder, tmp_path):
    nodes = [
        helper.make_node("ReduceMax", ["image"], ["labels"], axes=[3], keepdims=0),
    ]
    ir.save(make_graph(nodes, {}, ("image", np.uint8, (1, *SIZE, 3)), "labels"), tmp_path / "labels.onnx")
    with pytest.raises(UserError, match=r"^the graph gives labels of tensor\(uint8\), where class scores are needed"):
        prepared(tmp_path / "labels.onnx", read_voc(voc_folder, "val"))


def test_no_pictures_are_refused(graph):
    with pytest.raises(UserError, match=r"^there are no labelled pictures to measure on"):
        prepared(graph, [])


def test_masks_of_void_are_refused(graph, own_voc):
    samples = read_voc(own_voc, "val")
    for sample in samples:
        repaint(sample.mask_path, VOID)
    with pytest.raises(UserError, match=r"^no pixel of the 3 masks counts for mIoU"):
        prepared(graph, samples)


def test_class_that_the_model_lacks_is_refused_by_file(graph, own_voc):
    sample = read_voc(own_voc, "val")[1]
    repaint(sample.mask_path, 4)
    with pytest.raises(UserError, match=r"val_000001\.png does not fit its picture or the model: ids up to 4 for 4"):
        prepared(graph, read_voc(own_voc, "val"))


def repaint(path: Path, value: int) -> None:
    with Image.open(path) as mask:
        size, palette = mask.size, mask.getpalette()
    painted = Image.new("P", size, value)
    painted.putpalette(palette)
    painted.save(path)


def names(samples: list[VocSample]) -> list[int]:
    return [int(sample.name[-6:]) for sample in samples]


def test_samples_are_evenly_spaced_and_leave_out_the_calibration(own_voc):
    assert names(choose_samples(own_voc, None, 4)) == [0, 2, 4, 6]
    listing = own_voc / "ImageSets" / "Segmentation" / "calibration.txt"
    listing.write_text("train_000000\ntrain_000004\ntrain_000005\n", encoding="utf-8")
    assert names(choose_samples(own_voc, None, 5)) == [1, 2, 3, 6, 7]
    assert names(choose_samples(own_voc, "train", 8)) == list(range(8)), "a split that was asked for is taken whole"
    listing.write_text("".join(f"train_{index:06d}\n" for index in range(8)), encoding="utf-8")
    with pytest.raises(UserError, match=r"^all pictures of the split train are in calibration too; name one"):
        choose_samples(own_voc, None, 5)


def test_val_and_too_few_pictures_are_warned_of(voc_folder, caplog):
    assert names(choose_samples(voc_folder, "val", 64)) == [0, 1, 2]
    assert [record.getMessage() for record in caplog.records] == [
        "these are the pictures that accuracy is reported on; choose layers on others, such as train.",
        "there are 3 pictures, 64 were asked for; all of them are taken.",
    ]
