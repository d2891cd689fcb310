"""Engines by the real TensorRT-RTX, which needs no GPU: each precision, each head, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from fcnedge.build_engine.engines import build
from fcnedge.build_engine.engines.build import build_engine, plan_engine
from fcnedge.build_engine.engines.command import EngineOptions
from fcnedge.build_engine.engines.library import Library
from fcnedge.runtime import Bundle
from fcnedge.runtime.engine_sidecar import EngineSidecar, TensorSpec, read_sidecar
from fcnedge.runtime.errors import BundleError, UserError


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let these tests say the same on a machine with a GPU."""
    monkeypatch.setattr(build, "current_gpu", lambda: None)


def compiled(bundle: Path, precision: str, **options: object) -> tuple[Path, EngineSidecar]:
    return build_engine(plan_engine(EngineOptions(bundle, "tensorrt_rtx", precision, **options)))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- what comes out


@pytest.mark.parametrize("head", ["bilinear", "labels"])
@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "float32"), ("fp16", "float16"), ("int8", "float16")])
def test_each_precision_and_head_compiles(rtx: Library, write_bundle, tmp_path: Path, precision, dtype, head):
    bundle = write_bundle(tmp_path / "tiny", head=head)
    _, sidecar = compiled(bundle, precision)
    assert sidecar.inputs == (TensorSpec("image", "uint8", (1, 32, 48, 3)),)
    scores, labels = TensorSpec("scores", dtype, (1, 4, 4, 6)), TensorSpec("labels", "uint8", (1, 32, 48))
    assert sidecar.outputs == ((scores,) if head == "bilinear" else (labels,))
    assert sidecar.route == "strongly typed"
    assert sidecar.layers[{"fp32": "float32", "fp16": "float16", "int8": "int8"}[precision]] >= 1
    assert sidecar.inspected_by == "build log"


def test_fp32_engine_has_no_layer_of_another_float_type(rtx: Library, bundle: Path):
    _, sidecar = compiled(bundle, "fp32")
    assert set(sidecar.layers) <= {"float32", "uint8"}


def test_sidecar_tells_the_truth_about_the_engine(rtx: Library, bundle: Path):
    path, sidecar = compiled(bundle, "fp16", sm="12.0,8.6", workspace=64)
    assert path == bundle / "engines" / f"fp16.tensorrt_rtx-{rtx.version}.sm86-sm120.engine"
    assert read_sidecar(path) == sidecar
    data = path.read_bytes()
    assert (sidecar.bytes, sidecar.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    graph = hashlib.sha256((bundle / "model.fp16.onnx").read_bytes()).hexdigest()
    assert sidecar.graph == {"model.fp16.onnx": graph}
    assert (sidecar.library, sidecar.version, sidecar.gpu) == ("tensorrt_rtx", rtx.version, None)
    assert sidecar.compute_capabilities == ("8.6", "12.0")
    assert (sidecar.precision, sidecar.workspace_mb, sidecar.dla) == ("fp16", 64, False)


def test_engines_for_other_gpus_are_other_engines(rtx: Library, bundle: Path, tmp_path: Path):
    turing, _ = compiled(bundle, "fp32", sm="7.5")
    ampere, _ = compiled(bundle, "fp32", sm="8.6")
    assert turing.read_bytes() != ampere.read_bytes()


def test_all_from_ampere_on_is_the_default(rtx: Library, bundle: Path):
    _, sidecar = compiled(bundle, "fp32")
    assert set(sidecar.compute_capabilities) == set(rtx.compute_capabilities) - {"7.5"}
    assert {"8.6", "8.9", "12.0"} <= set(sidecar.compute_capabilities)


def test_bundle_stays_valid_with_engines_in_it(rtx: Library, bundle: Path):
    before = Bundle.load(bundle).manifest
    compiled(bundle, "fp32")
    assert Bundle.load(bundle).manifest == before


def test_weights_beside_the_graph_are_found(rtx: Library, write_bundle, graph_of, tmp_path: Path, monkeypatch):
    inside, _ = compiled(write_bundle(tmp_path / "inside"), "fp32", sm="8.6")
    onnx.save(graph_of("fp32"), tmp_path / "model.fp32.onnx", save_as_external_data=True, size_threshold=0,
              location="model.fp32.onnx.data")  # fmt: skip
    graph, weights = ((tmp_path / f"model.fp32.onnx{end}").read_bytes() for end in ("", ".data"))
    write_bundle(tmp_path / "beside", graphs={"fp32": graph}, files={"model.fp32.onnx.data": weights})
    monkeypatch.chdir(tmp_path)
    path, sidecar = compiled(Path("beside"), "fp32", sm="8.6")
    assert set(sidecar.graph) == {"model.fp32.onnx", "model.fp32.onnx.data"}
    assert path.stat().st_size == inside.stat().st_size


@pytest.mark.slow
def test_exported_network_compiles(rtx: Library, lite0_bundle: Path, tmp_path: Path):
    path, sidecar = compiled(lite0_bundle, "fp32", output=tmp_path / "lite0.engine", sm="8.6")
    assert path.stat().st_size > (lite0_bundle / "model.fp32.onnx").stat().st_size / 2
    assert sidecar.outputs == (TensorSpec("scores", "float32", (1, 5, 8, 12)),)
    assert sidecar.layers["float32"] > 40


# --- what is refused


def refusal(bundle: Path, precision: str = "fp32", **options: object) -> str:
    """The sentence; and neither engine nor folder is left behind."""
    with pytest.raises(UserError) as caught:
        compiled(bundle, precision, **options)
    assert not (bundle / "engines").exists()
    return str(caught.value)


def test_untyped_graph_is_refused_instead_of_silently_fp32(rtx: Library, write_bundle, graph_of, tmp_path: Path):
    bundle = write_bundle(tmp_path / "false", graphs={"fp16": graph_of("fp32"), "int8": graph_of("fp16")})
    assert "model.fp16.onnx holds no float16 tensor, and TensorRT-RTX" in refusal(bundle, "fp16")
    assert "holds no QuantizeLinear or DequantizeLinear" in refusal(bundle, "int8")


def test_operator_that_the_library_lacks_is_named_with_its_node(rtx: Library, write_bundle, tmp_path: Path):
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 32, 48, 3])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 4, 4, 6])
    nodes = [
        helper.make_node("Cast", ["image"], ["image_float"], to=TensorProto.FLOAT, name="image_float"),
        helper.make_node("Spectrogram", ["image_float"], ["scores"], name="ears", domain="example.org"),
    ]
    graph = helper.make_graph(nodes, "odd", [image], [scores])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("example.org", 1)]
    bundle = write_bundle(
        tmp_path / "odd", graphs={"fp32": helper.make_model(graph, opset_imports=opsets, ir_version=8)}
    )
    sentence = refusal(bundle)
    assert f"TensorRT-RTX {rtx.version} refuses node ears (Spectrogram) of {bundle}/model.fp32.onnx: " in sentence
    assert sentence.endswith("; rebuild the bundle without it, or choose another --target.")
    assert "\n" not in sentence


def test_graph_that_is_cut_off_is_refused(rtx: Library, write_bundle, graph_of, tmp_path: Path):
    """By its hash when it was cut after the build, as no ONNX file when it was cut before."""
    whole = graph_of("fp32").SerializeToString()
    bundle = write_bundle(tmp_path / "cut", graphs={"fp32": whole})
    (bundle / "model.fp32.onnx").write_bytes(whole[:-100])
    assert "model.json says" in refusal(bundle)
    with pytest.raises(BundleError, match="is not an ONNX graph"):
        compiled(write_bundle(tmp_path / "born cut", graphs={"fp32": whole[:-100]}), "fp32")


def test_graph_that_is_not_the_bundles_is_refused(rtx: Library, write_bundle, graph_of, tmp_path: Path):
    bundle = write_bundle(tmp_path / "other", graphs={"fp32": graph_of("fp32", "labels")})
    assert refusal(bundle).endswith(
        "model.fp32.onnx gives labels uint8 [1, 32, 48], model.json says scores float32 [1, 4, 4, 6] "
        "or scores float16 [1, 4, 4, 6]; rebuild the bundle."
    )


def test_precision_that_the_bundle_has_not_is_refused(rtx: Library, write_bundle, graph_of, tmp_path: Path):
    bundle = write_bundle(tmp_path / "plain", graphs={"fp32": graph_of("fp32")})
    assert "holds no int8 graph, only fp32" in refusal(bundle, "int8")


@pytest.mark.parametrize("sm", ["8.7", "86", "", "8.6,nine", "8.6;8.9"])
def test_unknown_compute_capability_is_refused_with_the_known_ones(rtx: Library, bundle: Path, sm):
    sentence = refusal(bundle, sm=sm)
    assert sentence.startswith("--sm has '")
    assert "compiles for 7.5, 8.0, 8.6, 8.9, 12.0" in sentence


def test_options_without_effect_are_refused(rtx: Library, bundle: Path, tmp_path: Path):
    assert refusal(bundle, timing_cache=tmp_path / "t").endswith("keeps no timing cache; leave out --timing-cache.")
    assert "has no calibrators" in refusal(bundle, "int8", calibration_cache=tmp_path / "c")
    assert "finds no DLA on this machine" in refusal(bundle, "fp16", dla=True)
    assert "the DLA computes in FP16 and INT8" in refusal(bundle, "fp32", dla=True)
    assert refusal(bundle, workspace=0) == "--workspace is 0; it must be 1 MiB or more."


def test_workspace_that_is_too_small_is_said(rtx: Library, write_bundle, graph_of, tmp_path: Path):
    """A bundle whose INT8 convolution has no tactic in 1 MiB."""
    sentence = refusal(write_bundle(tmp_path / "tight", head="labels"), "int8", workspace=1)
    assert "could not compile the network (" in sentence
    assert sentence.endswith("; allow it more than --workspace 1, or free some memory.")


def test_taken_output_is_replaced_only_with_force(rtx: Library, bundle: Path):
    path, first = compiled(bundle, "fp32", sm="8.6")
    with pytest.raises(UserError, match=r"sm86\.engine exists already; add --force to replace it\.$"):
        compiled(bundle, "fp32", sm="8.6")
    _, second = compiled(bundle, "fp32", sm="8.6", workspace=128, force=True)
    assert read_sidecar(path) == second != first
    assert names_in(bundle / "engines") == [path.name, f"{path.name}.json"]


COMPILE = """
import sys
from pathlib import Path
from fcnedge.build_engine.engines.command import EngineOptions, run
from fcnedge.runtime.command import run_command
options = EngineOptions(Path(sys.argv[1]), "tensorrt_rtx", "fp32", Path(sys.argv[2]) / "x.engine", sm="8.6")
code = run_command(lambda: run(options), "fcn-build engine")
print(code, sorted(path.name for path in Path(sys.argv[2]).iterdir()))
"""


def test_full_disk_is_one_sentence_and_leaves_nothing(rtx: Library, bundle: Path, tmp_path: Path, small_disk):
    disk = tmp_path / "disk"
    disk.mkdir()
    command: list[str] = small_disk(disk, "64k", [sys.executable, "-c", COMPILE, str(bundle), str(disk)])
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "2 []\n"
    assert done.stderr.startswith("fcn-build engine: the disk is full while writing ")
    assert done.stderr.count("\n") == 1


def test_ctrl_c_ends_the_build_and_leaves_nothing(rtx: Library, bundle: Path, monkeypatch):
    """The signal strikes inside a callback from C++, where an exception would end the process."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    plan = plan_engine(EngineOptions(bundle, "tensorrt_rtx", "fp32", sm="8.6"))
    plan.log.log(plan.library.module.ILogger.Severity.INFO, "whole so far")
    assert not plan.cancelled.is_set()
    monkeypatch.setattr("fcnedge.build_engine.engines.library_log._LOG.log", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_engine(plan)
    assert not (bundle / "engines").exists()


# --- the stand-in's surface, where it can be compared


def test_the_real_library_has_what_is_documented(rtx: Library, documented_names: Callable[[str], dict[str, set[str]]]):
    """TensorRT-RTX 1 shares the API of TensorRT 11: names of the stand-in for 11.4 that it lacks are made up."""
    lacking = [
        f"{name}.{member}"
        for name, members in documented_names("11.4").items()
        for member in members
        if not hasattr(getattr(rtx.module, name), member) and not member.startswith("PREFER_")
    ]
    assert lacking == []


def test_the_real_library_has_none_of_what_tensorrt_11_removed(rtx: Library):
    assert not rtx.has_precision_flags
    assert not rtx.has_calibrators
    assert rtx.has_strong_typing
    assert not hasattr(rtx.module.IBuilderConfig, "int8_calibrator")


def test_json_result_is_the_sidecar(rtx: Library, bundle: Path, tmp_path: Path, capsys):
    from fcnedge.build_engine.engines.command import run

    run(EngineOptions(bundle, "tensorrt_rtx", "int8", tmp_path / "x.engine", json=tmp_path / "r.json", sm="8.9"))
    result = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert result["path"] == str(tmp_path / "x.engine")
    assert result["sidecar"] == json.loads((tmp_path / "x.engine.json").read_text(encoding="utf-8"))
    printed = capsys.readouterr().out
    assert "int8, strongly typed" in printed
    assert "1 int8" in printed or "2 int8" in printed
