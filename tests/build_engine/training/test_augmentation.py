"""Picture and mask go through the same scale, crop and flip: checked on pictures painted with their own class ids."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnedge.build_engine.training.augmentation import Augmentation
from fcnedge.runtime.preprocessing import LETTERBOX_FILL

VOID = 255
PLAIN = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "grey_probability": 0.0}
STILL = {"min_scale": 1.0, "max_scale": 1.0, "aspect": 1.0}
STEP = 10
"""Grey levels between neighbouring ids, far from LETTERBOX_FILL."""


def painted(height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(picture, mask): large patches of ids 0 to 9, the picture's grey level is the id times STEP."""
    rows, columns = np.indices((height, width)) // 12
    mask = (np.random.default_rng(seed).integers(0, 10, (100, 100), np.uint8))[rows, columns]
    return np.repeat((mask * STEP)[..., None], 3, axis=2), mask


def away_from_borders(mask: np.ndarray) -> np.ndarray:
    """Where all pixels within three have the same id: nearest and linear interpolation agree there."""
    kernel = np.ones((7, 7), np.uint8)
    safe = cv2.erode(mask, kernel) == cv2.dilate(mask, kernel)
    inner = np.zeros_like(safe)
    inner[3:-3, 3:-3] = True  # what lies beyond the crop is not known
    return safe & inner


@given(
    height=st.integers(60, 150),
    width=st.integers(60, 150),
    crop=st.sampled_from([32, 64, 96]),
    size=st.sampled_from([32, 64, 96]),
    seed=st.integers(0, 1 << 32),
)
@settings(max_examples=150, deadline=None)
def test_mask_follows_the_picture(height, width, crop, size, seed):
    picture, mask = painted(height, width, seed)
    image, labels = Augmentation(size, crop, **PLAIN)(picture, mask, np.random.default_rng(seed))
    assert (image.shape, image.dtype) == ((crop, crop, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((crop, crop), np.uint8)
    outside = labels == VOID
    assert (image[outside] == LETTERBOX_FILL).all()
    safe = away_from_borders(labels) & ~outside
    np.testing.assert_array_equal(image[safe], np.repeat(labels[safe][:, None] * STEP, 3, axis=1))


def test_mask_follows_the_picture_somewhere():
    """The test above looks at enough pixels: on large pictures many are away from borders."""
    picture, mask = painted(160, 160, 0)
    _, labels = Augmentation(160, 96, **PLAIN, **STILL)(picture, mask, np.random.default_rng(0))
    assert (away_from_borders(labels) & (labels != VOID)).mean() > 0.2


@pytest.mark.parametrize("scale", [0.31, 0.5, 0.77, 1.0, 1.5, 2.9])
@pytest.mark.parametrize("axis", [0, 1])
def test_border_of_the_mask_is_the_border_in_the_picture(scale, axis):
    """To the pixel: linear interpolation crosses the middle grey where the nearest pixel changes its class."""
    for border in range(20, 40):
        mask = np.zeros((60, 60), np.uint8)
        np.moveaxis(mask, axis, 0)[border:] = 1
        picture = np.repeat(mask[..., None] * 200, 3, axis=2)
        exact = Augmentation(60, 192, min_scale=scale, max_scale=scale, aspect=1.0, **PLAIN)
        image, labels = exact(picture, mask, np.random.default_rng(border))
        clear = (labels != VOID) & (np.abs(image[..., 0].astype(int) - 100) > 1)
        np.testing.assert_array_equal(image[..., 0][clear] > 100, labels[clear] == 1)
        assert clear.sum() > 0.95 * (labels != VOID).sum() - 200


@given(height=st.integers(1, 12), width=st.integers(1, 12), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_pictures_of_a_few_pixels_are_augmented_too(height, width, seed):
    picture, mask = np.full((height, width, 3), 7, np.uint8), np.ones((height, width), np.uint8)
    image, labels = Augmentation(96, 64, **PLAIN)(picture, mask, np.random.default_rng(seed))
    assert (image[labels == 1] == 7).all()
    assert set(np.unique(labels)) <= {1, VOID}


def test_mask_is_never_interpolated():
    mask = np.zeros((60, 80), np.uint8)
    mask[:, 40:] = 9
    for seed in range(30):
        _, labels = Augmentation(96, 64)(np.zeros((60, 80, 3), np.uint8), mask, np.random.default_rng(seed))
        assert set(np.unique(labels)) <= {0, 9, VOID}


def test_void_of_the_mask_stays_void():
    _, labels = Augmentation(64, 64, **STILL)(
        np.zeros((64, 64, 3), np.uint8), np.full((64, 64), VOID, np.uint8), np.random.default_rng(0)
    )
    assert (labels == VOID).all()


def test_picture_smaller_than_the_crop_lies_whole_inside_void_and_grey():
    picture, mask = np.zeros((20, 40, 3), np.uint8), np.ones((20, 40), np.uint8)
    places = set()
    for seed in range(40):
        image, labels = Augmentation(40, 64, **STILL, **PLAIN)(picture, mask, np.random.default_rng(seed))
        inside = labels == 1
        assert inside.sum() == 20 * 40
        assert (labels[~inside] == VOID).all()
        assert (image[~inside] == LETTERBOX_FILL).all()
        assert (image[inside] == 0).all()
        rows, columns = inside.any(1).nonzero()[0], inside.any(0).nonzero()[0]
        assert np.ptp(rows) == 19  # one upright rectangle
        assert np.ptp(columns) == 39
        places.add((rows[0], columns[0]))
    assert len(places) > 20


def test_picture_larger_than_the_crop_fills_it_from_anywhere():
    mask = np.arange(200, dtype=np.uint8).reshape(10, 20).repeat(16, 0).repeat(16, 1)
    corners = set()
    for seed in range(60):
        _, labels = Augmentation(320, 32, **STILL)(np.zeros((160, 320, 3), np.uint8), mask, np.random.default_rng(seed))
        assert (labels != VOID).all()
        corners.add(int(labels[0, 0]))
    assert len(corners) > 40


def test_window_reaches_both_ends_of_the_picture():
    mask = np.tile(np.arange(34, dtype=np.uint8), (34, 1))
    lefts = set()
    for seed in range(60):
        _, labels = Augmentation(34, 32, **STILL)(np.zeros((34, 34, 3), np.uint8), mask, np.random.default_rng(seed))
        lefts.add(int(min(labels[0, 0], labels[0, -1])))
    assert lefts == {0, 1, 2}


def test_half_of_the_pictures_are_flipped():
    mask = np.tile(np.arange(32, dtype=np.uint8), (32, 1))
    flipped = 0
    for seed in range(200):
        picture = np.repeat(mask[..., None], 3, axis=2)
        image, labels = Augmentation(32, 32, **STILL, **PLAIN)(picture, mask, np.random.default_rng(seed))
        np.testing.assert_array_equal(image[..., 0], labels)
        flipped += int(labels[0, 0] > labels[0, -1])
    assert 70 < flipped < 130


@pytest.mark.parametrize("long_side", [50, 100, 400])
def test_scale_is_relative_to_the_longer_side(long_side):
    """A picture of any resolution arrives at half to one and a half times the size that is deployed."""
    mask = np.ones((long_side // 2, long_side), np.uint8)
    picture = np.zeros((*mask.shape, 3), np.uint8)
    widths = []
    for seed in range(60):
        _, labels = Augmentation(100, 256, aspect=1.0)(picture, mask, np.random.default_rng(seed))
        inside = labels == 1
        widths.append(int(inside.any(0).sum()))
        assert inside.any(1).sum() == pytest.approx(widths[-1] / 2, abs=1)
    assert 50 <= min(widths) < 60
    assert 140 < max(widths) <= 150


def test_aspect_varies_within_its_bound():
    mask = np.ones((100, 100), np.uint8)
    ratios = []
    for seed in range(60):
        _, labels = Augmentation(100, 256, min_scale=1.0, max_scale=1.0, aspect=1.3)(
            np.zeros((100, 100, 3), np.uint8), mask, np.random.default_rng(seed)
        )
        ratios.append((labels == 1).any(0).sum() / (labels == 1).any(1).sum())
    assert 1 / 1.33 < min(ratios) < 0.85
    assert 1.18 < max(ratios) < 1.33


def test_one_seed_gives_one_result():
    random = np.random.default_rng(5)
    picture, mask = random.integers(0, 256, (70, 90, 3), np.uint8), random.integers(0, 21, (70, 90), np.uint8)
    kept = picture.copy(), mask.copy()
    first, again, other = (Augmentation(96, 64)(picture, mask, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
    np.testing.assert_array_equal(picture, kept[0])  # the caller's own arrays are left alone
    np.testing.assert_array_equal(mask, kept[1])


def test_colours_vary_and_the_mask_does_not_care():
    random = np.random.default_rng(5)
    picture, mask = random.integers(0, 256, (64, 64, 3), np.uint8), random.integers(0, 21, (64, 64), np.uint8)
    strong = Augmentation(64, 64, **STILL)
    plain = Augmentation(64, 64, **STILL, **PLAIN)
    means = set()
    for seed in range(8):
        image, labels = strong(picture, mask, np.random.default_rng(seed))
        plain_image, plain_labels = plain(picture, mask, np.random.default_rng(seed))
        np.testing.assert_array_equal(labels, plain_labels)
        assert not np.array_equal(image, plain_image)
        means.add(round(float(image.mean()), 1))
    assert len(means) == 8


def test_grey_pictures_have_three_equal_channels():
    picture = np.random.default_rng(5).integers(0, 256, (64, 64, 3), np.uint8)
    options = PLAIN | {"grey_probability": 1.0}
    image, _ = Augmentation(64, 64, **STILL, **options)(picture, np.zeros((64, 64), np.uint8), np.random.default_rng(0))
    assert (image == image[..., :1]).all()
    expected = np.array([0.114, 0.587, 0.299])  # BT.601, blue first
    grey = (picture @ expected)[:, ::-1] if np.abs(image[..., 0] - picture @ expected).max() > 2 else picture @ expected
    assert np.abs(image[..., 0] - grey).max() <= 1
