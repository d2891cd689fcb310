"""Picture and mask go through the same window, scale and flip: checked on pictures painted with their own class ids."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnedge.build_engine.training.augmentation import Augmentation
from fcnedge.runtime.preprocessing import LETTERBOX_FILL, fit_frame

VOID = 255
PLAIN = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "grey_probability": 0.0}
STILL = {"min_zoom": 1.0, "max_zoom": 1.0, "aspect": 1.0}
STEP = 10
"""Grey levels between neighbouring ids, far from LETTERBOX_FILL."""


def painted(height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(picture, mask): large patches of ids 0 to 9, the picture's grey level is the id times STEP."""
    rows, columns = np.indices((height, width)) // 12
    mask = (np.random.default_rng(seed).integers(0, 10, (100, 100), np.uint8))[rows, columns]
    return np.repeat((mask * STEP)[..., None], 3, axis=2), mask


def zoomed(zoom: float, aspect: float = 1.0) -> dict[str, float]:
    return {"min_zoom": zoom, "max_zoom": zoom, "aspect": aspect}


def away_from_borders(mask: np.ndarray) -> np.ndarray:
    """Where all pixels within three have the same id (or void): nearest and linear interpolation agree there."""
    kernel = np.ones((7, 7), np.uint8)
    safe = cv2.erode(mask, kernel) == cv2.dilate(mask, kernel)
    inner = np.zeros_like(safe)
    inner[3:-3, 3:-3] = True  # what lies beyond the crop is not known
    return safe & inner


@given(
    height=st.integers(60, 150),
    width=st.integers(60, 150),
    crop=st.sampled_from([32, 64, 96]),
    fit=st.sampled_from(["stretch", "letterbox"]),
    deployed_aspect=st.sampled_from([0.6, 1.0, 1.6]),
    seed=st.integers(0, 1 << 32),
)
@settings(max_examples=150, deadline=None)
def test_mask_follows_the_picture(height, width, crop, fit, deployed_aspect, seed):
    picture, mask = painted(height, width, seed)
    augmentation = Augmentation(crop, fit, deployed_aspect=deployed_aspect, **PLAIN)
    image, labels = augmentation(picture, mask, np.random.default_rng(seed))
    assert (image.shape, image.dtype) == ((crop, crop, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((crop, crop), np.uint8)
    outside, safe = labels == VOID, away_from_borders(labels)
    assert (image[safe & outside] == LETTERBOX_FILL).all()
    safe &= ~outside
    np.testing.assert_array_equal(image[safe], np.repeat(labels[safe][:, None] * STEP, 3, axis=1))


def test_mask_follows_the_picture_somewhere():
    """The test above looks at enough pixels: on large pictures many are away from borders."""
    picture, mask = painted(160, 160, 0)
    _, labels = Augmentation(96, **PLAIN, **zoomed(1.7))(picture, mask, np.random.default_rng(0))
    assert (away_from_borders(labels) & (labels != VOID)).mean() > 0.2
    _, labels = Augmentation(96, **PLAIN, **zoomed(0.5))(picture, mask, np.random.default_rng(0))
    assert (away_from_borders(labels) & (labels == VOID)).mean() > 0.2


@pytest.mark.parametrize("zoom", [0.31, 0.5, 0.77, 1.0, 1.5, 2.9])
@pytest.mark.parametrize("crop", [32, 192])
@pytest.mark.parametrize("axis", [0, 1])
def test_border_of_the_mask_is_the_border_in_the_picture(zoom, crop, axis):
    """To the pixel: linear interpolation crosses the middle grey where the nearest pixel changes its class."""
    for border in range(20, 40):
        mask = np.zeros((60, 60), np.uint8)
        np.moveaxis(mask, axis, 0)[border:] = 1
        picture = np.repeat(27 + mask[..., None] * 200, 3, axis=2)  # LETTERBOX_FILL lies half way, and pulls to no side
        exact = Augmentation(crop, **zoomed(zoom), **PLAIN)
        image, labels = exact(picture, mask, np.random.default_rng(border))
        clear = (labels != VOID) & (np.abs(image[..., 0].astype(int) - LETTERBOX_FILL) > 1)
        np.testing.assert_array_equal(image[..., 0][clear] > LETTERBOX_FILL, labels[clear] == 1)
        assert clear.sum() > 0.95 * (labels != VOID).sum() - 200


@pytest.mark.parametrize("crop", [32, 192])
def test_void_begins_where_the_picture_ends(crop):
    """To the pixel, along each side: where the linear mix of white picture and grey surroundings is half and half."""
    picture, mask = np.full((60, 60, 3), 255, np.uint8), np.ones((60, 60), np.uint8)
    half = (255 + LETTERBOX_FILL) / 2
    for seed in range(20):
        image, labels = Augmentation(crop, **zoomed(0.6), **PLAIN)(picture, mask, np.random.default_rng(seed))
        rows, columns = ((labels == 1).any(axis).nonzero()[0] for axis in (1, 0))
        middle_row, middle_column = rows[len(rows) // 2], columns[len(columns) // 2]
        for line, truth in (
            (image[middle_row, :, 0], labels[middle_row]),
            (image[:, middle_column, 0], labels.T[middle_column]),
        ):
            clear = np.abs(line - half) > 1
            np.testing.assert_array_equal(line[clear] > half, truth[clear] == 1)
            assert clear.sum() >= crop - 2


@given(height=st.integers(1, 12), width=st.integers(1, 12), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_pictures_of_a_few_pixels_are_augmented_too(height, width, seed):
    picture, mask = np.full((height, width, 3), 7, np.uint8), np.ones((height, width), np.uint8)
    image, labels = Augmentation(64, **PLAIN)(picture, mask, np.random.default_rng(seed))
    assert set(np.unique(labels)) <= {1, VOID}
    # A few pixels are blown up to sixty: most of them are mixed with the grey around, but less than the void ones.
    assert (image[labels == 1] < LETTERBOX_FILL - 20).all()
    assert (image[labels == VOID] >= (7 + LETTERBOX_FILL) // 2).all()


def test_mask_is_never_interpolated():
    mask = np.zeros((60, 80), np.uint8)
    mask[:, 40:] = 9
    for seed in range(30):
        _, labels = Augmentation(64)(np.zeros((60, 80, 3), np.uint8), mask, np.random.default_rng(seed))
        assert set(np.unique(labels)) <= {0, 9, VOID}


def test_void_of_the_mask_stays_void():
    _, labels = Augmentation(64, **STILL)(
        np.zeros((64, 64, 3), np.uint8), np.full((64, 64), VOID, np.uint8), np.random.default_rng(0)
    )
    assert (labels == VOID).all()


def test_picture_smaller_than_the_window_lies_whole_inside_void_and_grey():
    picture, mask = np.zeros((20, 40, 3), np.uint8), np.ones((20, 40), np.uint8)
    places = set()
    for seed in range(40):
        augmentation = Augmentation(80, "letterbox", **zoomed(0.5), **PLAIN)  # 80 pixels of the frame become 80
        image, labels = augmentation(picture, mask, np.random.default_rng(seed))
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


def test_picture_larger_than_the_window_fills_it_from_anywhere():
    mask = np.arange(200, dtype=np.uint8).reshape(10, 20).repeat(16, 0).repeat(16, 1)
    corners = set()
    for seed in range(60):
        augmentation = Augmentation(32, "letterbox", **zoomed(10))  # 32 pixels of the frame's 320 become 32
        _, labels = augmentation(np.zeros((160, 320, 3), np.uint8), mask, np.random.default_rng(seed))
        assert (labels != VOID).all()
        corners.add(int(labels[0, 0]))
    assert len(corners) > 40


def test_window_reaches_both_ends_of_the_picture():
    mask = np.tile(np.arange(34, dtype=np.uint8), (34, 1))
    lefts = set()
    for seed in range(60):
        augmentation = Augmentation(32, **zoomed(34 / 32))
        _, labels = augmentation(np.zeros((34, 34, 3), np.uint8), mask, np.random.default_rng(seed))
        lefts.add(int(min(labels[0, 0], labels[0, -1])))
    assert lefts == {0, 1, 2}


def test_picture_reaches_both_ends_of_the_window():
    picture, mask = np.zeros((30, 30, 3), np.uint8), np.ones((30, 30), np.uint8)
    tops = set()
    for seed in range(60):
        _, labels = Augmentation(32, **zoomed(30 / 32))(picture, mask, np.random.default_rng(seed))
        assert (labels == 1).sum() == 30 * 30
        tops.add(int((labels == 1).any(1).argmax()))
    assert tops == {0, 1, 2}


def test_half_of_the_pictures_are_flipped():
    mask = np.tile(np.arange(32, dtype=np.uint8), (32, 1))
    flipped = 0
    for seed in range(200):
        picture = np.repeat(mask[..., None], 3, axis=2)
        image, labels = Augmentation(32, **STILL, **PLAIN)(picture, mask, np.random.default_rng(seed))
        np.testing.assert_array_equal(image[..., 0], labels)
        flipped += int(labels[0, 0] > labels[0, -1])
    assert 70 < flipped < 130


@pytest.mark.parametrize("long_side", [100, 200, 800])
def test_zoom_below_1_is_the_share_of_the_window_that_the_picture_takes(long_side):
    """Whatever the picture's resolution and shape."""
    mask = np.ones((long_side // 2, long_side), np.uint8)
    picture = np.zeros((*mask.shape, 3), np.uint8)
    shares = []
    for seed in range(60):
        augmentation = Augmentation(200, min_zoom=0.5, max_zoom=1.0, aspect=1.0)
        _, labels = augmentation(picture, mask, np.random.default_rng(seed))
        inside = labels == 1
        shares.append(inside.any(0).mean())
        assert inside.any(1).mean() == pytest.approx(shares[-1], abs=0.02)
    assert 0.49 < min(shares) < 0.55
    assert 0.95 < max(shares) <= 1.0


@pytest.mark.parametrize("long_side", [200, 800])
@pytest.mark.parametrize("axis", [0, 1])
def test_zoom_above_1_shows_its_inverse_of_the_picture(long_side, axis):
    """Whatever the picture's resolution and shape: the mask counts 200 steps across it."""
    mask = np.empty((long_side // 2, long_side), np.uint8)
    np.moveaxis(mask, axis, -1)[...] = np.linspace(0, 200, mask.shape[axis])
    picture = np.zeros((*mask.shape, 3), np.uint8)
    shown = []
    for seed in range(60):
        augmentation = Augmentation(200, min_zoom=1.0, max_zoom=4.0, aspect=1.0)
        _, labels = augmentation(picture, mask, np.random.default_rng(seed))
        assert (labels != VOID).all()
        shown.append(np.ptp(labels) / 200)
    assert 0.23 < min(shown) < 0.3
    assert 0.85 < max(shown) <= 1.0


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("size", [(384, 384), (192, 384), (384, 288)])
@pytest.mark.parametrize("shape", [(60, 80), (80, 60), (40, 120)])
def test_pictures_have_the_proportions_that_they_have_when_deployed(shape, size, fit):
    """A window of zoom z shows a frame with z times its sides, as `fit_frame` brings it to the network's size."""
    picture, mask = np.zeros((*shape, 3), np.uint8), np.ones(shape, np.uint8)
    _, (height, width) = fit_frame(picture, size, fit)
    augmentation = Augmentation(400, fit, **zoomed(0.5), deployed_aspect=size[1] / size[0])
    for seed in range(5):
        _, labels = augmentation(picture, mask, np.random.default_rng(seed))
        rows, columns = ((labels == 1).any(axis).sum() for axis in (1, 0))
        assert columns / rows == pytest.approx(width / height, rel=0.05)
        assert rows * columns / 400**2 == pytest.approx(0.5**2 * height * width / (size[0] * size[1]), rel=0.05)


def test_aspect_varies_within_its_bound():
    mask = np.ones((100, 100), np.uint8)
    ratios = []
    for seed in range(60):
        _, labels = Augmentation(256, **zoomed(0.5, aspect=1.3))(
            np.zeros((100, 100, 3), np.uint8), mask, np.random.default_rng(seed)
        )
        ratios.append((labels == 1).any(0).sum() / (labels == 1).any(1).sum())
    assert 1 / 1.33 < min(ratios) < 0.85
    assert 1.18 < max(ratios) < 1.33


def test_one_seed_gives_one_result():
    random = np.random.default_rng(5)
    picture, mask = random.integers(0, 256, (70, 90, 3), np.uint8), random.integers(0, 21, (70, 90), np.uint8)
    kept = picture.copy(), mask.copy()
    first, again, other = (Augmentation(64)(picture, mask, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
    np.testing.assert_array_equal(picture, kept[0])  # the caller's own arrays are left alone
    np.testing.assert_array_equal(mask, kept[1])


def test_colours_vary_and_the_mask_does_not_care():
    random = np.random.default_rng(5)
    picture, mask = random.integers(0, 256, (64, 64, 3), np.uint8), random.integers(0, 21, (64, 64), np.uint8)
    strong = Augmentation(64, **STILL)
    plain = Augmentation(64, **STILL, **PLAIN)
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
    image, _ = Augmentation(64, **STILL, **options)(picture, np.zeros((64, 64), np.uint8), np.random.default_rng(0))
    assert (image == image[..., :1]).all()
    expected = np.array([0.114, 0.587, 0.299])  # BT.601, blue first
    grey = (picture @ expected)[:, ::-1] if np.abs(image[..., 0] - picture @ expected).max() > 2 else picture @ expected
    assert np.abs(image[..., 0] - grey).max() <= 1
