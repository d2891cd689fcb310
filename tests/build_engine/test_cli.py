"""fcn-build as a user meets it: exit codes, one line per mistake, and nothing written that was not asked for."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from fcnedge.build_engine import cli
from fcnedge.build_engine.models.weights_file import _METADATA_KEY
from fcnedge.build_engine.precision import place
from fcnedge.calibration.activations import load_graph

MODEL = ["model", "fcn8s-lite0", "-o", "bundle"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, so that relative names and stray files show."""
    monkeypatch.chdir(tmp_path)


def run(*words: object) -> int:
    try:
        return cli.main([str(word) for word in words])
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 1


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a command line that is a user's mistake; give its one line of complaint."""
    assert run(*words) == 2
    out, error = capsys.readouterr()
    assert out == ""
    (line,) = error.splitlines()
    return line


def write_weights(path: Path, classes: int = 3, arch: str = "fcn8s-lite0") -> Path:
    names = [f"c{index}" for index in range(classes)]
    description = {"name": arch, "arch": arch, "classes": names, "size": [64, 96], "fit": "stretch"}
    metadata = {_METADATA_KEY: json.dumps(description)}
    safetensors.numpy.save_file({"x": np.zeros(1, np.float32)}, str(path), metadata=metadata)
    return path


# --- the GPU


@pytest.mark.parametrize("command", ["train", "engine"])
def test_commands_that_use_the_gpu_see_it(monkeypatch, command):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")  # hidden from all tests
    words = {"train": ("fcn8s-lite0", "--data", "gone", "-o", "run"), "engine": ("gone",)}[command]
    assert run(command, *words) == 2
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_model_hides_the_gpu_unless_told_which_to_take(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert run(*MODEL, "--dry-run") == 0
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert run(*MODEL, "--dry-run") == 0
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"


# --- mistakes


@pytest.mark.parametrize(
    ("size", "suggestion"),
    [
        ("500x375", "512x384"),
        ("96x65", "96x64"),
        ("5000x64", "4096x64"),
        ("99999968x320", "4096x320"),
        ("1x1", "32x32"),
    ],
)
def test_size_that_is_no_multiple_of_32_is_refused_with_the_nearest(capsys, size, suggestion):
    line = refusal(capsys, *MODEL, "--size", size, "--dry-run")  # said at once, not by Keras
    assert line == (
        f"fcn-build model: size {size} does not fit: both sides must be multiples of 32 up to 4096; try {suggestion}."
    )


@pytest.mark.parametrize("size", ["512", "512x", "x512", "0x64", "-64x64", "64 x 64", "64X64", "a"])
def test_size_of_another_form_is_refused(capsys, size):
    line = refusal(capsys, *MODEL, f"--size={size}")
    assert line == (
        f"fcn-build model: argument --size: a size is WIDTHxHEIGHT in pixels, such as 512x320; got {size!r}. "
        "See fcn-build model --help."
    )


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("paint",), "invalid choice: 'paint'"),
        (("model",), "the following arguments are required: model, -o/--output"),
        (("model", "fcn8s-lite0"), "the following arguments are required: -o/--output"),
        ((*MODEL, "--sise", "64x64"), "unrecognized arguments: --sise 64x64"),
        ((*MODEL, "--si", "64x64"), "unrecognized arguments: --si 64x64"),  # no abbreviations: a new option breaks them
        ((*MODEL, "--fit", "crop"), "argument --fit: invalid choice: 'crop'"),
        ((*MODEL, "--fc-channels", "many"), "argument --fc-channels: invalid int value: 'many'"),
        (("train", "fcn8s-lite0", "-o", "run"), "the following arguments are required: --data"),
        (("inspect",), "the following arguments are required: bundle"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_command_line_is_refused_with_the_way_to_the_help(capsys, words, complaint):
    line = refusal(capsys, *words)
    assert complaint in line
    name = " ".join(["fcn-build", *(word for word in words[:1] if word != "paint")])
    assert line.startswith(f"{name}: ")
    assert line.endswith(f"See {name} --help.")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("model", "fcn8s-resnet", "-o", "b"), "'fcn8s-resnet' is not a model that fcnedge knows; choose one of "),
        ((*MODEL, "--fc-channels", "0"), "--fc-channels is 0; it must be 1 or more."),
        ((*MODEL, "--weights", "gone.h5"), "there is no weights file gone.h5; check the path."),
        ((*MODEL, "--weights", "cut.safetensors"), "cut.safetensors is not a readable safetensors file: "),
        ((*MODEL, "--weights", "w.safetensors", "--classes", "a,b"), "scores 3 classes, --classes names 2; they must"),
        ((*MODEL, "--weights", "other.safetensors"), "was trained as fcn16s-vgg16, not as fcn8s-lite0"),
        ((*MODEL, "--classes", "gone.txt"), "the class list gone.txt cannot be read "),
        ((*MODEL, "--classes", "a,a"), "--classes a,a names a class twice; every name must differ."),
        (("model", "fcn8s-lite0", "-o", "file"), "file exists and is not a bundle; choose another name for -o."),
        (("model", "fcn8s-lite0", "-o", "full"), "full exists and is not a bundle; choose another name for -o."),
        (("model", "fcn8s-lite0", "-o", "full", "--force"), "full exists and is not a bundle; choose another name"),
        (("model", "fcn8s-lite0", "-o", "old"), "old exists and its model.json is not one that this fcnedge reads"),
        (("model", "fcn8s-lite0", "-o", "file/b"), "file is a file, so no bundle can lie in it; choose another place"),
        pytest.param(
            *(("model", "fcn8s-lite0", "-o", "/proc/x"), "/proc/x cannot be written ("),
            marks=pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no /proc here"),
        ),
        ((*MODEL, "--verify", "gone"), "gone does not exist"),
        ((*MODEL, "--verify", "empty"), "the folder empty holds no pictures ("),
        ((*MODEL, "--verify", "bad.png"), "bad.png is not a picture that OpenCV can read, whatever its name says"),
        ((*MODEL, "--verify", "full"), "bad.jpg is truncated: it lacks JPEG's end-of-image marker; copy it again"),
        (("inspect", "gone"), "there is no bundle at gone; build one with: fcn-build model"),
        (("inspect", "old"), "model.json is not valid JSON ("),
        (("inspect", "file"), "there is no bundle at file; "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_users_mistake_is_one_line_and_exit_2(capsys, tmp_path, words, complaint):
    for folder in ("empty", "full", "old"):
        (tmp_path / folder).mkdir()
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "old" / "model.json").write_text("{", encoding="utf-8")
    (tmp_path / "bad.png").write_bytes(b"no picture at all")
    (tmp_path / "full" / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    write_weights(tmp_path / "w.safetensors")
    write_weights(tmp_path / "other.safetensors", arch="fcn16s-vgg16")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:50])
    before = sorted(tmp_path.rglob("*"))
    line = refusal(capsys, *words)
    assert line.startswith(f"fcn-build {words[0]}: ")
    assert complaint in line
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--precision", "fp8"), "--precision has 'fp8'; it takes fp32, fp16, int8 with commas between them."),
        (("--precision", "fp16,"), "--precision is 'fp16,'; it takes names with commas between them."),
        (("--precision", "int8"), "int8 needs activation ranges, and fcn8s-lite0 has none; build it in fp32, collect"),
        (("--precision", "int8", "--ranges", "gone.json"), "there are no ranges at gone.json; collect them with fcn-"),
        (("--precision", "fp16", "--ranges", "bad.json"), "bad.json is not valid JSON ("),
        (("--ranges", "bad.json"), "--ranges is for FP16 and INT8; add --precision fp32,fp16,int8."),
        (("--exclude", "conv"), "--exclude names layers that INT8 leaves in float; add int8 to --precision."),
        (("--precision", "fp16", "--max-drop", "1"), "--max-drop is measured on labelled pictures; name a folder in"),
        (("--precision", "fp16", "--max-drop", "-1", "--data", "VOC"), "--max-drop is -1; it is in points of mIoU"),
        (("--precision", "fp16", "--max-drop", "nan", "--data", "VOC"), "--max-drop is nan; it is in points of mIoU"),
        (("--max-drop", "1", "--data", "VOC"), "--max-drop limits what FP16 and INT8 lose; add --precision fp32,fp16"),
        (("--data", "empty"), "empty is not a VOC folder: it has no ImageSets/Segmentation; pass the folder VOC2012"),
        (("--data", "VOC", "--split", "test"), "VOC has no split 'test'; it has train, val."),
        (("--data", "unmasked"), "names files that are not there: "),
        (("--data", "VOC", "--classes", "2"), "holds the ids 2, which are none of 2 classes"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_precision_that_cannot_be_built_is_refused_at_once(capsys, tmp_path, voc_folder, words, complaint):
    (tmp_path / "empty").mkdir()
    (tmp_path / "VOC").symlink_to(voc_folder)
    shutil.copytree(voc_folder, tmp_path / "unmasked")
    shutil.rmtree(tmp_path / "unmasked" / "SegmentationClass")
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    line = refusal(capsys, *MODEL, *words)
    assert line.startswith("fcn-build model: ")
    assert complaint in line
    assert not (tmp_path / "bundle").exists()


def test_wrong_ranges_end_the_build_at_max_drop(
    capsys, tmp_path, lite0_build, lite0_ranges, lite0_bundle, lite0_voc, replay
):
    layers = place(load_graph(lite0_bundle / "model.fp32.onnx")).layers
    tensors = {
        name: dataclasses.replace(each, threshold=each.threshold / 50) for name, each in lite0_ranges.tensors.items()
    }
    dataclasses.replace(lite0_ranges, tensors=tensors).write(tmp_path / "wrong.json")
    words = [*MODEL, "--size", "96x64", "--classes", "5", "--verify", lite0_build.pictures, "--precision", "fp16,int8"]
    # three layers left: the search for exceptions then takes seconds
    words += ["--exclude", ",".join(layer.node for layer in layers[:-3])]
    line = refusal(
        capsys,
        *words,
        "--ranges",
        "wrong.json",
        "--data",
        lite0_voc,
        "--max-drop",
        "5",
        "--weights",
        _weights(lite0_build),
    )
    assert "points of mIoU" in line
    assert "INT8" in line or "int8" in line
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.json"]


def _weights(lite0_build) -> Path:
    return lite0_build.bundle.parent / "lively.safetensors"


BLOCKED = "import sys; sys.modules.update(dict.fromkeys(sys.argv.pop(1).split())); "


@pytest.mark.parametrize(
    ("blocked", "words", "sentence"),
    [
        ("onnx_ir", MODEL, "onnx-ir is not installed; install it with: pip install 'fcnedge[build]'"),
        ("skimage", MODEL, "scikit-image is not installed; install it with: pip install 'fcnedge[demo]'"),
        ("cv2", MODEL, "opencv-python is not installed; install it with: pip install"),
        ("matplotlib", ["train"], "matplotlib is not installed; install it with: pip install 'fcnedge[train]'"),
        ("keras", ["train"], "keras is not installed; install it with: pip install 'fcnedge[build]'"),
        ("PIL", ["train"], "pillow is not installed; install it with: pip install 'fcnedge[build]'"),
        ("torch", ["train"], "torch is not installed; install it with: pip install 'fcnedge[pretrained]'"),
    ],
)
def test_missing_package_is_named_with_its_extra(voc_folder, tmp_path, blocked, words, sentence):
    if words == ["train"]:
        model = "fcn32s-lite0" if blocked == "torch" else "fcn32s-vgg16"  # which asks for no torch
        words = ["train", model, "--data", str(voc_folder), "-o", "run", "--batch-size", "4", "--crop", "64"]
    program = BLOCKED + "from fcnedge.build_engine import cli; sys.exit(cli.main())"
    done = subprocess.run([sys.executable, "-c", program, blocked, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "bundle").exists()


def test_json_that_cannot_be_written_is_a_users_mistake(capsys, lite0_bundle, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "cannot be written" in refusal(capsys, "inspect", lite0_bundle, "--json", "file/r.json")


def test_damaged_bundle_is_a_users_mistake(capsys, lite0_bundle, tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "model.json").write_bytes((lite0_bundle / "model.json").read_bytes())
    line = refusal(capsys, "inspect", "b")
    assert "b/model.fp32.onnx is missing, model.json lists it; copy the bundle again." in line


def test_bug_is_exit_1_with_a_traceback(tmp_path):
    program = (
        "import sys; from fcnedge.build_engine import cli, inspect\n"
        "inspect.describe_bundle = lambda path: 1 / 0\n"
        "sys.exit(cli.main(['inspect', 'x']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError" in done.stderr


# --- what is said when all goes well


@pytest.mark.parametrize("command", ["", "model", "train", "inspect", "doctor"])
def test_help_is_exit_0_and_names_every_option(capsys, command):
    assert run(*([command] if command else []), "--help") == 0
    out, error = capsys.readouterr()
    assert error == ""
    expected = {
        "": ["model", "train", "inspect", "doctor"],
        "model": [
            *("-o BUNDLE", "--output", "--weights", "--classes", "--size", "--fit", "--fc-channels", "--verify"),
            *("--precision", "--ranges", "--exclude LAYERS", "--data VOC", "--split", "--max-drop POINTS"),
            *("--force", "--dry-run", "--json", "fcn32s-vgg16"),
        ],
        "train": [
            *(
                "--data",
                "-o DIR",
                "--weights",
                "--classes",
                "--split",
                "--val-split",
                "--val-images",
                "--size",
                "--fit",
            ),
            *("--crop", "--epochs", "--batch-size", "--head-lr", "--trunk-factor", "--weight-decay", "--min-zoom"),
            *(
                "--max-zoom",
                "--copy-paste",
                "--train-batch-norm",
                "--fc-channels",
                "--seed",
                "--dry-run",
                "--json",
                "384x384",
            ),
        ],
        "inspect": ["bundle", "--json"],
        "doctor": ["--json"],
    }[command]
    assert [word for word in expected if word not in out] == []


def test_dry_run_writes_nothing_and_says_what_would_be_built(capsys, tmp_path):
    assert run(*MODEL, "--dry-run", "--size", "96x64", "--classes", "a,b", "--json", "r.json") == 0
    out, error = capsys.readouterr()
    assert out == "would build fcn8s-lite0 (random weights, 2 classes, 96x64) into bundle\n"
    assert error == ""
    assert list(tmp_path.iterdir()) == []


def test_dry_run_names_the_precisions(capsys, tmp_path):
    assert run(*MODEL, "--dry-run", "--precision", "fp16") == 0
    assert capsys.readouterr().out == (
        "would build fcn8s-lite0 (random weights, 21 classes, 512x512) as fp32, fp16 into bundle\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_build_prints_one_line_per_precision(capsys, tmp_path, lite0_build, lite0_ranges, lite0_voc, replay):
    lite0_ranges.write(tmp_path / "ranges.json")
    words = [*MODEL, "--size", "96x64", "--classes", "5", "--verify", lite0_build.pictures]
    words += ["--weights", _weights(lite0_build), "--precision", "int8,fp16", "--ranges", "ranges.json"]
    assert run(*words, "--data", lite0_voc, "--json", "r.json") == 0
    out, error = capsys.readouterr()
    assert error == ""
    result = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    lines = [line.split() for line in out.splitlines()]
    (head,) = [index for index, line in enumerate(lines) if line[:2] == ["precision", "MB"]]
    assert lines[head + 1] == ["fp32", f"{result['fp32_bytes'] / 1e6:.2f}", "100.00"]
    for line, name in zip(lines[head + 2 : head + 4], ("fp16", "int8"), strict=True):
        each, miou = result["precisions"][name], result["accuracy"]["miou"][name]
        assert line == [
            *(name, f"{each['bytes'] / 1e6:.2f}", f"{each['share_of_fp32']:.1%}", f"{each['labels_equal']:.2%}"),
            *(f"{each['score_sqnr_db']:.1f}", f"{100 * miou:.2f}", f"{100 - 100 * miou:.2f}"),
        ]
    assert "ranges: ranges.json, minmax of 2 pictures" in out
    assert "mIoU: val, 3 pictures at their own size, all classes that occur" in out
    assert run("inspect", "bundle") == 0
    shown = capsys.readouterr().out
    table = "\n".join(out.splitlines()[head : head + 6])
    assert table in shown
    for each in result["precisions"].values():
        for layer in (*each["float_layers"], *each["float32_layers"]):
            assert layer["reason"] in shown


def test_dry_run_finds_what_would_fail_after_minutes(capsys, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "file exists and is not a bundle" in refusal(capsys, "model", "fcn8s-lite0", "-o", "file", "--dry-run")
    assert "gone does not exist" in refusal(capsys, *MODEL, "--verify", "gone", "--dry-run")


def test_build_says_fusions_agreement_and_place(lite0_build):
    lines = lite0_build.printed.splitlines()
    assert lines[0].split() == ["fusion", "applied", "refused"]
    for name, rule in lite0_build.result["fusion"]["rules"].items():
        assert any(line.split() == [name, str(rule["applied"]), str(len(rule["refused"]))] for line in lines)
    nodes = lite0_build.result["nodes"]
    assert any(line.startswith(f"nodes {nodes['before']} → {nodes['after']}, ") for line in lines)
    assert any(line.startswith("agreement with Keras on 2 pictures: ") and "100.0000% of" in line for line in lines)
    assert lines[-1].startswith(f"{lite0_build.bundle}: fcn8s-lite0 at 96x64, built with ")


def test_build_result_has_its_fields(lite0_build):
    result = lite0_build.result
    assert {key: type(value) for key, value in result.items()} == {
        "name": str,
        "arch": str,
        "size": str,
        "output": str,
        "weights_bytes": int,
        "nodes": dict,
        "fusion": dict,
        "agreement": dict,
        "fp32_bytes": int,
        "peak_rss_bytes": int,
        "ranges": type(None),
        "precisions": dict,
        "accuracy": type(None),
        "compared_with": str,
        "notes": list,
        "seconds": dict,
    }
    assert (result["name"], result["arch"], result["size"]) == ("fcn8s-lite0", "fcn8s-lite0", "96x64")
    assert result["output"] == str(lite0_build.bundle)
    assert set(result["fusion"]) == {"rules", "before", "after", "tail"}
    assert result["fusion"]["tail"] == {"stride": 8, "kernel": 16, "offset": [0.0, 0.0], "points": None}


def test_inspect_prints_and_writes_the_description(capsys, lite0_bundle, tmp_path):
    assert run("inspect", lite0_bundle, "--json", "r.json") == 0
    out, error = capsys.readouterr()
    assert "verified: sizes and hashes agree" in out
    assert error == ""
    result = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    fields = ("path", "name", "arch", "classes", "size", "fit", "head", "files", "versions", "report")
    assert tuple(result) == fields
    assert set(result["files"][0]) == {"name", "precision", "bytes", "sha256", "nodes"}


@pytest.mark.parametrize("command", ["model", "train"])
def test_help_says_how_a_class_list_is_written(capsys, command):
    assert run(command, "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "text file with one name per line, in the order of the masks' ids (the first line is id 0, the b" in shown


def test_doctor_writes_its_findings(capsys, tmp_path):
    assert run("doctor", "--json", "r.json") == 0
    out, error = capsys.readouterr()
    assert error == ""
    result = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert tuple(result) == ("system", "backends", "gpu", "jobs")
    for finding in (*result["backends"], *result["gpu"], *result["jobs"]):
        assert set(finding) == {"name", "works", "found", "fix"}
        assert finding["name"] in out


def test_train_dry_run_checks_the_data_and_writes_nothing(capsys, tmp_path, voc_folder):
    words = ["train", "fcn8s-lite0-voc", "--data", voc_folder, "-o", "run", "--batch-size", "4", "--dry-run"]
    assert run(*words) == 0
    assert capsys.readouterr().out == "would train fcn8s-lite0 on 8 pictures, 14 epochs, into run\n"
    assert list(tmp_path.iterdir()) == []
    assert "8 training pictures do not fill one batch of 9; lower --batch-size." in refusal(
        capsys, *words, "--batch-size", "9"
    )
