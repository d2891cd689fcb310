"""fcn-build sensitivity as a user meets it: table, picture, result file, and one line per mistake."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from fcnedge.build_engine import cli
from fcnedge.calibration.ranges import read_ranges
from fcnedge.runtime import Bundle
from fcnedge.runtime.manifest import HeadSpec


def run(*words: object) -> int:
    try:
        return cli.main(["sensitivity", *(str(word) for word in words), "--threads", "1"])
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 1


@pytest.fixture
def own_bundle(loud_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(loud_bundle, tmp_path / "own")


def change(bundle: Path, **fields: object) -> None:
    manifest = replace(Bundle.load(bundle).manifest, **fields)
    (bundle / "model.json").write_text(manifest.to_json(), encoding="utf-8")


def test_table_picture_and_result_agree(capsys, loud_bundle, voc_folder, tmp_path):
    picture, result = tmp_path / "new" / "s.png", tmp_path / "s.json"
    assert run(loud_bundle, "--data", voc_folder, "--images", 6, "--picture", picture, "--json", result) == 0
    printed, err = capsys.readouterr()
    assert [line.split()[0] for line in printed.splitlines()[1:3]] == ["loud", "ghost"]
    assert err == ""
    report = json.loads(result.read_text(encoding="utf-8"))
    assert (report["model"], report["size"]) == ("loud", "64x64 stretch")
    assert report["split"] == "train without calibration, 6 pictures"
    found = report["sensitivity"]
    assert found["pictures"] == 6
    assert [layer["layer"] for layer in found["layers"]][:2] == ["loud", "ghost"]
    assert f"{found['layers'][0]['alone']['drop']:.2f}" in printed.splitlines()[1].split()
    image = cv2.imread(str(picture))
    assert image is not None
    assert image.shape == (round(120 * (1.4 + 0.2 * 7)), 1200, 3)


def test_longest_bar_of_the_drop_is_on_top(loud_bundle, voc_folder, tmp_path):
    assert run(loud_bundle, "--data", voc_folder, "--images", 4, "--picture", tmp_path / "s.png") == 0
    image = cv2.imread(str(tmp_path / "s.png")).astype(int)
    blue = (abs(image - (180, 119, 31)).sum(axis=2) < 30)[:, 700:]  # tab:blue; the right half shows the drop
    rows = blue.sum(axis=1)
    assert rows.max() > 200
    assert rows.argmax() < image.shape[0] / 3


def test_one_picture_and_top_are_enough_for_a_picture(capsys, loud_bundle, voc_folder, tmp_path):
    words = [loud_bundle, "--data", voc_folder, "--split", "val", "--images", 1, "--top", 1, "--exclude", "mix, ghost"]
    assert run(*words, "--picture", tmp_path / "s.png") == 0
    assert "and 4 more, which cost less" in capsys.readouterr().out
    assert (tmp_path / "s.png").stat().st_size > 1000


def test_dry_run_measures_nothing(capsys, loud_bundle, voc_folder, tmp_path):
    assert run(loud_bundle, "--data", voc_folder, "--dry-run", "--json", tmp_path / "s.json", "--images", 5) == 0
    assert capsys.readouterr().out == f"would measure 7 convolutions of {loud_bundle} on 5 pictures\n"
    assert not (tmp_path / "s.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--images", "0"), "--images is 0; it must be 1 or more."),
        (("--top", "0"), "--top is 0; it must be 1 or more."),
        (("--exclude", "loud,"), "--exclude is 'loud,'; it takes names of convolutions with commas between them."),
        (("--exclude", "dragon"), "the graph has no convolution dragon; it has stem, mix,"),
        (("--ranges", "nowhere.json"), "there are no ranges at nowhere.json; collect them with fcn-calibrate ranges."),
        (("--split", "nowhere"), "has no split 'nowhere'; it has train, val."),
        (("--picture", "."), ". is a folder; choose the name of a file for --picture."),
    ],
)
def test_mistake_is_one_line(capsys, loud_bundle, voc_folder, words, message):
    assert run(loud_bundle, "--data", voc_folder, *words) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert (out, err.count("\n")) == ("", 1)


def test_ranges_of_another_graph_are_refused(capsys, make_loud_bundle, loud_bundle, voc_folder, tmp_path):
    other = make_loud_bundle(tmp_path / "other", bias=5.0)
    assert run(loud_bundle, "--data", voc_folder, "--ranges", other / "ranges.json") == 2
    assert "these ranges were collected on another graph: " in capsys.readouterr().err


def test_ranges_of_another_preprocessing_are_refused(capsys, own_bundle, voc_folder):
    change(own_bundle, input=replace(Bundle.load(own_bundle).manifest.input, fit="letterbox"))
    assert run(own_bundle, "--data", voc_folder) == 2
    assert "was collected with another input size, fit, mean, scale or channel order than" in capsys.readouterr().err


def test_bundle_that_gives_labels_is_refused(capsys, own_bundle, voc_folder):
    change(own_bundle, head=HeadSpec("labels"))
    assert run(own_bundle, "--data", voc_folder) == 2
    assert "gives labels and no class scores to compare" in capsys.readouterr().err


def test_dead_tensor_is_named(capsys, own_bundle, voc_folder):
    ranges = json.loads((own_bundle / "ranges.json").read_text(encoding="utf-8"))
    ranges["tensors"]["loud"] = {"minimum": 0, "maximum": 0, "threshold": 0}
    (own_bundle / "ranges.json").write_text(json.dumps(ranges), encoding="utf-8")
    assert read_ranges(own_bundle / "ranges.json").tensors["loud"].threshold == 0
    assert run(own_bundle, "--data", voc_folder) == 2
    assert "the range of tensor loud is clipped at 0" in capsys.readouterr().err
    assert run(own_bundle, "--data", voc_folder, "--exclude", "quiet,score", "--images", 1, "--top", 1) == 0


@pytest.mark.slow
def test_real_lite0_is_measured(capsys, lite0_bundle, voc_folder, tmp_path):
    """Every convolution of the architecture, depthwise ones and score layers too, on two pictures."""
    from fcnedge.calibration.collect import collect
    from fcnedge.calibration.pictures import choose_pictures

    ranges = tmp_path / "ranges.json"
    collect(Bundle.load(lite0_bundle), choose_pictures(voc_folder, "train"), threads=1).write(ranges)
    words = [lite0_bundle, "--ranges", ranges, "--data", voc_folder, "--images", 2, "--top", 3]
    assert run(*words, "--json", tmp_path / "s.json") == 0
    found = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["sensitivity"]
    layers = {layer["layer"]: layer for layer in found["layers"]}
    assert {"stem_conv", "score_fr", "score_pool3", "score_pool4"} <= set(layers)
    in_int8 = {name for name, layer in layers.items() if layer["float_reason"] is None}
    assert {"block0_depthwise", "block0_project", "conv7"} <= in_int8
    assert not {"stem_conv", "score_fr", "score_pool3", "score_pool4"} & in_int8
    assert sum(layer["alone"] is not None for layer in layers.values()) == 3
    assert all(5 < layer["alone_sqnr_db"] < 200 for layer in layers.values())
    assert f"and {len(layers) - 3} more, which cost less" in capsys.readouterr().out
