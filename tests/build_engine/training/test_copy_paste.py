"""Objects of one picture on another: which pixels come from where, and how often each class is drawn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from fcnedge.build_engine.training.augmentation import Augmentation
from fcnedge.build_engine.training.copy_paste import LARGEST_SHARE, SMALLEST_SHARE, ObjectSource, paste_objects
from fcnedge.build_engine.training.dataset import TrainingBatches
from fcnedge.calibration.voc import VocSample
from fcnedge.runtime.preprocessing import Preprocessing

VOID = 255
SIDE = 20


def field(value: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture of one grey level whose pixels all are class `value`."""
    return np.full((SIDE, SIDE, 3), 10 * value, np.uint8), np.full((SIDE, SIDE), value, np.uint8)


def with_square(side: int, class_id: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Background with a square object from (2, 2) on."""
    image, mask = field(0)
    image[2 : 2 + side, 2 : 2 + side] = 200
    mask[2 : 2 + side, 2 : 2 + side] = class_id
    return image, mask


def test_object_is_pasted_with_a_void_line_around_it_and_nothing_else_changes():
    onto, other = field(7), with_square(5)
    image, mask = paste_objects(*onto, *other)
    square, line = np.zeros((SIDE, SIDE), bool), np.zeros((SIDE, SIDE), bool)
    square[2:7, 2:7] = True
    line[1:8, 1:8] = True
    line &= ~square
    assert (image[square] == 200).all()
    assert (image[~square] == 70).all()
    assert (mask[square] == 3).all()
    assert (mask[line] == VOID).all()
    assert (mask[~square & ~line] == 7).all()
    assert (onto[1] == 7).all(), "the arguments stay as they are"
    np.testing.assert_array_equal(other[1], with_square(5)[1])


def test_void_and_what_lies_outside_the_other_picture_is_not_pasted():
    onto, (from_image, from_mask) = field(7), with_square(5)
    from_mask[10:] = VOID
    image, mask = paste_objects(*onto, from_image, from_mask)
    assert (image[9:] == 70).all()
    assert (mask[9:] == 7).all()


@pytest.mark.parametrize(("side", "pasted"), [(1, False), (2, True), (15, True), (16, False), (18, False)])
def test_objects_that_are_hardly_seen_or_hide_everything_are_not_pasted(side, pasted):
    assert (SMALLEST_SHARE <= side**2 / SIDE**2 <= LARGEST_SHARE) == pasted
    onto = field(7)
    image, mask = paste_objects(*onto, *with_square(side))
    assert (3 in mask) == pasted
    assert (image == onto[0]).all() != pasted


@pytest.fixture
def uneven(tmp_path) -> list[VocSample]:
    """Nine pictures of class 1, one of class 2, one with both void and background alone."""
    return [written(tmp_path, f"common_{i}", 1) for i in range(9)] + [
        written(tmp_path, "rare", 2),
        written(tmp_path, "empty", VOID),
    ]


def written(folder: Path, name: str, class_id: int) -> VocSample:
    image, mask = with_square(10, class_id)
    sample = VocSample(name, folder / f"{name}.png", folder / f"{name}_mask.png")
    assert cv2.imwrite(str(sample.image_path), image)
    assert cv2.imwrite(str(sample.mask_path), mask)
    return sample


def test_rare_classes_are_drawn_as_often_as_frequent_ones(uneven):
    source, random = ObjectSource(uneven), np.random.default_rng(0)
    drawn = Counter(source.draw(random).name for _ in range(4000))
    assert set(drawn) == {sample.name for sample in uneven} - {"empty"}
    assert drawn["rare"] == pytest.approx(2000, abs=160)  # five standard deviations
    assert all(drawn[f"common_{i}"] == pytest.approx(222, abs=72) for i in range(9))


def test_without_objects_nothing_is_drawn(uneven):
    assert ObjectSource(uneven[-1:]).draw(np.random.default_rng(0)) is None


PLAIN = Augmentation(32, min_zoom=1, max_zoom=1, aspect=1, brightness=0, contrast=0, saturation=0, grey_probability=0)


def labels_of(samples: list[VocSample], copy_paste: float, epoch: int = 0) -> np.ndarray:
    batches = TrainingBatches(
        samples,
        PLAIN,
        Preprocessing("bgr", mean=(0, 0, 0), scale=(1, 1, 1)),
        batch_size=len(samples),
        seed=0,
        copy_paste=copy_paste,
    )
    batches.epoch = epoch
    return batches[0][1]


def test_batches_paste_with_the_asked_probability_and_again_the_same(uneven):
    """The square of a picture of class 1 covers half of those of class 2, flipped or not: class 2 shows who pasted."""
    assert sum(2 in mask for mask in labels_of(uneven, 0.0)) == 1
    everywhere = np.concatenate([labels_of(uneven, 1.0, epoch) for epoch in range(20)])
    half = np.concatenate([labels_of(uneven, 0.5, epoch) for epoch in range(20)])
    shown, shown_half = (sum(2 in mask for mask in masks) / len(masks) for masks in (everywhere, half))
    assert 0.4 < shown < 0.7  # half of what is drawn is of class 2
    assert 0.2 < shown_half < 0.42
    np.testing.assert_array_equal(labels_of(uneven, 0.5, 3), labels_of(uneven, 0.5, 3))
    assert any(not np.array_equal(labels_of(uneven, 0.5, 3), labels_of(uneven, 0.5, epoch)) for epoch in (1, 2))
