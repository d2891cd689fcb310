"""fcn-bench as a user meets it: one table, one JSON file, one line per mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fcnedge.benchmarks import accuracy, cli


def run(*words: object) -> int:
    try:
        return cli.main([str(word) for word in words])
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 1


def test_accuracy_prints_and_writes_the_report(capsys, tmp_path, colour_bundle, voc_folder):
    words = ["accuracy", colour_bundle, "--data", voc_folder, "--subset", "bicycle", "--backend", "onnxruntime"]
    assert run(*words, "--threads", 1, "--json", tmp_path / "r.json") == 0
    result = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert tuple(result) == ("tool", "format", "machine", "split", "pictures", "subset", "threads", "rows")
    first, second = result["rows"]
    assert tuple(first) == (
        *("model", "size", "precision", "backend", "graph_bytes", "miou", "miou_subset", "drop_points", "labels_equal"),
        *("pixel_accuracy", "p50_ms", "iou"),
    )
    out, error = capsys.readouterr()
    assert error == ""
    lines = [line.split() for line in out.splitlines()]
    assert lines[1][:4] == ["96x96", "letterbox", "fp32", "onnxruntime"]
    assert lines[2][2:4] == ["fp16", "onnxruntime"]
    assert lines[1][6] == f"{100 * first['miou_subset']:.2f}"
    assert lines[2][7] == f"{second['drop_points']:.2f}"
    assert lines[-1][:2] == ["colours", "at"]


def test_script_is_the_same_as_the_command(tmp_path, colour_bundle, voc_folder):
    words = [str(colour_bundle), "--data", str(voc_folder), "--subset", "bicycle", "--json", str(tmp_path / "r.json")]
    command = [sys.executable, accuracy.__file__, *words, "--backend", "onnxruntime"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "fp16" in done.stdout
    assert len(json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["rows"]) == 2


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "fcn-bench: the following arguments are required: COMMAND. See fcn-bench --help."),
        (("speed",), "fcn-bench: argument COMMAND: invalid choice: 'speed'"),
        (("accuracy", "b"), "fcn-bench accuracy: the following arguments are required: --data. See fcn-bench accuracy"),
        (("accuracy", "b", "--data", "v", "--prec", "fp32"), "unrecognized arguments: --prec fp32"),
        (("accuracy", "gone", "--data", "v"), "fcn-bench accuracy: there is no bundle at gone; build one with: "),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, tuple) else "",
)
def test_mistake_is_one_line_and_exit_2(capsys, tmp_path, monkeypatch, words, complaint):
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 2
    out, error = capsys.readouterr()
    assert out == ""
    (line,) = error.splitlines()
    assert complaint in line


def test_split_that_is_not_there_is_said_with_those_that_are(capsys, colour_bundle, voc_folder):
    assert run("accuracy", colour_bundle, "--data", voc_folder, "--split", "test") == 2
    out, error = capsys.readouterr()
    assert (out, error) == ("", f"fcn-bench accuracy: {voc_folder} has no split 'test'; it has train, val.\n")


@pytest.mark.parametrize("command", ["", "accuracy"])
def test_help_is_exit_0_and_names_every_option(capsys, command):
    assert run(*([command] if command else []), "--help") == 0
    out, error = capsys.readouterr()
    assert error == ""
    expected = {
        "": ["accuracy"],
        "accuracy": ["bundle", "--data", "--split", "--precision", "--backend", "--subset", "--threads", "--json"],
    }[command]
    assert [word for word in expected if word not in out] == []
    assert not list(Path.cwd().glob("r.json"))
