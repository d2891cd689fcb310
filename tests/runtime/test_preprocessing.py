"""Geometry outside the graph, against arithmetic done here: half-pixel bilinear by NumPy, integers for letterboxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnedge.runtime.preprocessing import LETTERBOX_FILL, Preprocessing, fit_frame, letterbox, letterbox_size

SIDES = st.integers(1, 3000)
SIZES = st.tuples(SIDES, SIDES)


def bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize with pixel centres at +0.5, edges repeated, in float64: one axis after the other."""
    out = image.astype(np.float64)
    for axis, target in enumerate(size):
        source = out.shape[axis]
        at = (np.arange(target) + 0.5) * source / target - 0.5
        out = np.apply_along_axis(lambda line, at=at, n=source: np.interp(at, np.arange(n), line), axis, out)
    return out


@pytest.fixture
def picture():
    return np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)


@pytest.mark.parametrize(("order", "expected"), [("bgr", [10.0, 40.0, 90.0]), ("rgb", [150.0, 40.0, 30.0])])
def test_mean_and_scale_are_in_the_networks_channel_order(order, expected):
    pixel = np.array([[[20, 40, 60]]], np.uint8)  # blue, green, red
    network = Preprocessing(order, (10.0, 20.0, 30.0), (1.0, 2.0, 3.0) if order == "bgr" else (3.0, 2.0, -3.0))
    result = network.apply(pixel)
    assert result.dtype == np.float32
    assert result.tolist() == [[expected]]


def test_a_batch_is_taken_as_it_is(picture):
    network = Preprocessing("rgb", (1.0, 2.0, 3.0), (1.0, 1.0, 1.0))
    assert (network.apply(np.stack([picture, picture]))[1] == network.apply(picture)).all()


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_frame_of_the_networks_size_is_left_alone(picture, fit, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)  # not even needed
    image, content = fit_frame(picture[:, ::-1], (40, 60), fit)
    assert content == (40, 60)
    assert image.flags.c_contiguous
    assert (image == picture[:, ::-1]).all()


@pytest.mark.parametrize("size", [(40, 90), (13, 60), (97, 31), (1, 1)])
def test_stretch_is_half_pixel_bilinear(picture, size):
    image, content = fit_frame(picture, size, "stretch")
    assert content == size
    assert image.dtype == np.uint8
    assert np.abs(image - bilinear(picture, size)).max() <= 1


@pytest.mark.parametrize(
    ("frame", "size", "content"),
    [
        ((40, 60), (64, 64), (43, 64)),  # 64 · 40 / 60 = 42.67
        ((60, 40), (64, 64), (64, 43)),
        ((40, 60), (20, 90), (20, 30)),
        ((1, 3000), (64, 64), (1, 64)),  # 0.02 rows are one
    ],
)
def test_letterbox_keeps_the_aspect_at_the_top_left(frame, size, content):
    picture = np.random.default_rng(2).integers(0, 100, (*frame, 3), np.uint8)
    image, taken = fit_frame(picture, size, "letterbox")
    assert taken == content
    assert image.shape == (*size, 3)
    assert np.abs(image[: content[0], : content[1]] - bilinear(picture, content)).max() <= 1
    outside = np.ones(size, bool)
    outside[: content[0], : content[1]] = False
    assert (image[outside] == LETTERBOX_FILL).all()


@given(frame=SIZES, target=SIZES)
def test_letterbox_fills_one_side_and_rounds_the_other(frame, target):
    height, width = letterbox_size(frame, target)
    assert 1 <= height <= target[0]
    assert 1 <= width <= target[1]
    assert height == target[0] or width == target[1]
    assert abs(height - max(1, min(target[0], frame[0] * target[1] / frame[1]))) <= 0.5 + 1e-9 or height == target[0]
    assert abs(width - max(1, min(target[1], frame[1] * target[0] / frame[0]))) <= 0.5 + 1e-9 or width == target[1]


def test_letterboxed_mask_holds_no_class_between_two():
    mask = np.zeros((9, 13), np.uint8)
    mask[4:] = 200
    out = letterbox(mask, (30, 30), fill=255, nearest=True)
    assert out.shape == (30, 30)
    assert set(np.unique(out)) == {0, 200, 255}


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("view", ["mirrored", "sliced", "turned", "readonly", "rgb"])
def test_any_memory_layout_gives_the_same_picture(picture, fit, view):
    views = {
        "mirrored": picture[:, ::-1],
        "sliced": picture[::2, 1::3],
        "turned": picture.transpose(1, 0, 2),
        "readonly": np.frombuffer(picture.tobytes(), np.uint8).reshape(picture.shape),
        "rgb": picture[..., ::-1],
    }
    plain = views[view].copy()
    for given_frame in (views[view], plain):
        image, _ = fit_frame(given_frame, (64, 64), fit)
        assert (image == fit_frame(plain, (64, 64), fit)[0]).all()
    assert (views[view] == plain).all()
