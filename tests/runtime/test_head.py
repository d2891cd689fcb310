"""The sparse head against dense references in float64: SciPy's deconvolution, and hat functions at exact positions."""

from __future__ import annotations

import math
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, signal

from fcnedge.runtime import head as head_module
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.head import BilinearHead, HeadGeometry
from fcnedge.runtime.score_axis import nearest_points

KINDS = ("integers", "gaussian", "smooth")


def make_scores(kind: str, shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """(C, h, w) float32: rich in ties, without any, or like a network's (few classes compete at each place)."""
    rng = np.random.default_rng(seed)
    if kind == "integers":
        return rng.integers(-1, 2, shape).astype(np.float32)
    scores = rng.standard_normal(shape)
    if kind == "smooth":
        scores = 10 * ndimage.gaussian_filter(scores, (0, 1.5, 1.5), mode="nearest")
    return scores.astype(np.float32)


def deconvolved_labels(scores: np.ndarray, stride: int, crop_before: int) -> np.ndarray:
    """Argmax over the bilinear deconvolution (kernel 2s, stride s) cropped to (h * s, w * s), float64, by upfirdn."""
    tent = 1 - np.abs(np.arange(2 * stride) - (stride - 0.5)) / stride
    dense = scores.astype(np.float64)
    for axis in (1, 2):
        dense = signal.upfirdn(tent, dense, up=stride, axis=axis)
        dense = dense.take(range(crop_before, crop_before + scores.shape[axis] * stride), axis=axis)
    return dense.argmax(axis=0)


def hat_matrix(grid: int, frame: int, content: int, offset: Fraction, stride: int) -> np.ndarray:
    """(frame, grid) float64 interpolation weights max(0, 1 - |u - i|), with u as an exact fraction."""
    weights = np.zeros((frame, grid))
    for x in range(frame):
        u = (Fraction(2 * x + 1, 2) * content / frame + offset) / stride - Fraction(1, 2)
        u = min(max(u, Fraction(0)), Fraction(grid - 1))
        for i in (math.floor(u), math.ceil(u)):
            weights[x, i] = 1 - abs(u - i)
    return weights


def assert_labels_are_argmax(labels: np.ndarray, dense: np.ndarray, *, ties_are_exact: bool) -> None:
    """Equal everywhere where arithmetic is exact; elsewhere a label must reach the maximum up to rounding."""
    assert labels.dtype == np.uint8
    assert labels.shape == dense.shape[1:]
    if ties_are_exact:
        np.testing.assert_array_equal(labels, dense.argmax(axis=0))
    else:
        reached = np.take_along_axis(dense, labels[None].astype(np.intp), axis=0)[0]
        assert (dense.max(axis=0) - reached).max() < 1e-12


def nearest_on_grid(grid: int, frame: int, content: int, offset: Fraction, stride: int) -> list[int]:
    """Grid point nearest to each pixel by its distance, an exact fraction; the later of two that are as near."""
    centres = [(Fraction(2 * x + 1, 2) * content / frame + offset) / stride - Fraction(1, 2) for x in range(frame)]
    return [min(range(grid), key=lambda point, u=u: (abs(u - point), -point)) for u in centres]


def is_dyadic(number: Fraction) -> bool:
    return number.denominator & (number.denominator - 1) == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("one_sided", [False, True], ids=["symmetric_crop", "one_sided_crop"])
@pytest.mark.parametrize(("stride", "grid"), [(8, (40, 36)), (16, (11, 17)), (32, (7, 5)), (8, (1, 6)), (2, (9, 1))])
def test_labels_equal_argmax_of_deconvolution_at_every_pixel(stride, grid, one_sided, kind):
    scores = make_scores(kind, (5, *grid), seed=stride)
    crop_before = 0 if one_sided else stride // 2
    shift = crop_before - stride / 2
    labels = BilinearHead(HeadGeometry(stride, (shift, shift))).labels(scores, (grid[0] * stride, grid[1] * stride))
    np.testing.assert_array_equal(labels, deconvolved_labels(scores, stride, crop_before))


@st.composite
def axes(draw: st.DrawFn) -> tuple[int, int, int, Fraction]:
    """(grid points, frame pixels, content pixels, offset): upsampled, aligned, fewer pixels than cells, one pixel."""
    grid = draw(st.integers(1, 9))
    frame = draw(st.one_of(st.integers(1, 12), st.sampled_from([16, 24, 32, 48, 64, 100])))
    content = draw(st.one_of(st.just(frame), st.integers(1, 200)))
    return grid, frame, content, Fraction(draw(st.integers(-24, 24)), 2)


@settings(max_examples=300, deadline=None)
@given(
    rows=axes(),
    columns=axes(),
    classes=st.integers(1, 7),
    stride=st.sampled_from([1, 2, 3, 5, 8, 16, 32]),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**16),
)
def test_labels_equal_dense_interpolation_at_any_size(rows, columns, classes, stride, kind, seed):
    scores = make_scores(kind, (classes, rows[0], columns[0]), seed)
    head = BilinearHead(HeadGeometry(stride, (float(rows[3]), float(columns[3]))))
    labels = head.labels(scores, (rows[1], columns[1]), (rows[2], columns[2]))
    down, across = (hat_matrix(*axis, stride=stride) for axis in (rows, columns))
    dense = np.einsum("yi,cij,xj->cyx", down, scores.astype(np.float64), across)
    scale = Fraction(rows[2], rows[1] * stride), Fraction(columns[2], columns[1] * stride)
    exact = all(map(is_dyadic, (*scale, Fraction(1, stride))))
    assert_labels_are_argmax(labels, dense, ties_are_exact=exact)


@settings(max_examples=200, deadline=None)
@given(
    rows=axes(),
    columns=axes(),
    classes=st.integers(1, 7),
    stride=st.sampled_from([1, 2, 3, 5, 8, 16, 32]),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**16),
)
def test_point_takes_the_label_of_the_nearest_grid_point(rows, columns, classes, stride, kind, seed):
    scores = make_scores(kind, (classes, rows[0], columns[0]), seed)
    head = BilinearHead(HeadGeometry(stride, (float(rows[3]), float(columns[3]))), "point")
    labels = head.labels(scores, (rows[1], columns[1]), (rows[2], columns[2]))
    down, across = (nearest_on_grid(*axis, stride=stride) for axis in (rows, columns))
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, scores.argmax(axis=0)[np.ix_(down, across)])


def test_point_at_the_networks_size_gives_each_grid_point_its_square():
    scores = make_scores("gaussian", (5, 4, 6), seed=9)
    labels = BilinearHead(HeadGeometry(8), "point").labels(scores, (32, 48))
    np.testing.assert_array_equal(labels, np.kron(scores.argmax(axis=0), np.ones((8, 8), int)))


def test_point_half_way_takes_the_later_grid_point():
    scores = np.array([[[1, 0]], [[0, 1]]], np.float32)
    assert BilinearHead(HeadGeometry(1), "point").labels(scores, (1, 3), (1, 2)).tolist() == [[0, 1, 1]]
    assert BilinearHead(HeadGeometry(1), "linear").labels(scores, (1, 3), (1, 2)).tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("frame", [*range(1, 60), 375, 479, 481, 1079, 16383])
@pytest.mark.parametrize("stride", [3, 8, 10])
def test_point_half_way_is_exact_in_frames_of_any_size(frame, stride):
    points = nearest_points(4, frame, 4 * stride, 0.0, stride)
    assert points.tolist() == [(2 * pixel + 1) * 4 // (2 * frame) for pixel in range(frame)]


def test_point_fills_out_and_keeps_the_lowest_class_on_ties():
    scores, out = np.zeros((3, 2, 2), np.float32), np.full((12, 24), 77, np.uint8)[:, ::2]
    scores[0] = -1
    assert BilinearHead(HeadGeometry(8), "point").labels(scores, (12, 12), out=out) is out
    assert (out == 1).all()


def test_unknown_filter_mode_is_refused():
    with pytest.raises(UserError, match="filter_mode is 'cubic'; it must be 'linear' or 'point'"):
        BilinearHead(HeadGeometry(8), "cubic")


def test_uniform_cells_keep_lowest_class_on_ties():
    scores = np.zeros((3, 2, 2), np.float32)
    scores[0] = -1
    assert (BilinearHead(HeadGeometry(8)).labels(scores, (16, 16)) == 1).all()


def test_mixed_cells_keep_lowest_class_on_ties():
    scores = np.array([[[1, 0]], [[0, 1]], [[0.5, 0.5]]], np.float32)  # all three meet half-way, at x = 1
    labels = BilinearHead(HeadGeometry(1)).labels(scores, (1, 3), (1, 2), None)
    assert labels.tolist() == [[0, 0, 1]]


def test_class_that_only_ties_the_best_lower_bound_is_not_dropped():
    # Class 0 is 1 everywhere; class 1 is never below 1 and equals it on the left: there class 0, the lower id, wins.
    scores = np.array([[[1, 1]], [[1, 2]]], np.float32)
    labels = BilinearHead(HeadGeometry(4)).labels(scores, (4, 8))
    assert labels.tolist() == [[0, 0, 1, 1, 1, 1, 1, 1]] * 4


def test_lead_below_float32_resolution_decides():
    lead = 2.0**-30  # class 1 leads by this much half-way; the corners' differences, 1 and lead - 1, need 31 bits
    scores = np.array([[[1, 0]], [[lead, 1]]], np.float32)
    assert BilinearHead(HeadGeometry(1)).labels(scores, (1, 1), (1, 2)).item() == 1


def test_memory_holds_no_tensor_of_all_classes_or_all_pixels():
    scores = make_scores("gaussian", (64, 3, 3), seed=8)  # every cell mixed; (64, 2000, 2000) float32 would be 1 GB
    head = BilinearHead(HeadGeometry(8))
    tracemalloc.start()
    try:
        head.labels(scores, (2000, 2000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2000 * 2000 + 8e6


def test_class_second_at_every_corner_wins_inside_the_cell():
    scores = np.array([[[3, -3]], [[-3, 3]], [[2, 2]]], np.float32)
    assert 2 in BilinearHead(HeadGeometry(8)).labels(scores, (8, 16))


def test_class_ids_up_to_254():
    scores = make_scores("gaussian", (255, 4, 4), seed=1)
    scores[254, 1, 1] = scores[0, 3, 3] = 99
    labels = BilinearHead(HeadGeometry(8)).labels(scores, (32, 32))
    np.testing.assert_array_equal(labels, deconvolved_labels(scores, 8, 4))
    assert {0, 254} <= set(labels.flat)


def test_letterbox_shows_only_the_content():
    scores = make_scores("smooth", (4, 8, 8), seed=2)
    head = BilinearHead(HeadGeometry(8))
    whole = head.labels(scores, (64, 64))
    np.testing.assert_array_equal(head.labels(scores, (48, 64), content_size=(48, 64)), whole[:48])


@pytest.mark.parametrize("kind", KINDS)
def test_float16_scores_give_the_labels_of_their_float32_values(kind):
    half = make_scores(kind, (6, 9, 7), seed=3).astype(np.float16)
    labels = BilinearHead(HeadGeometry(8)).labels(half, (72, 56))
    np.testing.assert_array_equal(labels, deconvolved_labels(half, 8, 4))


def test_batch_axis_and_memory_layout_do_not_matter():
    scores = make_scores("smooth", (6, 9, 7), seed=4)
    channels_last = np.ascontiguousarray(scores.transpose(1, 2, 0)).transpose(2, 0, 1)
    flipped = np.ascontiguousarray(scores[:, ::-1, ::-1])[:, ::-1, ::-1]
    for variant in (scores[None], channels_last, flipped):
        labels = BilinearHead(HeadGeometry(8)).labels(variant, (72, 56))
        np.testing.assert_array_equal(labels, deconvolved_labels(scores, 8, 4))


def test_scores_stay_untouched():
    scores = make_scores("gaussian", (6, 9, 7), seed=5)
    before = scores.copy()
    scores.flags.writeable = False
    BilinearHead(HeadGeometry(8)).labels(scores, (72, 56))
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize("contiguous", [True, False])
def test_out_is_filled_and_returned(contiguous):
    scores = make_scores("gaussian", (6, 9, 7), seed=6)
    canvas = np.full((80, 100), 77, np.uint8)
    out = np.full((72, 56), 77, np.uint8) if contiguous else canvas[4:76, 20:76]
    assert BilinearHead(HeadGeometry(8)).labels(scores, (72, 56), out=out) is out
    np.testing.assert_array_equal(out, deconvolved_labels(scores, 8, 4))
    assert (canvas[:, :20] == 77).all()
    assert (canvas[:, 76:] == 77).all()


def test_one_head_serves_changing_sizes():
    head = BilinearHead(HeadGeometry(8))
    cases = [(make_scores("gaussian", (4, 3 + i, 9 - i), seed=i), (20 + 7 * i, 50 - 3 * i)) for i in range(7)]
    expected = [BilinearHead(HeadGeometry(8)).labels(scores, size) for scores, size in cases]
    for _ in range(2):
        for (scores, size), labels in zip(cases, expected, strict=True):
            np.testing.assert_array_equal(head.labels(scores, size), labels)


def test_geometry_is_computed_once_for_a_stream(monkeypatch):
    tables, compute = [], head_module.score_axis
    monkeypatch.setattr(head_module, "score_axis", lambda *key: tables.append(key) or compute(*key))
    head = BilinearHead(HeadGeometry(8))
    for seed in range(5):
        head.labels(make_scores("smooth", (4, 6, 8), seed), (50, 70))
    assert len(tables) == 2  # rows and columns


def test_threads_share_one_head():
    head = BilinearHead(HeadGeometry(8))
    cases = [make_scores("gaussian", (5, 8 + i % 3, 12), seed=i) for i in range(48)]
    expected = [deconvolved_labels(scores, 8, 4) for scores in cases]
    with ThreadPoolExecutor(8) as pool:
        masks = list(pool.map(lambda s: head.labels(s, (8 * s.shape[1], 8 * s.shape[2])), cases))
    for labels, reference in zip(masks, expected, strict=True):
        np.testing.assert_array_equal(labels, reference)


@pytest.mark.parametrize(
    ("shape", "dtype", "said"),
    [
        ((4, 4), np.float32, "expected (C, h, w) or (1, C, h, w)"),
        ((2, 3, 4, 4), np.float32, "expected (C, h, w) or (1, C, h, w)"),
        ((256, 2, 2), np.float32, "expected 1 to 255 classes"),
        ((0, 2, 2), np.float32, "expected 1 to 255 classes"),
        ((3, 0, 2), np.float32, "at least one grid point"),
        ((3, 2, 2), np.float64, "expected float32 or float16"),
    ],
)
def test_scores_of_wrong_shape_or_dtype_are_refused(shape, dtype, said):
    with pytest.raises(UserError) as caught:
        BilinearHead(HeadGeometry(8)).labels(np.zeros(shape, dtype), (16, 16))
    assert said in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(value, dtype):
    scores = np.zeros((3, 4, 4), dtype)
    scores[1, 2, 3] = value
    with pytest.raises(UserError, match="NaN or infinity"):
        BilinearHead(HeadGeometry(8)).labels(scores, (32, 32))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"frame_size": (0, 5)}, "frame_size is"),
        ({"frame_size": (4, 5, 3)}, "frame_size is"),
        ({"frame_size": (4, 5), "content_size": (0, 5)}, "content_size is"),
        ({"frame_size": (4, 5), "content_size": (4, math.nan)}, "content_size is"),
        ({"frame_size": (4, 5), "out": np.zeros((5, 4), np.uint8)}, "out is"),
        ({"frame_size": (4, 5), "out": np.zeros((4, 5), np.int64)}, "out is"),
    ],
)
def test_sizes_that_no_frame_has_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        BilinearHead(HeadGeometry(8)).labels(np.zeros((3, 4, 4), np.float32), **arguments)


@pytest.mark.parametrize("arguments", [{"stride": 0}, {"stride": 8, "offset": (0.0, math.nan)}])
def test_impossible_geometry_is_refused(arguments):
    with pytest.raises(ValueError, match="expected"):
        HeadGeometry(**arguments)
