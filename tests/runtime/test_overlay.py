"""Blending and legend, against a straightforward float64 computation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.overlay import blend, class_shares, colorize, legend
from fcnedge.runtime.palette import VOC_CLASSES, voc_palette

PALETTE = voc_palette(21)


def reference_blend(frame, mask, palette, alpha, ignore):
    out = frame.astype(np.float64)
    for class_id in range(len(palette)):
        if class_id not in ignore and class_id != 255:
            bgr = palette[class_id][::-1].astype(np.float64)
            where = mask == class_id
            out[where] = frame[where] * (1 - alpha) + bgr * alpha
    return out


@st.composite
def scenes(draw):
    height, width = draw(st.integers(1, 23)), draw(st.integers(1, 23))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mask = random.choice(np.array([*range(21), 255], np.uint8), (height, width))
    return random.integers(0, 256, (height, width, 3), np.uint8), mask


@given(scenes(), st.floats(0, 1), st.sets(st.integers(0, 20)))
def test_blend_is_within_a_rounding_of_float64(scene, alpha, ignore):
    frame, mask = scene
    untouched = frame.copy()
    got = blend(frame, mask, PALETTE, alpha=alpha, ignore=ignore)
    expected = reference_blend(frame, mask, PALETTE, alpha, ignore)
    assert got.dtype == np.uint8
    assert np.abs(got - expected).max() <= 0.501
    kept = np.isin(mask, [*ignore, 255])
    assert (got[kept] == frame[kept]).all()
    assert (frame == untouched).all()


@pytest.mark.parametrize("view", [np.s_[::2, ::3], np.s_[::-1, ::-1], np.s_[3:, 5:-2]])
def test_blend_takes_views_of_larger_pictures(view):
    random = np.random.default_rng(1)
    frame = random.integers(0, 256, (30, 40, 3), np.uint8)[view]
    mask = random.integers(0, 21, (30, 40), np.uint8)[view]
    expected = reference_blend(frame, mask, PALETTE, 0.3, (0,))
    assert np.abs(blend(frame, mask, PALETTE, alpha=0.3) - expected).max() <= 0.501


def test_read_only_frames_are_blended():
    frame = np.full((4, 4, 3), 100, np.uint8)
    mask = np.full((4, 4), 15, np.uint8)
    frame.flags.writeable = mask.flags.writeable = False
    assert tuple(blend(frame, mask, PALETTE, alpha=1.0)[0, 0]) == (128, 128, 192)  # person in BGR


def test_background_and_void_keep_the_cameras_pixels_by_default():
    frame = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    mask = np.array([[0, 255, 0], [255, 0, 255]], np.uint8)
    assert (blend(frame, mask, PALETTE, alpha=1.0) == frame).all()


@pytest.mark.parametrize("alpha", [-0.1, 1.1, 150, float("nan")])
def test_alpha_outside_its_range_is_a_users_error(alpha):
    with pytest.raises(UserError, match="between 0"):
        blend(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8), PALETTE, alpha=alpha)


@pytest.mark.parametrize(
    ("frame", "mask", "message"),
    [
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint8), "must agree"),
        (np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8), "a frame is"),
        (np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), "a frame is"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.int64), "a mask is"),
        (np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 21, np.uint8), "class 21.*21 colours"),
    ],
)
def test_wrong_arrays_are_refused_with_what_was_got(frame, mask, message):
    with pytest.raises(ValueError, match=message):
        blend(frame, mask, PALETTE)


def test_colorize_looks_each_pixel_up_in_bgr():
    mask = np.array([[*range(21), 255]], np.uint8)
    picture = colorize(mask, PALETTE)
    assert (picture[0, :21, ::-1] == PALETTE).all()
    assert tuple(picture[0, 21, ::-1]) == (224, 224, 192)


def test_ignored_classes_are_black_alone():
    mask = np.array([[0, 15, 8, 255]], np.uint8)
    picture = colorize(mask, PALETTE, ignore=(15, 255))
    assert picture[0, [1, 3]].tolist() == [[0, 0, 0]] * 2
    assert (picture[0, [0, 2], ::-1] == PALETTE[[0, 8]]).all()


def test_shares_of_views_and_of_every_class():
    mask = np.random.default_rng(2).integers(0, 256, (64, 200), np.uint8)[::-2, 7::3]
    ids, counts = np.unique(mask, return_counts=True)
    assert class_shares(mask) == dict(zip(ids.tolist(), (counts / mask.size).tolist(), strict=True))


def test_shares_count_pixels_largest_first():
    mask = np.array([[8, 8, 8, 15], [8, 15, 255, 0]], np.uint8)
    assert class_shares(mask) == {8: 0.5, 15: 0.25, 0: 0.125, 255: 0.125}
    assert list(class_shares(mask)) == [8, 15, 0, 255]


@pytest.mark.parametrize(("width", "height"), [(240, 180), (640, 480), (1920, 1080)])
def test_legend_shows_the_colours_present_and_no_other(width, height):
    frame = np.full((height, width, 3), 128, np.uint8)
    drawn = legend(frame, {15: 0.3, 8: 0.2, 255: 0.5}, VOC_CLASSES, PALETTE)
    assert drawn.shape == frame.shape
    assert (frame == 128).all()
    colours = {tuple(int(v) for v in colour) for colour in drawn.reshape(-1, 3)[:, ::-1]}
    assert {tuple(int(v) for v in PALETTE[15]), tuple(int(v) for v in PALETTE[8])} <= colours
    assert tuple(int(v) for v in PALETTE[12]) not in colours  # dog is not there


@pytest.mark.parametrize(("width", "height"), [(240, 180), (320, 240), (1920, 1080), (60, 40)])
def test_legend_of_all_classes_leaves_most_of_the_picture_alone(width, height):
    frame = np.full((height, width, 3), 128, np.uint8)
    drawn = legend(frame, dict.fromkeys(range(21), 1 / 21), VOC_CLASSES, PALETTE)
    changed_rows = np.flatnonzero((drawn != 128).any(axis=(1, 2)))
    assert 0 < len(changed_rows) <= height * 0.4
    assert changed_rows[-1] == height - 1  # along the bottom


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (16, 16)])
def test_legend_on_tiny_frames_keeps_their_size(size):
    frame = np.zeros((*size, 3), np.uint8)
    assert legend(frame, {15: 1.0}, VOC_CLASSES, PALETTE).shape == frame.shape


def test_legend_of_nothing_is_the_frame():
    frame = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    assert (legend(frame, {255: 1.0}, VOC_CLASSES, PALETTE) == frame).all()


def test_legend_names_a_class_without_a_name_by_its_number():
    frame = np.zeros((100, 200, 3), np.uint8)
    assert (legend(frame, {3: 1.0}, ("background",), PALETTE) != frame).any()
