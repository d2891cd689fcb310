"""benchmarks/sizes.py: mistakes are found before the first build, the plot is drawn, and one size runs to the end."""

from __future__ import annotations

import json
import sys
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
        (["--threads", "0"], "--threads is 0; it must be 1 or more."),
        (["--picture", "."], ". is a folder; choose the name of a file for --picture."),
        (["--json", "."], ". is a folder; choose the name of a file for --json."),
        (["--picture", "file/p.png"], "file/p.png cannot be written (File exists); choose another place for --pic"),
        (
            ["--picture", "file/a/p.png"],
            "p.png cannot be written (Not a directory); choose another place for --picture",
        ),
        (["--picture", f"{'n' * 300}/p.png"], "p.png cannot be written (File name too long); choose another place"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_mistake_is_found_before_the_first_build(capsys, tmp_path, voc_folder, monkeypatch, words, complaint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setattr(sizes, "build_bundle", lambda *_: pytest.fail("a size was built in vain"))
    assert run("fcn8s-lite0", "--data", voc_folder, *words) == 2
    out, error = capsys.readouterr()
    assert out == ""
    (line,) = error.splitlines()
    assert line.startswith("sizes.py: ")
    assert complaint in line


def test_missing_matplotlib_is_said_before_the_first_build(capsys, tmp_path, voc_folder, monkeypatch):
    monkeypatch.setattr(sizes, "build_bundle", lambda *_: pytest.fail("a size was built in vain"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run("fcn8s-lite0", "--data", voc_folder, "--picture", tmp_path / "p.png") == 2
    expected = "sizes.py: matplotlib is not installed; install it with: pip install 'fcnedge[train]'\n"
    assert capsys.readouterr().err == expected


def test_table_is_there_when_the_picture_cannot_be_written_after_all(capsys, tmp_path, voc_folder, monkeypatch):
    """The folder goes while the sizes are measured; `ROW` has two classes in its subset, and the table says so."""
    (tmp_path / "plots").mkdir()

    def measured(_: object) -> SizesResult:
        (tmp_path / "plots").rmdir()
        (tmp_path / "plots").write_text("now a file", encoding="utf-8")
        return SizesResult("a machine", 2, (ROW,))

    monkeypatch.setattr(sizes, "measure_sizes", measured)
    assert run("m", "--data", voc_folder, "--picture", tmp_path / "plots" / "p.png") == 2
    out, error = capsys.readouterr()
    header, row = out.splitlines()
    assert header.split("  ")[0] == "size"
    assert "mIoU-2 %" in header
    assert row.split() == ["96x64", "stretch", "60.00", "50.00", "12.00"]
    assert "p.png cannot be written (" in error


def test_plot_goes_into_a_folder_that_is_made_and_under_any_name(tmp_path):
    assert blue_points(drawn((ROW,), tmp_path / "new" / "sizes.picture")) == 1


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
