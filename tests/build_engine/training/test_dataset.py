"""Batches depend on (seed, epoch, index) and on nothing else; pixels and ids arrive as the network takes them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from fcnedge.build_engine.training.augmentation import Augmentation
from fcnedge.build_engine.training.dataset import TrainingBatches, ValidationBatches, fit_mask
from fcnedge.calibration.voc import VocSample, read_voc
from fcnedge.runtime.preprocessing import Preprocessing, letterbox_size

VOID = 255
PREPROCESSING = Preprocessing("rgb", mean=(127.0, 100.0, 50.0), scale=(1 / 128, 1 / 64, 0.5))
PLAIN = {"aspect": 1.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "grey_probability": 0.0}
STILL = Augmentation(96, "letterbox", min_zoom=1, max_zoom=1, **PLAIN)


def batches(voc_folder: Path, *, seed: int = 0, epoch: int = 0, augmentation: Augmentation | None = None):
    made = TrainingBatches(
        read_voc(voc_folder, "train"), augmentation or Augmentation(64), PREPROCESSING, batch_size=3, seed=seed
    )
    made.epoch = epoch
    return made


def test_batches_have_the_networks_shapes_and_types(voc_folder):
    made = batches(voc_folder)
    assert len(made) == 2  # 8 pictures, the two that fill no batch wait for another epoch's order
    for images, labels in (made[0], made[1]):
        assert (images.shape, images.dtype) == ((3, 64, 64, 3), np.float32)
        assert (labels.shape, labels.dtype) == ((3, 64, 64), np.int32)
        assert set(np.unique(labels)) <= {0, 1, 2, VOID}


def test_same_seed_epoch_and_index_give_the_same_batch(voc_folder):
    first, again = batches(voc_folder, seed=4, epoch=2), batches(voc_folder, seed=4, epoch=2)
    _ = first[0]  # what was asked before does not matter
    np.testing.assert_array_equal(first[1][0], again[1][0])
    np.testing.assert_array_equal(first[1][1], again[1][1])


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}])
def test_another_seed_or_epoch_gives_another_batch(voc_folder, other):
    assert not np.array_equal(batches(voc_folder)[0][0], batches(voc_folder, **other)[0][0])


def order(voc_folder: Path, epoch: int) -> list[int]:
    """Which pictures an epoch shows, found by their masks."""
    masks = [_placed(sample.read_mask()) for sample in read_voc(voc_folder, "train")]
    made = batches(voc_folder, epoch=epoch, augmentation=STILL)
    shown = []
    for labels in np.concatenate([made[index][1] for index in range(len(made))]):
        counts = np.bincount(labels[labels != VOID], minlength=3)
        (found,) = [i for i, mask in enumerate(masks) if any(_equal(counts, labels, other) for other in mask)]
        shown.append(found)
    return shown


def _placed(mask: np.ndarray) -> list[np.ndarray]:
    return [mask.astype(np.int32), mask[:, ::-1].astype(np.int32)]


def _equal(counts: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> bool:
    """Whether `mask` lies somewhere inside `labels`: 64x96 in 96x96, the rest void."""
    height, width = mask.shape
    windows = np.lib.stride_tricks.sliding_window_view(labels, (height, width)).reshape(-1, height, width)
    return bool((windows == mask).all(axis=(1, 2)).any())


def test_an_epoch_shows_each_picture_at_most_once_and_another_epoch_in_another_order(voc_folder):
    orders = [order(voc_folder, epoch) for epoch in range(3)]
    for shown in orders:
        assert len(shown) == len(set(shown)) == 6
    assert len({tuple(shown) for shown in orders}) == 3


def test_pixels_are_preprocessed_as_the_graph_does(voc_folder):
    """Where the picture does not fill the crop it is grey 127, which makes the arithmetic plain to see."""
    small = Augmentation(64, "letterbox", min_zoom=0.1, max_zoom=0.1, **PLAIN)
    images, labels = batches(voc_folder, augmentation=small)[0]
    outside = labels == VOID
    assert outside.any()
    expected = [(127 - 127) / 128, (127 - 100) / 64, (127 - 50) * 0.5]
    grey = (images == np.array(expected, np.float32)).all(-1)
    assert grey[outside].mean() > 0.9  # the rest is the void line around objects


def test_red_comes_first_for_an_rgb_network(voc_folder):
    images, labels = batches(voc_folder, augmentation=STILL)[0]
    rgb = images / PREPROCESSING.scale + PREPROCESSING.mean
    assert rgb[labels == 1].mean(0) == pytest.approx([220, 30, 30], abs=12)  # painted (30, 30, 220) in BGR
    assert rgb[labels == 2].mean(0) == pytest.approx([30, 60, 220], abs=12)


def test_validation_gives_every_picture_once_whole_and_unchanged(voc_folder):
    samples = read_voc(voc_folder, "val")
    made = ValidationBatches(samples, PREPROCESSING, size=(96, 96), fit="letterbox")
    assert len(made) == 3
    for index, sample in enumerate(samples):
        images, labels = made[index]
        assert (images.shape, images.dtype) == ((1, 96, 96, 3), np.float32)
        assert (labels.shape, labels.dtype) == ((1, 96, 96), np.int32)
        image = cv2.imread(str(sample.image_path))
        height, width = image.shape[:2]
        assert sorted((height, width)) == [64, 96]  # the longer side is 96: no resizing
        pixels = (image[..., ::-1] - np.array(PREPROCESSING.mean)) * PREPROCESSING.scale
        np.testing.assert_allclose(images[0, :height, :width], pixels, rtol=0, atol=1e-4)
        np.testing.assert_array_equal(labels[0, :height, :width], sample.read_mask())
        assert (labels[0, height:] == VOID).all()
        assert (labels[0, :, width:] == VOID).all()


def test_validation_stretches_pictures_to_the_deployed_size(voc_folder):
    samples = read_voc(voc_folder, "val")
    made = ValidationBatches(samples, PREPROCESSING, size=(64, 160), fit="stretch")
    for index, sample in enumerate(samples):
        images, labels = made[index]
        assert (images.shape, labels.shape) == ((1, 64, 160, 3), (1, 64, 160))
        assert_nearest(labels[0], sample.read_mask())
        rgb = images / PREPROCESSING.scale + PREPROCESSING.mean
        red_over_blue = rgb[..., 0] - rgb[..., 2]  # class 1 is painted red, 2 blue, the background grey
        assert np.median(red_over_blue[labels == 1]) > 100
        assert np.median(red_over_blue[labels == 2]) < -100
        assert abs(np.median(red_over_blue[labels == 0])) < 10


def assert_nearest(fitted: np.ndarray, mask: np.ndarray) -> None:
    """Each pixel is that of `mask` in which its centre lies; a centre between two pixels may take either."""
    places, certain = [], []
    for side, length in zip(fitted.shape, mask.shape, strict=True):
        twice = (2 * np.arange(side) + 1) * length  # the centre, in units of 1 / (2 * side) pixels of the mask
        places.append(twice // (2 * side))
        certain.append(twice % (2 * side) != 0)
    certain = np.logical_and.outer(*certain)
    assert certain.mean() > 0.4
    np.testing.assert_array_equal(fitted[certain], mask[np.ix_(*places)][certain])


@pytest.mark.parametrize("size", [(96, 64), (32, 160), (60, 90), (160, 160)])
@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (51, 77)])
def test_mask_is_fitted_by_the_pixel_in_which_each_centre_lies(shape, size):
    mask = np.random.default_rng(0).integers(0, 21, shape, np.uint8)
    stretched = fit_mask(mask, size, "stretch")
    assert (stretched.shape, stretched.dtype) == (size, np.uint8)
    assert_nearest(stretched, mask)
    height, width = letterbox_size(shape, size)
    fitted = fit_mask(mask, size, "letterbox")
    assert_nearest(fitted[:height, :width], mask)
    assert (fitted[height:] == VOID).all()
    assert (fitted[:, width:] == VOID).all()


def test_damaged_picture_is_an_error_and_not_a_grey_field(voc_folder, tmp_path):
    sample = read_voc(voc_folder, "train")[0]
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(sample.image_path.read_bytes()[:-200])
    made = TrainingBatches(
        [VocSample("cut", cut, sample.mask_path)], Augmentation(64), PREPROCESSING, batch_size=1, seed=0
    )
    with pytest.raises(Exception, match=r"cut\.jpg is truncated"):
        made[0]
