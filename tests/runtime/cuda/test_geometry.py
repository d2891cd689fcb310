"""Blocks, grids and numbers of the kernels: what is refused, and that nothing overflows or goes unwritten."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnedge.runtime.cuda.geometry import labels_launch, overlay_launch, preprocess_launch
from fcnedge.runtime.errors import BackendError, UserError
from fcnedge.runtime.preprocessing import fit_frame

LARGEST_BLOCK, LARGEST_GRID = 1024, (2**31 - 1, 65535, 65535)  # CUDA programming guide, compute capabilities
sides = st.one_of(st.integers(1, 100), st.integers(1, 16384), st.just(16384))


def assert_startable(launch):
    assert math.prod(launch.block) <= LARGEST_BLOCK
    assert all(1 <= blocks <= most for blocks, most in zip(launch.grid, LARGEST_GRID, strict=True))


@given(
    size=st.tuples(sides, sides),
    frame_size=st.tuples(sides, sides),
    fit=st.sampled_from(["stretch", "letterbox"]),
    stride=st.sampled_from([1, 2, 3, 8, 32, 1000, 1024]),
    halves=st.tuples(st.integers(-8192, 8192), st.integers(-8192, 8192)),
)
def test_no_number_of_a_kernel_passes_31_bits(manifest_of, size, frame_size, fit, stride, halves):
    size = max(size[0], stride), max(size[1], stride)
    manifest = manifest_of(size, fit, stride=stride, offset=(halves[0] / 2, halves[1] / 2))
    for launch in (preprocess_launch(manifest, frame_size), overlay_launch(frame_size, 0.5)):
        assert_startable(launch)
    launch = labels_launch(manifest, frame_size, np.float16)
    assert_startable(launch)
    _, _, *numbers = (int(value) for value in launch.arguments)
    for points, pixels, cell, step, first, denominator in (numbers[:6], numbers[6:]):
        assert abs(first) + step * pixels < 2**31  # position of a pixel
        assert (points + 1) * denominator + abs(first) < 2**31  # position of a grid point, in `first_pixel`
        assert -1 <= cell < points
    rows, columns = fit_size(manifest, frame_size)
    assert (2 * rows + 1) * frame_size[0] + rows < 2**31  # `position`
    assert (2 * columns + 1) * frame_size[1] + columns < 2**31


def fit_size(manifest, frame_size):
    return tuple(int(value) for value in preprocess_launch(manifest, frame_size).arguments[2:4])


@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    frame_size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    fit=st.sampled_from(["stretch", "letterbox"]),
)
def test_content_is_what_fit_frame_fills(manifest_of, size, frame_size, fit):
    _, content = fit_frame(np.zeros((*frame_size, 3), np.uint8), size, fit)
    assert fit_size(manifest_of(size, fit), frame_size) == content


@pytest.mark.parametrize("frame_size", [(0, 5), (5, 0), (16385, 1), (1, 16385)])
def test_frames_that_are_empty_or_too_large_are_refused(manifest_of, frame_size):
    manifest = manifest_of((32, 32))
    for launch in (
        lambda: preprocess_launch(manifest, frame_size),
        lambda: labels_launch(manifest, frame_size, np.float32),
        lambda: overlay_launch(frame_size, 0.5),
    ):
        with pytest.raises(UserError, match="1 to 16384"):
            launch()


@pytest.mark.parametrize("alpha", [-0.01, 1.01, math.nan])
def test_alpha_outside_its_range_is_refused(alpha):
    with pytest.raises(UserError, match="between 0"):
        overlay_launch((4, 4), alpha)


def test_head_between_half_pixels_is_left_to_the_cpu(manifest_of):
    with pytest.raises(BackendError, match=r"offset is 0\.3 pixels"):
        labels_launch(manifest_of((32, 32), offset=(0.0, 0.3)), (32, 32), np.float32)


def test_scores_of_another_type_and_heads_without_scores_are_refused(manifest_of):
    with pytest.raises(ValueError, match="float32 or float16"):
        labels_launch(manifest_of((32, 32)), (32, 32), np.float64)
    with pytest.raises(ValueError, match="'labels'"):
        labels_launch(manifest_of((32, 32), kind="labels"), (32, 32), np.float32)


def test_arguments_are_numbers_of_32_bits_as_the_kernels_take_them(manifest_of):
    manifest = manifest_of((32, 32), classes=21)
    whole = (*preprocess_launch(manifest, (40, 50)).arguments, *labels_launch(manifest, (40, 50), "f2").arguments)
    assert {type(value) for value in whole} == {np.int32}
    assert [type(value) for value in overlay_launch((4, 5), 0.25).arguments] == [np.int32, np.float32, np.float32]
    assert overlay_launch((4, 5), 0.25).arguments == (20, 0.75, 0.25)
    assert labels_launch(manifest, (40, 50), np.float32).name == "scores_to_labels_f32"
    assert labels_launch(manifest, (40, 50), np.float16).name == "scores_to_labels_f16"
