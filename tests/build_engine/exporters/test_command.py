from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

KINDS = ("triton", "deepstream", "onnx")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["triton", "--layout", "nchw"], "--layout is for export onnx, not for triton; leave it out."),
        (["onnx", "--batch", "2"], "--batch is for export triton and deepstream, not for onnx"),
        (["trtexec", "--force"], "--force is for export triton and deepstream and onnx, not for trtexec"),
        (["deepstream", "--device", "cpu"], "--device is for export triton, not for deepstream"),
        (["triton", "--batch", "0"], "--batch is 0; it must be from 1 to 1024."),
        (["triton", "--instances", "5000"], "--instances is 5000"),
        (["trtexec", "--workspace", "0"], "--workspace is 0"),
        (["triton", "--engine", "e", "--precision", "fp16"], "--engine says already what --precision would"),
        (["triton", "--engine", "e", "--device", "cpu"], "an engine runs on GPUs alone"),
        (["triton", "--target", "tensorrt"], "ONNX Runtime, which Triton runs a graph with, loses most of the mask"),
        (["deepstream", "--calibration-cache", "nowhere"], "there is no file nowhere"),
        (["onnx"], "export onnx writes files; say where with -o."),
    ],
)
def test_flags_that_do_not_apply_are_refused(typed_bundle, tools, capsys, words, said):
    kind, *flags = words
    assert said in tools.refusal(capsys, kind, typed_bundle.path, *flags)


@pytest.mark.parametrize("kind", [*KINDS, "trtexec"])
def test_unknown_bundles_are_refused(tools, capsys, kind, tmp_path: Path):
    said = tools.refusal(capsys, kind, tmp_path / "nowhere", "-o", tmp_path / "out.onnx")
    assert "there is no bundle at" in said


@pytest.mark.parametrize("kind", KINDS)
def test_missing_precisions_are_refused_and_leave_nothing(lite0_bundle, tools, capsys, kind, tmp_path: Path):
    said = tools.refusal(capsys, kind, lite0_bundle, "-o", tmp_path / "out.onnx", "--precision", "fp16")
    assert "holds no fp16 graph, only fp32" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_bundle_is_not_overwritten_by_its_own_export(typed_bundle, tools, capsys, kind, tmp_path: Path):
    graph = typed_bundle.model("fp32")
    before = graph.read_bytes()
    (tmp_path / "link").symlink_to(typed_bundle.path)
    for output in (graph, tmp_path / "link" / graph.name, typed_bundle.path / "new" / "m.onnx"):
        said = tools.refusal(capsys, kind, typed_bundle.path, "-o", output, "--force")
        assert f"{output} lies in the bundle {typed_bundle.path}, which holds its own files only" in said
    assert graph.read_bytes() == before


def test_missing_target_is_refused(typed_bundle, tools, capsys, tmp_path: Path):
    said = tools.refusal(capsys, "onnx", typed_bundle.path, "-o", tmp_path / "m.onnx", "--target", "vnni")
    assert "holds no fp32 graph for vnni" in said


@pytest.mark.parametrize("kind", KINDS)
def test_dry_run_checks_and_writes_nothing(typed_bundle, tools, capsys, kind, tmp_path: Path):
    tools.export(kind, typed_bundle.path, "-o", tmp_path / "out.onnx", "--dry-run")
    assert capsys.readouterr().out.startswith("would write")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_result_lists_what_was_written_and_what_was_not(typed_bundle, tools, kind, tmp_path: Path):
    said = tmp_path / "said.json"
    tools.export(kind, typed_bundle.path, "-o", tmp_path / "out.onnx", "--json", said)
    result = json.loads(said.read_text(encoding="utf-8"))
    assert (result["kind"], result["precision"], result["dry_run"]) == (kind, "fp32", False)
    output = Path(result["output"])
    assert output.exists()
    assert all((output / name).is_file() for name in result["files"])
    assert len(result["not_carried"]) >= 2


def test_help_of_the_command_needs_no_heavy_package():
    program = (
        "import sys; from fcnedge.build_engine import cli\n"
        "try: cli.main(['export', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'onnx', 'onnx_ir', 'onnxruntime', 'tensorflow', 'cv2'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
