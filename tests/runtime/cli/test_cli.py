"""fcn-run: what it writes and what it says."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from fcnedge.runtime.cli import main

from .conftest import fcn_run, in_its_own_process, mask_of, read, write

needs_demo = pytest.mark.skipif(importlib.util.find_spec("skimage") is None, reason="the extra demo is not installed")


@pytest.mark.parametrize("backend", ["fake", "onnxruntime"])
def test_picture_into_a_folder(tmp_path, tiny_bundle, picture, capsys, backend):
    if backend == "onnxruntime":
        pytest.importorskip("onnxruntime", reason="the extra cpu is not installed")
    out = tmp_path / "out"
    assert fcn_run(picture, f"{out}/", "--model", tiny_bundle, "--json", tmp_path / "r.json", backend=backend) == 0
    mask = mask_of(out / "masks" / "ball.png")
    assert mask.shape == (60, 80)
    assert (mask[:25] == 1).all()
    assert (mask[35:] == 4).all()
    assert read(out / "overlays" / "ball.jpg").shape == (60, 80, 3)
    result = json.loads((tmp_path / "r.json").read_text())
    blue, red = (np.count_nonzero(mask == each) / mask.size for each in (1, 4))
    assert result["classes"]["blue"] == pytest.approx(blue)
    assert result["classes"]["red"] == pytest.approx(red)
    assert sum(result["classes"].values()) == pytest.approx(1)
    assert (result["backend"], result["precision"], result["model"]) == (backend, "fp32", "tiny")
    (source,) = result["sources"]
    assert source == {"uri": str(picture), "frames": 1, "skipped_files": 0, "warning": None, "live": None}
    assert (result["sink"], result["frames"]) == (f"{out}/", 1)
    assert result["frames_per_second"] == pytest.approx(1 / result["seconds"])
    assert set(result["stages"]) == {"preprocess", "infer", "head", "overlay", "total"}
    for times in result["stages"].values():
        assert 0 <= times["p50_ms"] <= times["p90_ms"] <= times["max_ms"]
    shown, errors = capsys.readouterr()
    assert errors == ""
    assert f"1 frame with tiny ({backend} fp32)" in shown
    assert f"written to {out}/" in shown


def test_folder_of_pictures_in_natural_order(tmp_path, tiny_bundle, pictures, capsys):
    out = tmp_path / "out"
    assert fcn_run(pictures, out, "--model", tiny_bundle, "--json", tmp_path / "r.json") == 0
    found = {path.stem: set(np.unique(mask_of(path))) for path in (out / "masks").iterdir()}
    assert found == {"img1": {0}, "img2": {1}, "img10": {4}}
    assert json.loads((tmp_path / "r.json").read_text())["sources"][0]["skipped_files"] == 1
    assert capsys.readouterr().err == "fcn-run: files passed over because they are no pictures, or damaged: 1\n"


def test_glob_of_pictures(tmp_path, tiny_bundle, pictures):
    assert fcn_run(pictures / "img1*.png", tmp_path / "out", "--model", tiny_bundle) == 0
    assert sorted(path.name for path in (tmp_path / "out" / "masks").iterdir()) == ["img1.png", "img10.png"]


def test_video_into_a_video(tmp_path, tiny_bundle, clip):
    assert fcn_run(clip, tmp_path / "out.avi", "--model", tiny_bundle, "--json", tmp_path / "r.json") == 0
    capture = cv2.VideoCapture(str(tmp_path / "out.avi"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 12
    assert capture.get(cv2.CAP_PROP_FPS) == 20
    assert json.loads((tmp_path / "r.json").read_text())["frames"] == 12


def test_frames_stops_after_so_many(tmp_path, tiny_bundle, clip):
    assert fcn_run(clip, tmp_path / "out", "--model", tiny_bundle, "--frames", 3) == 0
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 3


@pytest.mark.parametrize("sink", [[], ["null://"]])
def test_null_writes_nothing(tmp_path, tiny_bundle, picture, sink, monkeypatch, capsys):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert fcn_run(picture, *sink, "--model", tiny_bundle) == 0
    assert list(Path().iterdir()) == []
    assert "written to" not in capsys.readouterr().out


@needs_demo
def test_demonstration_photographs(tiny_bundle, capsys):
    assert fcn_run("demo://", "--model", tiny_bundle) == 0
    assert "frames with tiny" in capsys.readouterr().out


@needs_demo
def test_demonstration_clip(tiny_bundle, tmp_path):
    assert fcn_run("demo://clip", "--model", tiny_bundle, "--frames", 2, "--json", tmp_path / "r.json") == 0
    assert json.loads((tmp_path / "r.json").read_text())["frames"] == 2


@pytest.mark.parametrize("alpha", [0, 1])
def test_alpha_goes_from_frame_only_to_colour_only(tmp_path, tiny_bundle, picture, alpha):
    out = tmp_path / "out.png"
    assert fcn_run(picture, out, "--model", tiny_bundle, "--alpha", alpha, "--no-legend") == 0
    overlay, frame = read(out), read(picture)
    voc = {1: (0, 0, 128), 4: (128, 0, 0)}  # VOC's colours of class 1 and 4, BGR
    assert (overlay[:25] == (voc[1] if alpha else frame[:25])).all()
    assert (overlay[35:] == (voc[4] if alpha else frame[35:])).all()


def test_legend_can_be_left_out(tmp_path, tiny_bundle, picture):
    for name, more in (("with.png", []), ("without.png", ["--no-legend"])):
        assert fcn_run(picture, tmp_path / name, "--model", tiny_bundle, *more) == 0
    differs = read(tmp_path / "with.png") != read(tmp_path / "without.png")
    assert differs[-5:].any()
    assert not differs[:20].any()


def test_background_is_neither_painted_nor_in_the_legend(tmp_path, tiny_bundle):
    frame = np.full((60, 80, 3), (90, 80, 70), np.uint8)
    assert fcn_run(write(tmp_path / "dull.png", frame), tmp_path / "out.png", "--model", tiny_bundle) == 0
    assert (read(tmp_path / "out.png") == frame).all()


def test_sink_may_stand_after_the_options(tmp_path, tiny_bundle, picture):
    assert main([str(picture), "--model", str(tiny_bundle), "--backend", "fake", f"{tmp_path}/out/"]) == 0
    assert (tmp_path / "out" / "masks" / "ball.png").is_file()


def test_folder_name_that_is_not_utf8_is_written_and_shown(tmp_path, tiny_bundle, picture):
    out = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    try:
        Path(out).mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    done = in_its_own_process(picture, out, "--model", tiny_bundle, "--json", tmp_path / "r.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "r.json").read_bytes())["sink"] == out
