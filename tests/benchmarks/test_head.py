"""The comparison of heads: what it reports follows from the scores, and its two heads agree but for near-ties."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import signal

from fcnedge.benchmarks.head import compare_heads, dense_head, main, mixed_cells, synthetic_scores, unequal_margins
from fcnedge.runtime.errors import UserError

pytest.importorskip("onnxruntime", reason="the extra cpu is not installed")
pytest.importorskip("onnx", reason="the extra build is not installed")


def deconvolution(scores: np.ndarray, stride: int) -> np.ndarray:
    """(C, h, w) → (C, h * stride, w * stride) float64, by SciPy: zeros between, the tent over them, symmetric crop."""
    tent = 1 - np.abs(np.arange(2 * stride) - (stride - 0.5)) / stride
    spread = np.zeros((len(scores), *(side * stride for side in scores.shape[1:])))
    spread[:, ::stride, ::stride] = scores
    full = signal.convolve(spread, np.outer(tent, tent)[None], mode="full")
    low, height, width = stride // 2, scores.shape[1] * stride, scores.shape[2] * stride
    return full[:, low : low + height, low : low + width]


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return synthetic_scores(2, classes=5, grid=(12, 9), seed=3)


def test_comparison_counts_what_it_was_given(pictures):
    result = compare_heads(pictures, stride=8, repeats=1)
    assert result.pictures == 2
    assert all(math.isfinite(each) and each > 0 for each in (result.dense_ms, result.sparse_ms, result.ratio))
    mixed, cells = 0, 0
    for scores in pictures:
        labels = scores.argmax(axis=0)
        for row in range(11):
            for column in range(8):
                mixed += len(np.unique(labels[row : row + 2, column : column + 2])) > 1
                cells += 1
    assert 0 < mixed < cells
    assert result.mixed_share == pytest.approx(mixed / cells)


def test_heads_differ_only_where_two_classes_tie(pictures):
    """ONNX Runtime sums in float32, scores are below 10: a larger margin would be a mistake in one of the heads."""
    result = compare_heads(pictures, stride=8, repeats=1)
    assert result.max_unequal_margin < 1e-5
    assert result.unequal_pixels < 5


@pytest.mark.parametrize("stride", [2, 8, 16])
def test_dense_head_is_the_deconvolution(pictures, stride):
    for scores in pictures:
        reference = deconvolution(scores, stride)
        labels = dense_head(5, stride)(scores)
        margin = reference.max(axis=0) - np.take_along_axis(reference, labels[None].astype(np.intp), axis=0)[0]
        assert labels.shape == reference.shape[1:]
        assert margin.max() < 1e-5


def test_margin_is_the_difference_of_the_interpolated_scores(pictures):
    """At pixels away from the border, where deconvolution and interpolation are the same."""
    scores, stride = pictures[0], 8
    reference = deconvolution(scores, stride)
    a, b = (np.full(reference.shape[1:], label, np.uint8) for label in (1, 3))
    inner = (slice(stride, -stride), slice(stride, -stride))
    b[:] = 1
    b[inner] = 3
    expected = np.abs(reference[1] - reference[3])[inner]
    np.testing.assert_allclose(unequal_margins(scores, stride, a, b), expected.ravel(), atol=1e-9)


def test_comparison_notices_heads_that_disagree(pictures, monkeypatch):
    """With one dense label turned: the comparison is not blind."""
    from fcnedge.benchmarks import head as module

    real = module.dense_head

    def turned(classes, stride):
        run = real(classes, stride)

        def other(scores):
            labels = run(scores)
            labels[20, 20] = (labels[20, 20] + 1) % classes
            return labels

        return other

    monkeypatch.setattr(module, "dense_head", turned)
    result = compare_heads(pictures, stride=8, repeats=1)
    assert result.unequal_pixels >= 2
    assert result.max_unequal_margin > 1e-3


def test_mixed_cells_of_a_known_grid():
    scores = np.zeros((2, 3, 4), np.float32)
    scores[1, 0, 0] = 1
    assert mixed_cells(scores).tolist() == [[True, False, False], [False, False, False]]


@pytest.mark.parametrize(("scores", "stride"), [([], 8), ([np.zeros((2, 3, 3), np.float32)], 7)])
def test_what_cannot_be_compared_is_refused(scores, stride):
    with pytest.raises(UserError):
        compare_heads(scores, stride)


def test_command_reads_scores_and_writes_the_result(tmp_path, pictures, capsys):
    np.savez(tmp_path / "scores.npz", first=pictures[0], both=np.stack(pictures))
    words = ["--scores", tmp_path / "scores.npz", "--repeats", 1, "--json", tmp_path / "result.json"]
    assert main([str(word) for word in words]) == 0
    assert json.loads((tmp_path / "result.json").read_text())["pictures"] == 3
    assert capsys.readouterr().err == ""


def test_scores_that_are_none_are_a_users_error(tmp_path, capsys):
    (tmp_path / "scores.npz").write_text("no scores")
    assert main(["--scores", str(tmp_path / "scores.npz")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "is not a readable .npz of scores" in line
