"""`compare` against answers whose margins are known by construction, and Keras's references against NumPy and SciPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import signal

from fcnedge.build_engine.agreement import Agreement, compare, keras_references
from fcnedge.runtime import BilinearHead, HeadGeometry
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.preprocessing import Preprocessing

SIZE, STRIDE, GRID = (16, 24), 8, (2, 3)
HEAD = BilinearHead(HeadGeometry(STRIDE))
SCORES = np.broadcast_to(np.array([3.0, 2.0, -7.0], np.float32)[:, None, None], (3, *GRID)).copy()
"""Class 0 leads by 1 everywhere; the range is 10."""
RANGE = 10.0


class Answers:
    """A backend that gives prepared answers, one per picture."""

    name, precision = "answers", "fp32"

    def __init__(self, *answers: np.ndarray):
        self._answers = list(answers)

    def infer(self, image: np.ndarray) -> np.ndarray:
        assert image.shape == (1, *SIZE, 3)
        return self._answers.pop(0)[None]

    def close(self) -> None:
        pass


def write_reference(folder: Path, *, scores: np.ndarray | None = SCORES, **other: Any) -> Path:
    """As Keras leaves it; by default constant scores, so that full-size labels, margin and range are plain to see."""
    path = folder / f"reference{len(list(folder.iterdir()))}.npz"
    fields = {
        "name": "picture",
        "image": np.zeros((*SIZE, 3), np.uint8),
        "scores": np.empty(0) if scores is None else scores,
        "labels": np.zeros(SIZE, np.uint8),
        "margin": np.ones(SIZE, np.float32),
        "score_range": np.float32(RANGE),
    }
    np.savez(path, **fields | other)
    return path


def perturbed(amount: float) -> np.ndarray:
    """SCORES with one score of the hopeless class moved: no label changes."""
    scores = SCORES.copy()
    scores[2, 1, 1] += amount
    return scores


def test_equal_scores_hold(tmp_path):
    agreement = compare(Answers(SCORES), HEAD, [write_reference(tmp_path)])
    assert agreement == Agreement(
        pictures=1,
        max_abs_score_diff=0.0,
        score_range=RANGE,
        relative_score_diff=0.0,
        labels_equal=1.0,
        pixels_compared=16 * 24,
        pixels_unequal=0,
    )
    assert agreement.holds


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("share", "holds"), [(0.9e-3, True), (1.1e-3, False)])
def test_scores_may_differ_by_a_thousandth_of_their_range(tmp_path, share, holds, sign):
    agreement = compare(Answers(perturbed(sign * share * RANGE)), HEAD, [write_reference(tmp_path)])
    assert agreement.holds is holds
    assert agreement.max_abs_score_diff == pytest.approx(share * RANGE, rel=1e-3)
    assert agreement.relative_score_diff == pytest.approx(share, rel=1e-3)
    assert agreement.labels_equal == 1.0


def test_worst_of_all_pictures_counts(tmp_path):
    references = [write_reference(tmp_path) for _ in range(3)]
    agreement = compare(Answers(SCORES, perturbed(0.5), SCORES), HEAD, references)
    assert agreement.pictures == 3
    assert agreement.max_abs_score_diff == pytest.approx(0.5)
    assert not agreement.holds


def test_labels_of_all_pictures_are_counted(tmp_path):
    wrong = np.zeros(SIZE, np.uint8)
    wrong[0, :2] = 1
    right = np.zeros(SIZE, np.uint8)
    references = [write_reference(tmp_path, labels=labels) for labels in (wrong, right, wrong)]
    agreement = compare(Answers(SCORES, SCORES, SCORES), HEAD, references)
    assert (agreement.pixels_unequal, agreement.pixels_compared) == (4, 3 * 16 * 24)
    assert agreement.labels_equal == pytest.approx(1 - 4 / (3 * 16 * 24))
    assert not agreement.holds


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_are_refused(tmp_path, value):
    scores = SCORES.copy()
    scores[2, 0, 0] = value
    with pytest.raises(UserError, match="scores hold NaN or infinity"):
        compare(Answers(scores), HEAD, [write_reference(tmp_path)])


@pytest.mark.parametrize("head", [HEAD, None], ids=["scores", "labels"])
def test_pictures_on_which_no_class_leads_prove_nothing(tmp_path, head):
    flat = np.zeros_like(SCORES)
    constant = {"scores": flat, "margin": np.zeros(SIZE, np.float32), "score_range": np.float32(0)}
    answer = flat if head else np.zeros(SIZE, np.uint8)
    with pytest.raises(UserError, match="nothing to compare; check the model's weights"):
        compare(Answers(answer), head, [write_reference(tmp_path, **constant)])


def test_picture_on_which_no_class_leads_is_carried_by_another(tmp_path):
    references = [write_reference(tmp_path), write_reference(tmp_path, margin=np.zeros(SIZE, np.float32))]
    agreement = compare(Answers(SCORES, SCORES), HEAD, references)
    assert (agreement.holds, agreement.pixels_compared) == (True, 16 * 24)


@pytest.mark.parametrize("with_scores", [True, False], ids=["learned_tail", "no_deconvolution"])
@pytest.mark.parametrize(("share", "holds"), [(0.9e-4, True), (1.1e-4, False)])
def test_one_label_may_differ_only_where_keras_hardly_decides(tmp_path, share, holds, with_scores):
    margin = np.ones(SIZE, np.float32)
    margin[3, 5] = share * RANGE
    reference = write_reference(tmp_path, scores=SCORES if with_scores else None, margin=margin)
    labels = np.zeros(SIZE, np.uint8)
    labels[3, 5] = 1
    agreement = compare(Answers(labels), None, [reference])
    assert agreement.holds is holds
    assert agreement.pixels_compared == 16 * 24 - holds
    assert agreement.pixels_unequal == (not holds)
    assert agreement.labels_equal == pytest.approx(1 - (not holds) / (16 * 24))
    assert np.isnan(agreement.max_abs_score_diff)


def test_label_that_the_head_gives_otherwise_does_not_hold(tmp_path):
    labels = np.zeros(SIZE, np.uint8)
    labels[15, 23] = 1
    agreement = compare(Answers(SCORES), HEAD, [write_reference(tmp_path, labels=labels)])
    assert (agreement.relative_score_diff, agreement.pixels_unequal, agreement.holds) == (0.0, 1, False)


def small_fcn(kernel: np.ndarray, *, upsampled: bool) -> Any:
    """Keras: one convolution over cells of 8x8 pixels, then bilinear deconvolution and crop, or nothing."""
    import keras

    image = keras.Input((*SIZE, 3))
    x = keras.layers.Conv2D(3, STRIDE, strides=STRIDE, use_bias=False, name="cells")(image)
    if upsampled:
        x = keras.layers.Conv2DTranspose(3, 2 * STRIDE, strides=STRIDE, use_bias=False, name="upsample")(x)
        x = keras.layers.Cropping2D(STRIDE // 2)(x)
    model = keras.Model(image, x)
    model.get_layer("cells").set_weights([kernel])
    if upsampled:
        tent = 1 - np.abs(np.arange(2 * STRIDE) - (STRIDE - 0.5)) / STRIDE
        model.get_layer("upsample").set_weights([np.outer(tent, tent)[:, :, None, None] * np.eye(3)])
    return model


def test_keras_references_are_the_models_answers(tmp_path):
    random = np.random.default_rng(0)
    kernel = random.standard_normal((STRIDE, STRIDE, 3, 3)).astype(np.float32)
    preprocessing = Preprocessing("rgb", (100.0, 110.0, 120.0), (0.5, 1.0, 2.0))
    images = [(name, random.integers(0, 256, (*SIZE, 3), np.uint8)) for name in ("first", "second")]
    paths = keras_references(small_fcn(kernel, upsampled=True), preprocessing, images, tmp_path)
    assert len(paths) == len(set(paths)) == 2
    for path, (name, image) in zip(paths, images, strict=True):
        pixels = (image[..., ::-1].astype(np.float64) - preprocessing.mean) * preprocessing.scale
        cells = pixels.reshape(GRID[0], STRIDE, GRID[1], STRIDE, 3)
        scores = np.einsum("aybxi,yxic->cab", cells, kernel.astype(np.float64))
        full = scores
        for axis in (1, 2):
            tent = 1 - np.abs(np.arange(2 * STRIDE) - (STRIDE - 0.5)) / STRIDE
            full = signal.upfirdn(tent, full, up=STRIDE, axis=axis).take(range(4, 4 + SIZE[axis - 1]), axis=axis)
        ranked = np.sort(full, axis=0)
        with np.load(path) as stored:
            assert str(stored["name"]) == name
            np.testing.assert_array_equal(stored["image"], image)
            np.testing.assert_allclose(stored["scores"], scores, rtol=0, atol=1e-4 * np.ptp(scores))
            np.testing.assert_array_equal(stored["labels"], full.argmax(0))
            np.testing.assert_allclose(stored["margin"], ranked[-1] - ranked[-2], rtol=0, atol=1e-4 * np.ptp(full))
            assert stored["score_range"] == pytest.approx(np.ptp(full), rel=1e-5)


def test_keras_model_without_deconvolution_gives_labels_only(tmp_path):
    model = small_fcn(np.ones((STRIDE, STRIDE, 3, 3), np.float32), upsampled=False)
    image = np.full((*SIZE, 3), 7, np.uint8)
    (path,) = keras_references(model, Preprocessing("bgr", (0, 0, 0), (1, 1, 1)), [("flat", image)], tmp_path)
    with np.load(path) as stored:
        assert stored["scores"].size == 0
        assert stored["labels"].shape == GRID


def test_keras_model_that_gives_nan_is_refused(tmp_path):
    kernel = np.ones((STRIDE, STRIDE, 3, 3), np.float32)
    kernel[0, 0, 0, 0] = np.nan
    image = np.zeros((*SIZE, 3), np.uint8)
    with pytest.raises(UserError, match=r"NaN or infinite scores on night; check its weights\.$"):
        keras_references(
            small_fcn(kernel, upsampled=True), Preprocessing("bgr", (0, 0, 0), (1, 1, 1)), [("night", image)], tmp_path
        )
