"""mIoU against a loop over pixels in plain Python, written from PASCAL VOC's definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnedge.calibration.miou import ConfusionMatrix

VOID = 255


def counted_by_hand(
    pairs: list[tuple[np.ndarray, np.ndarray]], classes: int
) -> tuple[list[float], float, list[list[int]]]:
    """(IoU per class, pixel accuracy, confusion) with sets of pixels: |truth ∩ prediction| / |truth ∪ prediction|."""
    truths: list[set[int]] = [set() for _ in range(classes)]
    predictions: list[set[int]] = [set() for _ in range(classes)]
    place = right = 0
    table = [[0] * classes for _ in range(classes)]
    for truth, predicted in pairs:
        for t, p in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
            if t == VOID:
                continue
            truths[t].add(place)
            predictions[p].add(place)
            table[t][p] += 1
            right += t == p
            place += 1
    ious = [len(t & p) / len(t | p) if t else math.nan for t, p in zip(truths, predictions, strict=True)]
    return ious, right / place if place else math.nan, table


@st.composite
def pictures(draw: st.DrawFn) -> tuple[int, list[tuple[np.ndarray, np.ndarray]]]:
    classes = draw(st.sampled_from([2, 3, 5, 21, 150, 255]))
    random = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    pairs = []
    for _ in range(draw(st.integers(0, 3))):
        shape = (draw(st.integers(1, 7)), draw(st.integers(1, 7)))
        truth = random.integers(0, classes, shape).astype(np.uint8)
        truth[random.random(shape) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = VOID
        predicted = np.where(random.random(shape) < 0.5, truth, random.integers(0, classes, shape)).astype(np.uint8)
        predicted[predicted == VOID] = 0
        pairs.append((truth, predicted))
    return classes, pairs


@given(pictures())
def test_iou_and_accuracy_are_those_of_a_loop_over_pixels(case):
    classes, pairs = case
    matrix = ConfusionMatrix(classes)
    for truth, predicted in pairs:
        matrix.add(truth, predicted)
    ious, accuracy, table = counted_by_hand(pairs, classes)
    np.testing.assert_array_equal(matrix.counts, table)
    np.testing.assert_allclose(matrix.iou(), ious, rtol=1e-12)
    present = [value for value in ious if not math.isnan(value)]
    expected = sum(present) / len(present) if present else math.nan
    assert matrix.mean_iou() == pytest.approx(expected, nan_ok=True)
    assert matrix.pixel_accuracy() == pytest.approx(accuracy, nan_ok=True)


def test_worked_example():
    matrix = ConfusionMatrix(4)
    matrix.add(np.array([[0, 0, 1], [1, VOID, 2]], np.uint8), np.array([[0, 1, 1], [1, 3, 0]], np.uint8))
    # class 0: 1 of {0, 1, 5}; class 1: 2 of {1, 2, 3}; class 2: 0 of {5}; class 3 only on void
    np.testing.assert_allclose(matrix.iou(), [1 / 3, 2 / 3, 0, np.nan])
    assert matrix.mean_iou() == pytest.approx(1 / 3)
    assert matrix.mean_iou([0, 1]) == pytest.approx(0.5)
    assert matrix.pixel_accuracy() == pytest.approx(3 / 5)


def test_absent_class_is_nan_and_not_part_of_the_mean():
    matrix = ConfusionMatrix(3)
    matrix.add(np.zeros((2, 2), np.uint8), np.array([[0, 0], [0, 2]], np.uint8))
    assert np.isnan(matrix.iou()).tolist() == [False, True, True]  # 2 was predicted, but no picture holds it
    assert matrix.mean_iou() == pytest.approx(3 / 4)
    assert math.isnan(matrix.mean_iou([1, 2]))
    assert matrix.mean_iou([0, 1]) == pytest.approx(3 / 4)


def test_pictures_of_void_alone_give_nan():
    matrix = ConfusionMatrix(2)
    matrix.add(np.full((3, 3), VOID, np.uint8), np.zeros((3, 3), np.uint8))
    assert matrix.counts.sum() == 0
    assert math.isnan(matrix.mean_iou())
    assert math.isnan(matrix.pixel_accuracy())


def test_pairs_of_high_ids_do_not_wrap():
    """20 * 21 + 20 is 440: in uint8 it would be counted as class 184 mod 256, somewhere else."""
    matrix = ConfusionMatrix(21)
    matrix.add(np.full((1, 3), 20, np.uint8), np.array([[20, 19, 20]], np.uint8))
    assert matrix.counts[20, 20] == 2
    assert matrix.counts[20, 19] == 1
    assert matrix.counts.sum() == 3


def test_counts_go_beyond_32_bits():
    matrix = ConfusionMatrix(2)
    assert matrix.counts.dtype == np.int64
    matrix.counts[1, 1] = 2**31 - 1
    matrix.add(np.ones((1, 2), np.uint8), np.ones((1, 2), np.uint8))
    assert matrix.counts[1, 1] == 2**31 + 1


@pytest.mark.parametrize("shape", [(3, 2), (6,), (2, 3, 1), (1, 3)])
def test_masks_of_different_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="they must agree"):
        ConfusionMatrix(2).add(np.zeros((2, 3), np.uint8), np.zeros(shape, np.uint8))


@pytest.mark.parametrize(("truth", "predicted"), [(2, 0), (0, 2), (254, 0), (0, VOID)])
def test_ids_that_are_no_class_are_refused(truth, predicted):
    matrix = ConfusionMatrix(2)
    with pytest.raises(ValueError, match=r"ids up to \d+ for 2 classes"):
        matrix.add(np.array([[0, truth]], np.uint8), np.array([[0, predicted]], np.uint8))
    assert matrix.counts.sum() == 0, "half a picture was counted"


def test_what_is_predicted_on_void_does_not_matter():
    matrix = ConfusionMatrix(2)
    matrix.add(np.array([[VOID, 1]], np.uint8), np.array([[200, 1]], np.uint8))
    assert matrix.counts.tolist() == [[0, 0], [0, 1]]
