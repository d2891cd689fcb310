"""The comparison of heads: what it reports follows from the scores, and its two heads agree but for near-ties."""

from __future__ import annotations

import json
import math
import zipfile

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


@pytest.mark.parametrize(
    ("scores", "stride", "repeats", "complaint"),
    [
        ([], 8, 1, "there are no scores to compare on"),
        ([np.zeros((2, 3, 3), np.float32)], 7, 1, "stride is 7"),
        ([np.zeros((2, 3, 3), np.float32)], 0, 1, "stride is 0"),
        ([np.zeros((2, 3, 3), np.float32)], 8, 0, "timed 0 times"),
    ],
)
def test_what_cannot_be_compared_is_refused(scores, stride, repeats, complaint):
    with pytest.raises(UserError, match=complaint):
        compare_heads(scores, stride, repeats)


def test_command_reads_scores_and_writes_the_result(tmp_path, pictures, capsys):
    np.savez(tmp_path / "scores.npz", first=pictures[0], both=np.stack(pictures))
    words = ["--scores", tmp_path / "scores.npz", "--repeats", 1, "--json", tmp_path / "result.json"]
    assert main([str(word) for word in words]) == 0
    assert json.loads((tmp_path / "result.json").read_text())["pictures"] == 3
    assert capsys.readouterr().err == ""


def refusal(capsys, *words: object) -> str:
    """Run, expect a user's error and return its one line."""
    assert main([str(word) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("head.py: ")
    return line


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--pictures", 0), "--pictures is 0; it must be 1 or more."),
        (("--pictures", -1), "--pictures is -1; it must be 1 or more."),
        (("--repeats", 0), "--repeats is 0; it must be 1 or more."),
        (("--stride", 0), "--stride is 0; it must be even, and 2 or more."),
        (("--stride", -8), "--stride is -8; it must be even, and 2 or more."),
        (("--stride", 7), "--stride is 7; it must be even, and 2 or more."),
    ],
)
def test_number_that_nothing_can_be_measured_with_is_refused(capsys, words, complaint):
    assert refusal(capsys, *words) == f"head.py: {complaint}"


def test_scores_that_are_none_are_a_users_error(tmp_path, capsys):
    (tmp_path / "scores.npz").write_text("no scores")
    assert "is not a readable .npz of scores" in refusal(capsys, "--scores", tmp_path / "scores.npz")


def test_single_array_is_not_taken_for_an_archive(tmp_path, pictures, capsys):
    np.save(tmp_path / "scores.npy", pictures[0])
    line = refusal(capsys, "--scores", tmp_path / "scores.npy")
    assert line.endswith("scores.npy is a single array, not an .npz of scores; save it with np.savez.")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_archive_is_a_users_error(tmp_path, capsys, save):
    path = tmp_path / "scores.npz"
    save(path, scores=np.arange(3 * 16, dtype=np.float32).reshape(3, 4, 4))
    whole = path.read_bytes()
    for at in (0, 4, 30, 60, len(whole) // 2):
        path.write_bytes(whole[:at])
        assert "is not a readable .npz of scores" in refusal(capsys, "--scores", path)
    encrypted = bytearray(whole)
    for flags in (6, whole.index(b"PK\x01\x02") + 8):
        encrypted[flags] |= 1
    path.write_bytes(encrypted)
    assert "password required" in refusal(capsys, "--scores", path)
    changed = bytearray(whole)
    changed[whole.index(b"PK\x01\x02") - 20] ^= 0xFF
    path.write_bytes(changed)
    assert "is not a readable .npz of scores" in refusal(capsys, "--scores", path)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((1, 1, 3, 4, 4), np.float32),
        np.zeros((3, 0, 4), np.float32),
        np.zeros((0, 3, 4, 4), np.float32),
        np.zeros((3, 4, 4), np.int64),
        np.full((3, 4, 4), "scores"),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_array_that_is_no_scores_is_named(tmp_path, capsys, array):
    np.savez(tmp_path / "scores.npz", first=array)
    line = refusal(capsys, "--scores", tmp_path / "scores.npz")
    assert f"holds first, {array.dtype} of shape {array.shape}; expected float32 or float16 (C, h, w) or" in line


def test_archive_with_a_stray_file_is_a_users_error(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "scores.npz", "w") as archive:
        archive.writestr("readme.txt", "scores are elsewhere")
    assert "holds readme.txt, " in refusal(capsys, "--scores", tmp_path / "scores.npz")
