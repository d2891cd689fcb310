"""What TensorRT 8.5, 10.3, 10.13 and 11.4 are told: a recording stand-in with the documented names, no hardware."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fcnedge.build_engine.engines.build import build_engine, plan_engine
from fcnedge.build_engine.engines.command import EngineOptions
from fcnedge.build_engine.engines.library import Library
from fcnedge.runtime.engine_sidecar import EngineSidecar, read_sidecar
from fcnedge.runtime.errors import UserError

END_WHILE_COMPILING = """
import signal, sys
from fcnedge.build_engine import cli
from fcnedge.build_engine.engines import compile, library_log

ending = signal.Signals(int(sys.argv.pop(1)))
build = compile.compile_network

def signalled(*_):
    library_log._LOG.log = lambda *_: None
    signal.raise_signal(ending)

def compile_and_be_ended(*arguments):
    library_log._LOG.log = signalled  # its next call comes from C++
    return build(*arguments)

from fcnedge.build_engine.engines import build as module
module.compile_network = compile_and_be_ended
sys.exit(cli.main(sys.argv[1:]))
"""

VERSIONS = ("8.5", "10.3", "10.13", "11.4")
CACHE = {"8.5": "TRT-8502", "10.3": "TRT-100300", "10.13": "TRT-101303"}


def compiled(bundle: Path, precision: str, **options: object) -> tuple[Path, EngineSidecar]:
    return build_engine(plan_engine(EngineOptions(bundle, "tensorrt", precision, **options)))


def cache_text(version: str) -> bytes:
    return f"{CACHE[version]}-EntropyCalibration2\nplanes: 3c010a14\n".encode()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_each_release_is_told_what_it_understands(stand_in, bundle: Path, version, precision):
    tensorrt = stand_in(version)
    path, sidecar = compiled(bundle, precision)
    typed = version != "8.5"
    flags = {"8.5": {"EXPLICIT_BATCH"}, "11.4": {"STRONGLY_TYPED"}}.get(version, {"EXPLICIT_BATCH", "STRONGLY_TYPED"})
    assert tensorrt.names_told("create_network") == [flags]
    allowed = [] if typed else {"fp32": [], "fp16": ["FP16"], "int8": ["INT8", "FP16"]}[precision]
    assert tensorrt.names_told("set_flag") == allowed
    assert tensorrt.names_told("parse_from_file") == [str(bundle.absolute() / f"model.{precision}.onnx")]
    assert tensorrt.names_told("set_memory_pool_limit") == [("WORKSPACE", 256 << 20)]
    assert tensorrt.names_told("profiling_verbosity") == ["DETAILED"]
    assert tensorrt.names_told("int8_calibrator") == []
    assert sidecar.route == ("strongly typed" if typed else "builder flags")
    assert path.name == f"{precision}.tensorrt-{tensorrt.module.__version__}.sm87.engine"


@pytest.mark.parametrize("version", VERSIONS)
def test_sidecar_names_the_gpu_and_what_the_inspector_saw(stand_in, bundle: Path, version):
    stand_in(version)
    path, sidecar = compiled(bundle, "fp16")
    assert read_sidecar(path) == sidecar
    assert (sidecar.gpu, sidecar.compute_capabilities) == ("Orin", ("8.7",))
    assert sidecar.inspected_by == "engine inspector"
    assert sidecar.layers == {"float16": 5}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_precision_that_no_layer_got_is_refused(stand_in, bundle: Path, version, precision):
    stand_in(version).obtained = "FP32"
    with pytest.raises(UserError) as caught:
        compiled(bundle, precision)
    assert f"compiled not one layer in {precision} (engine inspector: " in str(caught.value)
    assert not (bundle / "engines").exists()


@pytest.mark.parametrize("version", VERSIONS)
def test_progress_is_watched_where_the_release_can_tell(stand_in, bundle: Path, version):
    tensorrt = stand_in(version)
    compiled(bundle, "fp32")
    assert len(tensorrt.names_told("progress_monitor")) == (0 if version == "8.5" else 1)


@pytest.mark.parametrize("version", sorted(CACHE))
@pytest.mark.parametrize("dla", [False, True])
def test_calibration_cache_reaches_the_calibrator(stand_in, bundle: Path, tmp_path: Path, version, dla):
    tensorrt = stand_in(version)
    tensorrt.cores = 2
    (tmp_path / "c").write_bytes(cache_text(version))
    path, sidecar = compiled(bundle, "int8", calibration_cache=tmp_path / "c", dla=dla)
    assert tensorrt.names_told("cache") == [cache_text(version)]
    assert tensorrt.names_told("parse_from_file") == [str(bundle.absolute() / "model.fp32.onnx")]
    assert tensorrt.names_told("create_network") == [{"EXPLICIT_BATCH"}]
    assert sidecar.route == "calibration cache"
    assert set(sidecar.graph) == {"model.fp32.onnx"}
    assert (".dla." in path.name) == sidecar.dla == dla
    assert tensorrt.names_told("set_flag") == ["INT8", "FP16", *(["GPU_FALLBACK"] if dla else [])]
    assert tensorrt.names_told("default_device_type") == (["DLA"] if dla else [])
    assert tensorrt.names_told("DLA_core") == ([0] if dla else [])


def test_dla_takes_the_bundles_own_cache(stand_in, write_bundle, tmp_path: Path):
    tensorrt = stand_in("10.3")
    tensorrt.cores = 1
    bundle = write_bundle(tmp_path / "with", files={"calibration.cache": cache_text("10.3")})
    compiled(bundle, "int8", dla=True)
    assert tensorrt.names_told("cache") == [cache_text("10.3")]
    with pytest.raises(UserError, match=r"holds no calibration\.cache, which INT8 on the DLA needs"):
        compiled(write_bundle(tmp_path / "without"), "int8", dla=True)


def test_dla_of_tensorrt_11_gets_the_typed_graph(stand_in, bundle: Path):
    tensorrt = stand_in("11.4")
    tensorrt.cores = 1
    compiled(bundle, "int8", dla=True)
    assert tensorrt.names_told("parse_from_file") == [str(bundle.absolute() / "model.int8.onnx")]
    assert tensorrt.names_told("default_device_type") == ["DLA"]
    assert tensorrt.names_told("set_flag") == ["GPU_FALLBACK"]


def test_machine_without_dla_is_told(stand_in, bundle: Path):
    stand_in("10.3")
    with pytest.raises(UserError, match=r"^TensorRT 10\.3\.0 finds no DLA on this machine; leave out --dla\.$"):
        compiled(bundle, "fp16", dla=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_timing_cache_is_read_used_and_kept(stand_in, bundle: Path, tmp_path: Path, version):
    tensorrt = stand_in(version)
    timings = tmp_path / "timings"
    compiled(bundle, "fp32", timing_cache=timings)
    assert timings.read_bytes() == b"timings"
    compiled(bundle, "fp32", timing_cache=timings, force=True)
    assert tensorrt.names_told("set_timing_cache") == [False, False]


def test_file_that_is_no_timing_cache_is_refused_and_stays(stand_in, bundle: Path, tmp_path: Path):
    stand_in("10.3")
    thesis = tmp_path / "thesis.tex"
    thesis.write_bytes(b"chapter 1")
    with pytest.raises(UserError, match=r"thesis\.tex is not a timing cache of TensorRT 10\.3\.0 for this GPU"):
        compiled(bundle, "fp32", timing_cache=thesis)
    assert thesis.read_bytes() == b"chapter 1"


@pytest.mark.parametrize("version", VERSIONS)
def test_compute_capabilities_are_not_for_tensorrt(stand_in, bundle: Path, version):
    stand_in(version)
    with pytest.raises(UserError, match=r"compiles for the GPU that it runs on; leave out --sm\.$"):
        compiled(bundle, "fp32", sm="8.6")


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("Internal Error (Could not find any implementation for node conv.)", "FCNEDGE_LOG=INFO shows more."),
        ("Tactic Selection: no tactics within workspace limit", "allow it more than --workspace 64, or free some"),
        ("CUDA error: out of memory", "allow it more than --workspace 64, or free some memory."),
    ],
)
def test_failure_is_one_sentence_in_the_librarys_words(stand_in, bundle: Path, said, advice):
    stand_in("10.3").fails = said
    with pytest.raises(UserError) as caught:
        compiled(bundle, "fp32", workspace=64)
    sentence = str(caught.value)
    reason = said.removeprefix("Internal Error (").rstrip(".)")
    assert sentence.startswith(f"TensorRT 10.3.0 could not compile the network ({reason}); {advice}")
    assert not (bundle / "engines").exists()


@pytest.mark.parametrize(
    ("ending", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_signal_inside_a_callback_from_cpp_ends_the_command_with_its_own_code(
    rtx: Library, bundle: Path, ending, code, word
):
    """There an exception would end the process, so it becomes a request to stop, and must not lose what it was."""
    words = ["engine", str(bundle), "--target", "tensorrt_rtx", "--precision", "fp32", "--sm", "8.6"]
    command = [sys.executable, "-c", END_WHILE_COMPILING, str(int(ending)), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr == f"fcn-build engine: {word}.\n"
    assert not (bundle / "engines").exists()
