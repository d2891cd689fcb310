"""benchmarks/sizes.py: mistakes are found before the first build, the plot is drawn, and one size runs to the end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from fcnedge.benchmarks import sizes
from fcnedge.benchmarks.accuracy import Accuracy
from fcnedge.benchmarks.sizes import SizesResult, draw_sizes

ROW = Accuracy(
    model="m",
    size="96x64 stretch",
    precision="fp32",
    split="val, 3 pictures",
    pictures=3,
    miou=0.5,
    subset=("cat", "dog"),
    miou_subset=0.6,
    pixel_accuracy=0.9,
    iou={"cat": 0.5, "dog": 0.7},
    p50_ms=12.0,
)


def drawn(rows: tuple[Accuracy, ...], path: Path) -> np.ndarray:
    draw_sizes(SizesResult("a machine", 2, rows), path)
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture


def blue_points(picture: np.ndarray) -> int:
    """Connected spots of Matplotlib's tab:blue, #1f77b4."""
    spots = (np.abs(picture.astype(int) - [0xB4, 0x77, 0x1F]).max(axis=2) < 8).astype(np.uint8)
    return sum(stats[cv2.CC_STAT_AREA] > 20 for stats in cv2.connectedComponentsWithStats(spots)[2][1:])


@pytest.mark.parametrize("count", [1, 4])
def test_plot_has_one_point_per_row(tmp_path, count):
    rows = tuple(replace(ROW, p50_ms=10.0 * (i + 1), miou_subset=0.5 + 0.1 * i) for i in range(count))
    assert blue_points(drawn(rows, tmp_path / "sizes.png")) == count


def run(*words: object) -> int:
    return sizes.main([str(word) for word in words])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--sizes", "512"], "--sizes: a size is WIDTHxHEIGHT in pixels, such as 512x320; got '512'."),
        (["--sizes", "96x64,"], "--sizes: a size is WIDTHxHEIGHT in pixels, such as 512x320; got ''."),
        (["--sizes", "96x64,100x100"], "size 100x100 does not fit: both sides must be multiples of 32"),
        (["--sizes", "96x64", "--fits", "stretch,crop"], "--fits has 'crop'; it takes stretch and letterbox."),
        (["--split", "test"], "has no split 'test'; it has train, val."),
        (["--weights", "gone.h5"], "there is no weights file gone.h5; check the path."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistake_is_found_before_the_first_build(capsys, voc_folder, monkeypatch, words, complaint):
    monkeypatch.setattr(sizes, "build_bundle", lambda *_: pytest.fail("a size was built in vain"))
    assert run("fcn8s-lite0", "--data", voc_folder, *words) == 2
    out, error = capsys.readouterr()
    assert out == ""
    (line,) = error.splitlines()
    assert line.startswith("sizes.py: ")
    assert complaint in line


@pytest.mark.slow
def test_one_size_is_built_scored_and_drawn(capsys, tmp_path, voc_folder):
    pytest.importorskip("skimage", reason="bundles are verified on the demo photographs")
    words = ["fcn32s-lite0", "--data", voc_folder, "--sizes", " 64x32", "--json", tmp_path / "r.json"]
    assert run(*words, "--picture", tmp_path / "sizes.png", "--threads", 1) == 0
    result = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    (row,) = result["rows"]
    assert (row["model"], row["size"], row["pictures"]) == ("fcn32s-lite0", "64x32 stretch", 3)
    assert set(row["iou"]) == {"background", "aeroplane", "bicycle"}
    assert result["threads"] == 1
    assert result["machine"].endswith("cores")
    assert "64x32 stretch" in capsys.readouterr().out
    assert (tmp_path / "sizes.png").is_file()
