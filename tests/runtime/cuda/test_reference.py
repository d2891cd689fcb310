"""The references of the kernels against OpenCV, which does the same work where there is no GPU."""

from __future__ import annotations

import platform

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnedge.runtime.cuda import reference
from fcnedge.runtime.overlay import blend
from fcnedge.runtime.palette import VOID, full_palette, voc_palette
from fcnedge.runtime.preprocessing import LETTERBOX_FILL, fit_frame

on_x86 = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="OpenCV for other processors may resize and blend by code of their makers"
)
sizes = st.tuples(st.integers(1, 90), st.integers(1, 90))
fits = st.sampled_from(["stretch", "letterbox"])


def make_frame(size: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


@given(frame_size=sizes, size=sizes, fit=fits, seed=st.integers(0, 2**16))
def test_preprocess_is_within_one_grey_level_of_fit_frame(frame_size, size, fit, seed):
    frame = make_frame(frame_size, seed)
    image = reference.preprocess(frame, size, fit)
    assert image.shape == (1, *size, 3)
    assert np.abs(image[0].astype(int) - fit_frame(frame, size, fit)[0]).max() <= 1


@on_x86
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize(
    ("frame_size", "size"),
    [
        ((720, 1280), (320, 320)),
        ((1080, 1920), (320, 512)),
        ((480, 640), (240, 320)),
        ((375, 500), (512, 512)),
        ((1, 16000), (1, 5000)),
        ((16000, 1), (4999, 1)),
    ],
)
def test_preprocess_equals_fit_frame(frame_size, size, fit):
    frame = make_frame(frame_size, seed=1)
    np.testing.assert_array_equal(reference.preprocess(frame, size, fit)[0], fit_frame(frame, size, fit)[0])


def test_letterbox_leaves_grey_below_and_a_frame_of_the_networks_size_as_it_is():
    frame = make_frame((20, 40), seed=2)
    assert (reference.preprocess(frame, (40, 40), "letterbox")[0, 20:] == LETTERBOX_FILL).all()
    for fit in ("stretch", "letterbox"):
        np.testing.assert_array_equal(reference.preprocess(frame, (20, 40), fit)[0], frame)


@on_x86
@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.25, 0.45, 0.5, 0.55, 0.7, 1.0, 1 / 3])
@pytest.mark.parametrize("width", [256, 251])
def test_overlay_equals_blend_for_every_grey_level_on_every_other(alpha, width):
    frame = np.repeat(np.arange(256, dtype=np.uint8), width).reshape(256, width, 1).repeat(3, axis=2)
    labels = np.tile(np.arange(width, dtype=np.uint8), (256, 1))
    labels[labels == VOID] = 1
    palette = np.arange(256, dtype=np.uint8)[:, None] + np.uint8([0, 85, 170])  # each colour is every level somewhere
    painted = np.ones(256, np.uint8)
    painted[[VOID]] = 0
    expected = blend(frame, labels, palette, alpha=alpha, ignore=())
    mixed = reference.overlay(frame, labels, np.ascontiguousarray(full_palette(palette)[:, ::-1]), painted, alpha)
    np.testing.assert_array_equal(mixed, expected)


def test_ties_go_to_the_even_grey_level():
    frame, labels = np.uint8([[[1, 2, 3]]]), np.uint8([[1]])
    palette, painted = np.zeros((256, 3), np.uint8), np.ones(256, np.uint8)
    assert reference.overlay(frame, labels, palette, painted, 0.5).tolist() == [[[0, 1, 2]]]  # 0.5, 1, 1.5


def test_void_and_ignored_classes_keep_the_cameras_pixels():
    frame, labels = make_frame((3, 4), seed=3), np.uint8([[0, 1, 2, VOID]] * 3)
    painted = np.full(256, 1, np.uint8)
    painted[[0, VOID]] = 0
    mixed = reference.overlay(frame, labels, np.ascontiguousarray(voc_palette()[:, ::-1]), painted, 1.0)
    np.testing.assert_array_equal(mixed[:, [0, 3]], frame[:, [0, 3]])
    assert mixed[0, 1].tolist() == voc_palette()[1, ::-1].tolist()
