"""The kernels' own source on the CPU against NumPy: bit for bit, at any size, pitch, stride, offset and class count.

test_kernel_bounds.py runs this file once more under AddressSanitizer.
"""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from fcnedge.runtime.cuda import reference
from fcnedge.runtime.cuda.geometry import content_size, labels_launch, overlay_launch, preprocess_launch
from fcnedge.runtime.head import BilinearHead
from fcnedge.runtime.palette import voc_palette

KINDS = ("integers", "gaussian", "smooth", "steps")
NOT_FINITE = 255
EXAMPLES = int(os.environ.get("FCNEDGE_KERNEL_EXAMPLES", "150"))

sizes = st.tuples(st.integers(1, 70), st.integers(1, 70))
fits = st.sampled_from(["stretch", "letterbox"])
seeds = st.integers(0, 2**16)


def make_frame(size: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def make_scores(kind: str, shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """(C, h, w) float32: rich in ties, without any, like a network's, or like those of an INT8 score layer."""
    rng = np.random.default_rng(seed)
    if kind == "integers":
        return rng.integers(-1, 2, shape).astype(np.float32)
    scores = rng.standard_normal(shape)
    if kind != "gaussian":
        scores = 10 * ndimage.gaussian_filter(scores, (0, 1.5, 1.5), mode="nearest")
    if kind == "steps":
        return (np.rint(scores * 8) * 0.3).astype(np.float32)
    return scores.astype(np.float32)


def head_labels(manifest, scores, frame_size, filter_mode="linear"):
    head = BilinearHead(manifest.head.geometry, filter_mode)
    return head.labels(scores, frame_size, content_size(manifest, frame_size))


def interpolation(points: int, pixels: int, content: int, offset: float, stride: int) -> np.ndarray:
    """(pixels, points) float64 weights max(0, 1 - |u - i|)."""
    u = ((np.arange(pixels) + 0.5) * content / pixels + offset) / stride - 0.5
    return np.maximum(0, 1 - np.abs(np.clip(u, 0, points - 1)[:, None] - np.arange(points)))


def interpolated(manifest, scores, frame_size):
    """(C, H, W) float64: the dense upsampling that no kernel ever holds."""
    content, offset, stride = content_size(manifest, frame_size), manifest.head.offset, manifest.head.stride
    down, across = (
        interpolation(scores.shape[axis + 1], frame_size[axis], content[axis], offset[axis], stride) for axis in (0, 1)
    )
    return down @ scores.astype(np.float64) @ across.T


@settings(max_examples=EXAMPLES)
@given(frame_size=sizes, size=sizes, fit=fits, gap=st.integers(0, 9), seed=seeds)
def test_preprocess_equals_its_reference(cpu_kernels, manifest_of, frame_size, size, fit, gap, seed):
    frame = make_frame(frame_size, seed)
    launch = preprocess_launch(manifest_of(size, fit), frame_size)
    image = cpu_kernels.preprocess(launch, frame, size, gap)
    np.testing.assert_array_equal(image, reference.preprocess(frame, size, fit))


@settings(max_examples=EXAMPLES)
@given(source=st.integers(1, 16384), target=st.integers(1, 16384), seed=seeds, turned=st.booleans())
def test_preprocess_places_pixels_as_float64_does_at_any_length(cpu_kernels, manifest_of, source, target, seed, turned):
    frame_size, size = ((source, 2), (target, 1)) if turned else ((2, source), (1, target))
    frame = make_frame(frame_size, seed)
    image = cpu_kernels.preprocess(preprocess_launch(manifest_of(size), frame_size), frame, size, 0)
    np.testing.assert_array_equal(image, reference.preprocess(frame, size, "stretch"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@settings(max_examples=max(1, EXAMPLES // 4))
@given(
    points=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    stride=st.sampled_from([1, 2, 4, 8, 16, 32]),
    zoom=st.sampled_from([0.25, 0.5, 1, 2, 4]),
    halves=st.tuples(st.integers(-40, 40), st.integers(-40, 40)),
    classes=st.one_of(st.integers(2, 7), st.integers(2, 255)),
    seed=seeds,
)
def test_labels_equal_the_heads_bit_for_bit_on_dyadic_geometry(
    cpu_kernels, manifest_of, kind, dtype, points, stride, zoom, halves, classes, seed
):
    size = points[0] * stride, points[1] * stride
    frame_size = max(1, int(size[0] * zoom)), max(1, int(size[1] * zoom))
    if not all(math.log2(frame / side).is_integer() for frame, side in zip(frame_size, size, strict=True)):
        frame_size = size
    offset = halves[0] / 2, halves[1] / 2
    scores = make_scores(kind, (classes, *points), seed).astype(dtype)
    manifest = manifest_of(size, classes=classes, stride=stride, offset=offset)
    labels = cpu_kernels.labels(labels_launch(manifest, frame_size, dtype), scores, frame_size)
    np.testing.assert_array_equal(labels, head_labels(manifest, scores, frame_size))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=EXAMPLES)
@given(
    points=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    over=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    frame_size=st.one_of(sizes, st.tuples(st.integers(1, 9), st.integers(100, 300))),
    fit=fits,
    stride=st.sampled_from([1, 2, 3, 5, 8, 16, 32]),
    halves=st.tuples(st.integers(-40, 40), st.integers(-40, 40)),
    classes=st.integers(2, 30),
    seed=seeds,
)
def test_labels_differ_from_the_heads_only_within_float64_rounding(
    cpu_kernels, manifest_of, kind, points, over, frame_size, fit, stride, halves, classes, seed
):
    size = points[0] * stride + over[0] % stride, points[1] * stride + over[1] % stride
    manifest = manifest_of(size, fit, classes=classes, stride=stride, offset=(halves[0] / 2, halves[1] / 2))
    scores = make_scores(kind, (classes, *points), seed)
    labels = cpu_kernels.labels(labels_launch(manifest, frame_size, np.float32), scores, frame_size)
    dense = interpolated(manifest, scores, frame_size)
    assert labels.max() < classes
    reached = np.take_along_axis(dense, labels[None].astype(np.intp), axis=0)[0]
    lost = dense.max(axis=0) - reached
    assert lost.max() <= np.abs(scores).max() * 2.0**-38
    differ = labels != head_labels(manifest, scores, frame_size)
    second = np.sort(dense, axis=0)[-2]
    assert ((dense.max(axis=0) - second)[differ] <= np.abs(scores).max() * 2.0**-38).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@settings(max_examples=EXAMPLES)
@given(
    points=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    over=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    frame_size=st.one_of(sizes, st.tuples(st.integers(1, 9), st.integers(100, 300))),
    fit=fits,
    stride=st.sampled_from([1, 2, 3, 5, 8, 16, 32]),
    halves=st.tuples(st.integers(-40, 40), st.integers(-40, 40)),
    classes=st.integers(2, 30),
    seed=seeds,
)
def test_point_labels_equal_the_heads_in_every_geometry(
    cpu_kernels, manifest_of, kind, dtype, points, over, frame_size, fit, stride, halves, classes, seed
):
    size = points[0] * stride + over[0] % stride, points[1] * stride + over[1] % stride
    manifest = manifest_of(size, fit, classes=classes, stride=stride, offset=(halves[0] / 2, halves[1] / 2))
    scores = make_scores(kind, (classes, *points), seed).astype(dtype)
    labels = cpu_kernels.labels(labels_launch(manifest, frame_size, dtype, "point"), scores, frame_size)
    np.testing.assert_array_equal(labels, head_labels(manifest, scores, frame_size, "point"))


@pytest.mark.parametrize("filter_mode", ["linear", "point"])
@pytest.mark.parametrize(
    ("size", "stride", "frame_size", "offset"),
    [
        ((1, 16384), 1, (1, 16384), (0, 0)),
        ((1024, 16384), 1024, (1, 16384), (-512, -512)),
        ((1, 16384), 1, (1, 16383), (4096, 4096)),
        ((16384, 8), 8, (16381, 1), (-4, -4096)),
        ((16384, 1024), 1024, (16384, 3), (4096, -4096)),
        ((16384, 16384), 1024, (1, 16383), (0, 0.5)),
    ],
)
def test_labels_at_the_largest_sizes_that_a_bundle_may_have(
    cpu_kernels, manifest_of, size, stride, frame_size, offset, filter_mode
):
    manifest = manifest_of(size, classes=3, stride=stride, offset=offset)
    scores = make_scores("gaussian", (3, size[0] // stride, size[1] // stride), seed=stride)
    labels = cpu_kernels.labels(labels_launch(manifest, frame_size, np.float32, filter_mode), scores, frame_size)
    np.testing.assert_array_equal(labels, head_labels(manifest, scores, frame_size, filter_mode))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("fit", "frame_size"), [("letterbox", (375, 500)), ("stretch", (360, 640))])
def test_labels_for_a_camera_and_a_network_of_usual_sizes(cpu_kernels, manifest_of, kind, fit, frame_size):
    manifest = manifest_of((320, 320), fit, classes=21)
    scores = make_scores(kind, (21, 40, 40), seed=7)
    labels = cpu_kernels.labels(labels_launch(manifest, frame_size, np.float32), scores, frame_size)
    differ = labels != head_labels(manifest, scores, frame_size)
    dense = np.sort(interpolated(manifest, scores, frame_size)[:, differ], axis=0)
    assert (dense[-1] - dense[-2] <= np.abs(scores).max() * 2.0**-38).all()


def test_lead_below_float32_resolution_decides(cpu_kernels, manifest_of):
    scores = np.array([[[1, 0]], [[2.0**-30, 1]]], np.float32)  # class 1 leads by 2**-31 half-way
    manifest = manifest_of((1, 2), stride=1)
    assert cpu_kernels.labels(labels_launch(manifest, (1, 1), np.float32), scores, (1, 1)).item() == 1


@pytest.mark.parametrize("shift", [-1000, 1000])
def test_classes_a_few_float32_steps_apart_are_told_apart(cpu_kernels, manifest_of, shift):
    shared = 100 * make_scores("gaussian", (1, 9, 7), seed=6) + np.float32(shift)  # many bits, the same for all classes
    scores = shared + make_scores("integers", (5, 9, 7), seed=7) * np.float32(2**-13)
    manifest = manifest_of((72, 56), classes=5)
    labels = cpu_kernels.labels(labels_launch(manifest, (72, 56), np.float32), scores, (72, 56))
    np.testing.assert_array_equal(labels, head_labels(manifest, scores, (72, 56)))


@pytest.mark.parametrize("size", [3.4e38, 1e37, 2.0**-120, 2.0**-149])
def test_scores_near_the_ends_of_float32_give_the_heads_labels(cpu_kernels, manifest_of, size):
    scores = (np.random.default_rng(3).integers(-4, 5, (5, 6, 7)) / 4 * np.float64(size)).astype(np.float32)
    manifest = manifest_of((48, 56), classes=5)
    labels = cpu_kernels.labels(labels_launch(manifest, (48, 56), np.float32), scores, (48, 56))
    np.testing.assert_array_equal(labels, head_labels(manifest, scores, (48, 56)))


def test_every_finite_float16_is_read_as_numpy_reads_it(cpu_kernels, manifest_of):
    bits = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = np.sort(bits[np.isfinite(bits)])
    manifest = manifest_of((len(finite) // 512, 512), stride=1)
    halves = np.stack([finite, np.roll(finite, 1)]).reshape(2, -1, 512)  # neighbours: one unit in the last place apart
    labels = cpu_kernels.labels(labels_launch(manifest, halves.shape[1:], np.float16), halves, halves.shape[1:])
    np.testing.assert_array_equal(labels, (halves[1] > halves[0]).astype(np.uint8))
    floats = halves.astype(np.float32)
    wide = cpu_kernels.labels(labels_launch(manifest, (150, 700), np.float32), floats, (150, 700))
    np.testing.assert_array_equal(
        cpu_kernels.labels(labels_launch(manifest, (150, 700), np.float16), halves, (150, 700)), wide
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("filter_mode", ["linear", "point"])
@pytest.mark.parametrize("class_id", [0, 2, 3])
def test_scores_that_are_not_finite_mark_their_cells_and_no_others(
    cpu_kernels, manifest_of, class_id, filter_mode, value, dtype
):
    scores = make_scores("smooth", (4, 6, 7), seed=5).astype(dtype)
    manifest = manifest_of((48, 56), classes=4)
    sound = head_labels(manifest, scores, (48, 56), filter_mode)
    scores[class_id, 2, 3] = value
    labels = cpu_kernels.labels(labels_launch(manifest, (48, 56), dtype, filter_mode), scores, (48, 56))
    touched = np.zeros((48, 56), bool)
    touched[12:28, 20:36] = True  # 8 pixels to each side of the middle of the grid point's own 8 x 8
    np.testing.assert_array_equal(labels, np.where(touched, NOT_FINITE, sound))


@pytest.mark.parametrize("value", [3e38, -3e38])
def test_interpolation_that_overflows_loses_no_class(cpu_kernels, manifest_of, value):
    """In float32 class 2 becomes NaN between its grid points, where class 1 has beaten class 0 and is sound."""
    tilted = np.array([[[1, -1]] * 2], np.float64)
    scores = np.concatenate([np.full((1, 2, 2), 1e36), 2e36 * tilted, value * tilted]).astype(np.float32)
    manifest = manifest_of((16, 16), classes=3)
    labels = cpu_kernels.labels(labels_launch(manifest, (16, 16), np.float32), scores, (16, 16))
    np.testing.assert_array_equal(labels, head_labels(manifest, scores, (16, 16)))
    assert 2 in labels


def test_scores_of_nothing_but_nan_stay_inside_the_buffers(cpu_kernels, manifest_of):
    scores = np.full((255, 3, 3), np.nan, np.float32)
    manifest = manifest_of((24, 24), classes=255)
    assert (cpu_kernels.labels(labels_launch(manifest, (37, 41), np.float32), scores, (37, 41)) == NOT_FINITE).all()


@settings(max_examples=EXAMPLES)
@given(
    size=sizes, alpha=st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.floats(2**-20, 1 - 2**-20)), seed=seeds
)
def test_overlay_equals_its_reference(cpu_kernels, size, alpha, seed):
    rng = np.random.default_rng(seed)
    frame, labels = make_frame(size, seed), rng.choice(np.uint8([0, 1, 7, 254, 255]), size)
    palette, painted = np.ascontiguousarray(voc_palette()[:, ::-1]), rng.integers(0, 2, 256, np.uint8)
    mixed = cpu_kernels.overlay(overlay_launch(size, alpha), frame, labels, palette, painted)
    np.testing.assert_array_equal(mixed, reference.overlay(frame, labels, palette, painted, alpha))
    np.testing.assert_array_equal(mixed[painted[labels] == 0], frame[painted[labels] == 0])


@pytest.mark.parametrize("alpha", [0.1, 0.45, 0.5, 0.7])
def test_overlay_rounds_as_its_reference_for_every_grey_level_on_every_other(cpu_kernels, alpha):
    frame = np.repeat(np.arange(256, dtype=np.uint8), 256).reshape(256, 256, 1).repeat(3, axis=2)
    labels = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    palette, painted = np.arange(256, dtype=np.uint8)[:, None] + np.uint8([0, 85, 170]), np.ones(256, np.uint8)
    mixed = cpu_kernels.overlay(overlay_launch((256, 256), alpha), frame, labels, palette, painted)
    np.testing.assert_array_equal(mixed, reference.overlay(frame, labels, palette, painted, alpha))
