"""fcn-bench compare: real peers on the shipped model at a small size, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fcnedge.benchmarks import cli, compare
from fcnedge.benchmarks.compare import CompareOptions
from fcnedge.runtime.errors import UserError

KEYS = {"name", "p50_ms", "ratio", "ratio_low", "ratio_high", "miou7"}
SAME_ARITHMETIC = ("Keras predict", "ONNX Runtime on OnnxSlim", "LiteRT float")
PACKAGES = {"LiteRT float": "ai_edge_litert", "LiteRT int8": "ai_edge_litert", "ONNX Runtime on OnnxSlim": "onnxslim"}


@pytest.fixture(scope="module")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the shipped model at 96x96: trained, so that labels mean something."""
    from fcnedge.build_engine.build import build_bundle
    from fcnedge.build_engine.model_source import resolve_source

    source = resolve_source("fcn8s-lite0-voc", size=(96, 96))
    output = tmp_path_factory.mktemp("small") / source.name
    build_bundle(source, output)
    return output


def options(bundle: Path, data: Path, **other: object) -> CompareOptions:
    given = {"model": str(bundle), "threads": 1, "frames": 2, "rounds": 2, "frame_size": (64, 96)} | other
    return CompareOptions(data, **given)


def run(*words: object) -> int:
    try:
        return cli.main([str(word) for word in words])
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 1


@pytest.mark.slow
def test_every_peer_gives_masks_of_the_same_model(small_bundle, voc_folder, tmp_path, capsys):
    """Rows that compute what Keras computes score what Keras scores; missing ones say which package is missing."""
    files = [word for kind in ("json", "html", "markdown") for word in (f"--{kind}", tmp_path / f"r.{kind}")]
    words = ["compare", "--data", voc_folder, "--model", small_bundle, "--threads", 1, "--frames", 2, "--rounds", 2]
    assert run(*words, "--frame-size", "96x64", *files) == 0
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in report["rows"]}
    assert all(set(row) >= KEYS for row in rows.values())
    ours = [name for name in rows if name.startswith("ours ")]
    assert ours == ["ours openvino fp32", "ours onnxruntime fp32"]
    by_hand = rows["by hand"]
    for name, row in rows.items():
        if "CUDA" in name or "TensorRT" in name:
            continue
        package = PACKAGES.get(name)
        if package is not None and importlib.util.find_spec(package) is None:
            assert row["reason"].endswith("pip install 'fcnedge[peers]'")
            continue
        assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"], name
        if name == "OpenCV DNN" and row["p50_ms"] > 1000:  # its dense deconvolutions take seconds
            assert row["reason"].startswith("mIoU not measured: 3 pictures of ")
            continue
        assert (row["reason"], row["frames"]) == (None, 4), name
        if name in SAME_ARITHMETIC:
            assert row["miou7"] == pytest.approx(by_hand["miou7"], abs=1e-4), name
        elif name != "LiteRT int8":  # eight pictures of plain colours are no calibration
            assert row["miou7"] == pytest.approx(by_hand["miou7"], abs=0.03), name  # argmax before or after enlarging
    assert rows[report["reference"]]["ratio"] == 1
    out = capsys.readouterr().out
    for text in (out, *((tmp_path / f"r.{kind}").read_text(encoding="utf-8") for kind in ("html", "markdown"))):
        assert all(name in text for name in rows)


def test_ctrl_c_reports_what_was_timed(colour_bundle, voc_folder, tmp_path):
    """By a real signal to the whole group, as a terminal sends it, in the third round or so of very many."""
    told = tmp_path / "r.json"
    words = [compare.__file__, "--data", voc_folder, "--model", colour_bundle, "--threads", 1, "--json", told]
    words += ["--rows", "ours onnxruntime", "--rounds", 100_000, "--frames", 1]
    ours, theirs = os.openpty()  # progress is shown on terminals only
    with subprocess.Popen(
        [sys.executable, *map(str, words)], stdout=subprocess.PIPE, stderr=theirs, text=True, start_new_session=True
    ) as process:
        os.close(theirs)
        shown = b""
        while b"timing in turns" not in shown or b" 3/100000" not in shown:
            shown += os.read(ours, 1 << 16)
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 130
    report = json.loads(told.read_text(encoding="utf-8"))
    assert report["partial"] == "interrupted while timing"
    (row,) = report["rows"]
    assert 3 <= row["frames"] < 100_000
    assert row["p50_ms"] > 0
    assert out.startswith("partial: interrupted while timing")


def test_pictures_that_are_scored_are_not_calibrated_on(colour_bundle, voc_folder):
    with pytest.raises(UserError, match=r"^3 pictures of val are in val too, val_000000 among them; ranges are never "):
        compare.compare(options(colour_bundle, voc_folder, calibration_split="val"))


def test_peers_of_a_bundle_of_unknown_origin_say_so_and_ours_is_measured(colour_bundle, voc_folder):
    report = compare.compare(options(colour_bundle, voc_folder, rows="ours onnx, BY HAND"))
    ours, by_hand = report.rows
    assert (ours.name, ours.ratio) == ("ours onnxruntime fp32", 1)
    assert by_hand.reason.startswith("what the bundle was built from is not known ('colours' is not a model ")
    assert by_hand.reason.endswith("name it with --original, and its weights with --weights.")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"threads": 0}, r"^--threads is 0; it must be from 1 to "),
        ({"calibration_images": 0}, r"^--calibration-images is 0; it must be 1 or more\.$"),
        ({"rows": "nothing"}, r"^--rows nothing names no row; "),
        (
            {"rows": "ours", "reference": "by hand"},
            r"^--reference is 'by hand'; the rows are ours openvino fp32, ours ",
        ),
        ({"deeplab": (Path("gone.tflite"),)}, r"^there is no model gone\.tflite; "),
        ({"deeplab": (Path("a/x.tflite"), Path("b/x.tflite"))}, r"^--deeplab has two files named x, "),
        ({"json": Path("/")}, r"^/ is a folder; choose the name of a file for --json\.$"),
        ({"original": "fcn8s-lite0"}, r"^what the bundle was built from is not known|^fcn8s-lite0 is an architecture "),
    ],
)
def test_what_makes_no_sense_is_refused(colour_bundle, voc_folder, other, message):
    with pytest.raises(UserError, match=message):
        compare.compare(options(colour_bundle, voc_folder, **other))
