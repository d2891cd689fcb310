"""From Keras to a verified bundle: what appears, what it says about itself, and what never appears."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fcnedge.build_engine import fusion
from fcnedge.build_engine.build import build_bundle
from fcnedge.build_engine.fusion import FusionReport
from fcnedge.build_engine.model_source import resolve_source
from fcnedge.build_engine.models.names import ARCHITECTURES
from fcnedge.runtime import Bundle, Segmenter
from fcnedge.runtime.errors import UserError

RULES = {
    "affine_into_convolution",
    "crop_before_convolution",
    "crop_into_deconvolution",
    "depthwise_deconvolution",
    "skip_add",
    "input_layout",
    "last_upsampling",
    "reshape_chain",
}


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_labels_are_keras(segmenter: Segmenter, references: list[Path]) -> None:
    """Where Keras's best class leads by more than rounding can bridge."""
    assert references
    for path in references:
        with np.load(path) as reference:
            mask = segmenter(reference["image"])
            decided = reference["margin"] > 1e-4 * reference["score_range"]
            assert decided.mean() > 0.9
            np.testing.assert_array_equal(mask[decided], reference["labels"][decided])
            assert len(np.unique(reference["labels"])) > 1, "one class everywhere proves little"


# --- what appears


def test_bundle_holds_graph_report_and_manifest_and_nothing_else(lite0_bundle):
    assert names_in(lite0_bundle) == ["model.fp32.onnx", "model.json", "report.json"]
    assert names_in(lite0_bundle.parent) == ["bundle", "lively.safetensors", "pictures", "recorded", "result.json"]


def test_bundle_verifies_and_describes_its_input_and_head(lite0_bundle):
    manifest = Bundle.load(lite0_bundle).manifest
    assert (manifest.name, manifest.arch, manifest.precisions) == ("fcn8s-lite0", "fcn8s-lite0", ("fp32",))
    assert (manifest.input.height, manifest.input.width, manifest.input.fit) == (64, 96, "stretch")
    assert dataclasses.astuple(manifest.head) == ("bilinear", 8, 16, (0.0, 0.0), None)
    assert manifest.preprocessing.mean == (127.0, 127.0, 127.0)
    assert manifest.palette[:3] == ((0, 0, 0), (128, 0, 0), (0, 128, 0))


def test_graph_takes_bytes_and_gives_scores_at_the_heads_stride(lite0_bundle):
    model = onnx.load(str(lite0_bundle / "model.fp32.onnx"))
    onnx.checker.check_model(model, full_check=True)
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)

    def described(value: onnx.ValueInfoProto) -> tuple[str, int, list[int]]:
        tensor = value.type.tensor_type
        return value.name, tensor.elem_type, [side.dim_value for side in tensor.shape.dim]

    assert list(map(described, model.graph.input)) == [("image", onnx.TensorProto.UINT8, [1, 64, 96, 3])]
    assert list(map(described, model.graph.output)) == [("scores", onnx.TensorProto.FLOAT, [1, 5, 8, 12])]


def test_segmenter_gives_the_labels_of_keras(lite0_build):
    with Segmenter(lite0_build.bundle) as segmenter:
        assert_labels_are_keras(segmenter, lite0_build.keras.references)


def test_segmenter_runs_the_bundle_on_frames_of_any_size(lite0_bundle):
    with Segmenter(lite0_bundle) as segmenter:
        for size in ((64, 96), (120, 77), (1, 1)):
            mask = segmenter(np.zeros((*size, 3), np.uint8))
            assert (mask.shape, mask.dtype) == (size, np.uint8)
            assert mask.max() < 5


def test_report_says_what_was_measured(lite0_build):
    report = json.loads((lite0_build.bundle / "report.json").read_text(encoding="utf-8"))
    assert report["agreement"]["pictures"] == 2
    assert 0 <= report["agreement"]["max_abs_score_diff"] <= 1e-3 * report["agreement"]["score_range"]
    assert report["agreement"]["labels_equal"] == 1.0
    assert 0.9 * 2 * 64 * 96 < report["agreement"]["pixels_compared"] <= 2 * 64 * 96
    assert set(report["fusion"]["rules"]) == RULES
    for name, rule in report["fusion"]["rules"].items():
        assert (rule["applied"] > 0) == (name != "crop_before_convolution"), "only Caffe's FCNs crop scores"
        assert all(set(refusal) == {"node", "reason"} for refusal in rule["refused"])
    exported = onnx.load(str(lite0_build.recorded / "exported.onnx")).graph
    fused = onnx.load(str(lite0_build.bundle / "model.fp32.onnx")).graph
    assert report["nodes"]["after"] == len(fused.node)
    assert len(fused.node) < report["nodes"]["before"] <= len(exported.node)
    assert report["weights_bytes"] == lite0_build.keras.weights_bytes
    assert 100e6 < report["peak_rss_bytes"] < 24e9
    assert set(report["seconds"]) == {"run and export Keras", "fuse", "compare with Keras"}
    assert all(seconds > 0 for seconds in report["seconds"].values())


def test_json_is_the_report_in_the_bundle(lite0_build):
    assert json.loads((lite0_build.bundle / "report.json").read_text(encoding="utf-8")) == lite0_build.result


def test_versions_of_all_that_had_a_hand_in_the_graph_are_kept(lite0_bundle):
    versions = Bundle.load(lite0_bundle).manifest.versions
    assert versions.pop("python") == platform.python_version()
    assert versions == {name: importlib.metadata.version(name) for name in versions}
    assert {"fcnedge", "keras", "tf2onnx", "onnx", "onnx-ir", "onnxruntime", "numpy"} <= set(versions)
    assert any(name.startswith("tensorflow") for name in versions)


def test_force_replaces_an_older_bundle(lite0_build, tmp_path, replay):
    output = tmp_path / "model"
    build_bundle(lite0_build.source, output, verify=lite0_build.pictures)
    (output / "engines").mkdir()
    build_bundle(dataclasses.replace(lite0_build.source, name="newer"), output, force=True, verify=lite0_build.pictures)
    assert Bundle.load(output).manifest.name == "newer"
    assert names_in(tmp_path) == ["model"]
    assert "engines" not in names_in(output)


# --- what never appears


def heavier_weight(model: ir.Model, report: FusionReport) -> FusionReport:
    """The score layers 1% too strong."""
    kernels = [node.inputs[1] for node in model.graph if node.op_type == "Conv"]
    scoring = [kernel for kernel in kernels if kernel is not None and kernel.const_value.shape[0] == 5]
    assert len(scoring) >= 3
    for kernel in scoring:
        kernel.const_value = ir.tensor(kernel.const_value.numpy() * np.float32(1.01))
    return report


def shifted_head(model: ir.Model, report: FusionReport) -> FusionReport:
    """The right scores, two pixels beside their place."""
    assert report.tail is not None
    return dataclasses.replace(report, tail=dataclasses.replace(report.tail, offset=(0.0, 2.0)))


@pytest.mark.parametrize("mistake", [heavier_weight, shifted_head])
def test_graph_that_disagrees_with_keras_is_refused_and_leaves_nothing(
    mistake, lite0_build, tmp_path, replay, monkeypatch
):
    fuse = fusion.fuse
    monkeypatch.setattr(fusion, "fuse", lambda model, size, **_: mistake(model, fuse(model, size)))
    with pytest.raises(
        UserError, match="the fused graph disagrees with Keras, so no bundle was written: scores differ"
    ):
        build_bundle(lite0_build.source, tmp_path / "model", verify=lite0_build.pictures)
    assert names_in(tmp_path) == []


def test_refused_graph_leaves_the_older_bundle_alone(lite0_build, tmp_path, replay, monkeypatch):
    output = tmp_path / "model"
    build_bundle(lite0_build.source, output, verify=lite0_build.pictures)
    before = (output / "model.json").read_bytes()
    fuse = fusion.fuse
    monkeypatch.setattr(fusion, "fuse", lambda model, size, **_: heavier_weight(model, fuse(model, size)))
    with pytest.raises(UserError, match="disagrees with Keras"):
        build_bundle(lite0_build.source, output, force=True, verify=lite0_build.pictures)
    assert names_in(tmp_path) == ["model"]
    assert (output / "model.json").read_bytes() == before
    Bundle.load(output)


def test_output_that_another_build_took_meanwhile_is_not_replaced(lite0_build, tmp_path, replay, monkeypatch):
    output = tmp_path / "model"
    fuse = fusion.fuse

    def slow_fuse(model: ir.Model, size: tuple[int, int]) -> FusionReport:
        if not output.exists():
            build_bundle(dataclasses.replace(lite0_build.source, name="faster"), output, verify=lite0_build.pictures)
        return fuse(model, size)

    calls = iter([slow_fuse, fuse])
    monkeypatch.setattr(fusion, "fuse", lambda model, size, **_: next(calls)(model, size))
    with pytest.raises(UserError, match="exists already; add --force to replace it"):
        build_bundle(lite0_build.source, output, verify=lite0_build.pictures)
    assert Bundle.load(output).manifest.name == "faster"
    assert names_in(tmp_path) == ["model"]


def test_export_that_is_killed_leaves_nothing(lite0_build, tmp_path, monkeypatch):
    killer = tmp_path / "killer"
    killer.write_text("#!/bin/sh\nkill -KILL $$\n", encoding="utf-8")
    killer.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killer))
    with pytest.raises(UserError, match="the export was killed, most likely for lack of memory"):
        build_bundle(lite0_build.source, tmp_path / "out" / "model", verify=lite0_build.pictures)
    assert names_in(tmp_path / "out") == []


REPLAYED_BUILD = """
import os, shutil, signal, sys
from pathlib import Path
from fcnedge.build_engine import build
from fcnedge.build_engine.keras_stage import KerasResult
from fcnedge.build_engine.model_source import resolve_source
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.preprocessing import Preprocessing

recorded, pictures, output, ending = map(Path, sys.argv[1:])

def replay(source, fc_channels, images, work):
    shutil.copytree(recorded, work, dirs_exist_ok=True)
    scale = (1 / 128,) * 3
    return KerasResult(Preprocessing("rgb", (127.0,) * 3, scale), (), 1, sorted(work.glob("reference*.npz")))

build.run_keras_stage = replay
if ending.name == "kill":
    build.publish = lambda staging, output: os.kill(os.getpid(), signal.SIGKILL)
try:
    build.build_bundle(resolve_source("fcn8s-lite0", classes="5", size=(64, 96)), output, verify=pictures)
except UserError as error:
    print(error)
print(sorted(path.name for path in output.parent.iterdir()))
"""
"""A build in a process of its own, with the recorded Keras stage: for ends that no test survives."""


def replayed_build(lite0_build, output: Path, ending: str) -> list[str]:
    words = [lite0_build.recorded, lite0_build.pictures, output, ending]
    return [sys.executable, "-c", REPLAYED_BUILD, *map(str, words)]


def test_build_that_is_killed_at_the_last_moment_leaves_no_visible_bundle(lite0_build, tmp_path, replay):
    output = tmp_path / "model"
    done = subprocess.run(replayed_build(lite0_build, output, "kill"), capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".model.")
    assert (left / "model.json").is_file(), "it was killed earlier than this test means"
    build_bundle(lite0_build.source, output, verify=lite0_build.pictures)  # the remains are not in the way
    Bundle.load(output)


def test_full_disk_is_said_in_one_sentence_and_leaves_nothing(lite0_build, tmp_path, small_disk):
    """The exported graph takes 12 MB and fits, the fused one another 12."""
    command = replayed_build(lite0_build, tmp_path / "model", "plain")
    done = subprocess.run(small_disk(tmp_path, "20m", command), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    message, left = done.stdout.splitlines()
    assert message.startswith(f"the disk is full while writing {tmp_path}/model: ")
    assert message.endswith("Nothing was written.")
    assert left == "[]"


@pytest.mark.slow
def test_disk_that_is_full_during_the_export_is_said_in_one_sentence(lite0_build, tmp_path, small_disk):
    """Keras's answers fit on it, the exported graph does not: the child finds out."""
    output = tmp_path / "model"
    words = [
        "model",
        "fcn8s-lite0",
        "-o",
        output,
        "--size",
        "96x64",
        "--classes",
        "5",
        "--verify",
        lite0_build.pictures,
    ]
    command = [sys.executable, "-m", "fcnedge.build_engine.cli", *map(str, words)]
    listing = f'"$@"; code=$?; ls -A "{tmp_path}"; exit $code'
    command = small_disk(tmp_path, "4m", ["sh", "-c", listing, "sh", *command])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines() == [
        "fcn-build model: the export could not write its files (No space left on device); free some disk space."
    ]
    assert done.stdout == "", "something was left on the disk"


# --- every architecture

# Of the wider and deeper trunks one stands for all: they are lite0's layers with other numbers.
BUILT = (*(arch for arch in ARCHITECTURES if arch.endswith(("vgg16", "lite0"))), "fcn8s-lite2")
ALL_ARCHITECTURES = """
import json, shutil, subprocess, sys
from pathlib import Path
from fcnedge.build_engine import build, keras_stage
from fcnedge.build_engine.model_source import resolve_source

folder, pictures = Path(sys.argv[1]), Path(sys.argv[2])

def in_this_process(command, *, cwd, **_):  # what the child does, without starting TensorFlow anew for each
    keras_stage._work(Path(cwd))
    return subprocess.CompletedProcess(command, 0, "", "")

def record(source, fc_channels, images, work):
    result = keras_stage.run_keras_stage(source, fc_channels, images, work)
    shutil.copytree(work, folder / f"{source.arch}.keras", ignore=shutil.ignore_patterns("*.onnx"))
    return result

keras_stage.subprocess = type("subprocess", (), {"run": in_this_process, "DEVNULL": -3, "PIPE": -1})
build.run_keras_stage = record
for arch in sys.argv[3:]:
    source = resolve_source(arch, weights=folder / f"{arch}.safetensors")
    build.build_bundle(source, folder / arch, verify=pictures, fc_channels=8)
"""


@pytest.fixture(scope="module")
def all_bundles(tmp_path_factory: pytest.TempPathFactory, lite0_build, lively_weights) -> Path:
    """Give a folder with a bundle of each architecture, and its Keras answers beside it."""
    folder = tmp_path_factory.mktemp("architectures")
    for arch in BUILT:
        lively_weights(folder / f"{arch}.safetensors", resolve_source(arch, classes="8", size=(64, 96)), "float16")
    command = [sys.executable, "-c", ALL_ARCHITECTURES, str(folder), str(lite0_build.pictures), *BUILT]
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("arch", BUILT)
def test_every_architecture_gives_the_labels_of_keras(arch, all_bundles):
    with Segmenter(all_bundles / arch) as segmenter:
        manifest = segmenter.bundle.manifest
        stride = int(arch[3 : arch.index("s-")])
        assert (manifest.head.kind, manifest.head.stride, manifest.head.kernel) == ("bilinear", stride, 2 * stride)
        assert_labels_are_keras(segmenter, sorted((all_bundles / f"{arch}.keras").glob("reference*.npz")))


@pytest.mark.slow
@pytest.mark.parametrize("arch", BUILT)
def test_every_architecture_is_fused_in_all_its_deconvolutions(arch, all_bundles):
    report = json.loads((all_bundles / arch / "report.json").read_text(encoding="utf-8"))
    rules = {name: rule["applied"] for name, rule in report["fusion"]["rules"].items()}
    skips = {"fcn32s": 0, "fcn16s": 1, "fcn8s": 2}[arch.partition("-")[0]]
    assert rules["crop_into_deconvolution"] == rules["depthwise_deconvolution"] == skips + 1
    assert rules["skip_add"] == skips
    assert rules["last_upsampling"] == rules["input_layout"] == 1
    graph = onnx.load(str(all_bundles / arch / "model.fp32.onnx")).graph
    assert sum(node.op_type == "ConvTranspose" for node in graph.node) == skips
