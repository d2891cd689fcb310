"""Which engine is taken, what is said of the others, and the real TensorRT-RTX compiling a missing one in a child."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import logging
import os
import select
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fcnedge.build_engine import cli as build_cli
from fcnedge.runtime import Bundle
from fcnedge.runtime.engine_sidecar import EngineSidecar, TensorSpec, read_sidecar, sidecar_path
from fcnedge.runtime.engine_store import Machine, build_command, find_engine, name_for, obtain_engine
from fcnedge.runtime.errors import BackendError, BundleError

ORIN = Machine("tensorrt", "10.3.0", "Orin", "8.7")
RTX_3090 = Machine("tensorrt_rtx", "1.7.1.116", "NVIDIA GeForce RTX 3090", "8.6")


def _builder_tests() -> ModuleType:
    """The fixtures of the builder's tests, which hold small networks in all precisions."""
    path = Path(__file__).parents[1] / "build_engine" / "engines" / "conftest.py"
    spec = importlib.util.spec_from_file_location("builder_fixtures", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILDER_TESTS = _builder_tests()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the user's cache folder of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fcnedge" / "engines"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.load(BUILDER_TESTS.write_typed_bundle(tmp_path / "my-model"))


def add_engine(
    bundle: Bundle, machine: Machine = ORIN, folder: Path | None = None, name: str | None = None, **fields: object
) -> Path:
    """An engine of a few bytes with the sidecar that the builder would write for `machine`, some fields replaced."""
    precision = str(fields.get("precision", "int8"))
    engine = (folder or bundle.path / "engines") / (name or name_for(precision, machine))
    data = f"engine {name}".encode()
    engine.parent.mkdir(parents=True, exist_ok=True)
    engine.write_bytes(data)
    graph = f"model.{precision}.onnx"
    sidecar = EngineSidecar(
        engine=engine.name,
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        library=machine.library,
        version=machine.version,
        gpu=machine.gpu if machine.library == "tensorrt" else None,
        compute_capabilities=(machine.compute_capability,),
        precision=precision,
        route="strongly typed",
        layers={"int8": 1},
        inspected_by="engine inspector",
        inputs=(TensorSpec("image", "uint8", (1, 32, 48, 3)),),
        outputs=(TensorSpec("scores", "float16", (1, 4, 4, 6)),),
        graph={graph: hashlib.sha256((bundle.path / graph).read_bytes()).hexdigest()},
        workspace_mb=256,
        dla=False,
        fcnedge="0",
        seconds=1.0,
    )
    sidecar = dataclasses.replace(sidecar, **fields)
    sidecar_path(engine).write_text(sidecar.to_json(), encoding="utf-8")
    return engine


def refusal(bundle: Bundle, precision: str = "int8", machine: Machine = ORIN) -> str:
    with pytest.raises(BackendError) as caught:
        find_engine(bundle, precision, machine)
    sentence = str(caught.value)
    assert "\n" not in sentence
    with pytest.raises(BackendError) as caught:
        obtain_engine(bundle, precision, machine, build=False)
    assert str(caught.value) == sentence
    return sentence


def mending(bundle: Bundle, precision: str = "int8", target: str = "tensorrt", sm: str = "") -> str:
    words = f"fcn-build engine {bundle.path} --target {target} --precision {precision}{sm and f' --sm {sm}'}"
    return f"; compile one for this machine: {words}"


# --- the engine that fits


def test_engine_of_this_library_gpu_and_graph_is_taken(bundle: Bundle):
    engine = add_engine(bundle)
    assert find_engine(bundle, "int8", ORIN).path == engine
    assert obtain_engine(bundle, "int8", ORIN).path == engine


def test_bytes_that_were_verified_are_the_ones_that_are_given(bundle: Bundle):
    """Whoever replaces the file afterwards, with whatever sidecar, changes nothing of them."""
    path = add_engine(bundle)
    verified = path.read_bytes()
    found = find_engine(bundle, "int8", ORIN)
    path.write_bytes(b"something else")
    assert (found.path, found.plan) == (path, verified)
    assert hashlib.sha256(found.plan).hexdigest() == read_sidecar(path).sha256


def test_auto_is_the_most_exact_graph_as_for_every_backend(bundle: Bundle):
    add_engine(bundle, precision="fp16")
    engine = add_engine(bundle, precision="fp32")
    assert find_engine(bundle, "auto", ORIN).path == engine


def test_engine_is_known_by_its_sidecar_and_not_by_its_name(bundle: Bundle):
    add_engine(bundle, version="10.13.3.9")
    engine = add_engine(bundle, name="mine.plan")
    assert find_engine(bundle, "int8", ORIN).path == engine


def test_one_rtx_engine_serves_every_compute_capability_in_its_list(bundle: Bundle):
    engine = add_engine(bundle, RTX_3090, compute_capabilities=("8.6", "8.9", "12.0"))
    assert find_engine(bundle, "int8", RTX_3090).path == engine
    other = dataclasses.replace(RTX_3090, gpu="NVIDIA GeForce RTX 5090", compute_capability="12.0")
    assert find_engine(bundle, "int8", other).path == engine


def test_gpu_of_another_name_is_warned_of_and_taken(bundle: Bundle, caplog):
    engine = add_engine(bundle, gpu="Orin NX")
    assert find_engine(bundle, "int8", ORIN).path == engine
    assert f"{engine} was compiled on Orin NX; this is TensorRT 10.3.0 on Orin" in caplog.text
    caplog.clear()
    same = add_engine(bundle, name="z.engine")
    assert find_engine(bundle, "int8", ORIN).path == same
    assert caplog.text == ""


def test_engine_in_the_users_cache_is_found(bundle: Bundle, cache: Path):
    """Under the bundle's own hash: an engine for another bundle of the same name is not even looked at."""
    key = hashlib.sha256(bundle.manifest.to_json().encode()).hexdigest()[:32]
    add_engine(bundle, folder=cache / ("0" * 32))
    assert "has no int8 engine" in refusal(bundle)
    engine = add_engine(bundle, folder=cache / key)
    assert find_engine(bundle, "int8", ORIN).path == engine


def test_bundles_own_engine_is_found_by_a_user_without_home(bundle: Bundle, monkeypatch):
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", nowhere)
    engine = add_engine(bundle)
    assert find_engine(bundle, "int8", ORIN).path == engine


@pytest.mark.parametrize(
    ("route", "precision", "graph"),
    [
        ("strongly typed", "int8", "tensorrt.int8.onnx"),
        ("builder flags", "int8", "model.int8.onnx"),
        ("calibration cache", "int8", "model.fp32.onnx"),
        ("strongly typed", "fp16", "model.fp16.onnx"),
    ],
)
def test_graph_is_the_one_that_its_route_compiles(tmp_path: Path, route, precision, graph):
    folder = BUILDER_TESTS.write_typed_bundle(tmp_path / "b", files={"tensorrt.int8.onnx": b""})
    special = (folder / "model.int8.onnx").read_bytes() + b"\x32\x00"  # an empty `domain`: the same graph, other bytes
    (folder / "tensorrt.int8.onnx").write_bytes(special)
    manifest = json.loads((folder / "model.json").read_text())
    manifest["files"]["tensorrt.int8.onnx"] = {
        "sha256": hashlib.sha256(special).hexdigest(),
        "bytes": len(special),
        "precision": "int8",
        "target": "tensorrt",
    }
    (folder / "model.json").write_text(json.dumps(manifest))
    bundle = Bundle.load(folder)
    hashes = {name: manifest["files"][name]["sha256"] for name in manifest["files"]}
    for name, value in hashes.items():
        add_engine(bundle, precision=precision, route=route, graph={name: value})
        if name == graph:
            assert find_engine(bundle, precision, ORIN).path.exists()
        else:
            assert f"another graph than the bundle's {graph};" in refusal(bundle, precision)


def test_engine_of_a_graph_that_only_tensorrt_reads_is_taken(bundle: Bundle):
    """A bundle may hold a precision for TensorRT alone; what was compiled from its other graph once fits no more."""
    manifest = json.loads((bundle.path / "model.json").read_text())
    manifest["files"]["model.int8.onnx"]["target"] = "tensorrt"
    (bundle.path / "model.json").write_text(json.dumps(manifest))
    bundle = Bundle.load(bundle.path)
    engine = add_engine(bundle)
    assert find_engine(bundle, "int8", ORIN).path == engine
    add_engine(bundle, route="builder flags")
    assert f"{engine} was compiled from a graph, by builder flags, that the bundle does not hold;" in refusal(bundle)


def test_weights_beside_the_graph_count(tmp_path: Path):
    graph = BUILDER_TESTS.typed_graph("fp32")
    folder = BUILDER_TESTS.write_typed_bundle(
        tmp_path / "b", graphs={"fp32": graph}, files={"model.fp32.onnx.data": b"w"}
    )
    bundle = Bundle.load(folder)
    hashes = {name: spec.sha256 for name, spec in bundle.manifest.files.items()}
    engine = add_engine(bundle, precision="fp32", graph=hashes)
    assert find_engine(bundle, "fp32", ORIN).path == engine
    add_engine(bundle, precision="fp32", graph={**hashes, "model.fp32.onnx.data": "0" * 64})
    assert "was compiled from another graph than the bundle's model.fp32.onnx" in refusal(bundle, "fp32")
    add_engine(bundle, precision="fp32", graph={"model.fp32.onnx": hashes["model.fp32.onnx"]})
    assert "was compiled from another graph than the bundle's model.fp32.onnx" in refusal(bundle, "fp32")


# --- what the others differ in


def test_bundle_without_engines_says_how_to_get_one(bundle: Bundle):
    assert refusal(bundle) == (
        f"{bundle.path} has no int8 engine for TensorRT 10.3.0 on Orin (compute capability 8.7){mending(bundle)}"
    )


def test_engines_of_another_precision_library_or_for_the_dla_are_no_near_miss(bundle: Bundle):
    add_engine(bundle, precision="fp16")
    add_engine(bundle, RTX_3090)
    add_engine(bundle, name="dla.engine", dla=True)
    assert refusal(bundle).startswith(f"{bundle.path} has no int8 engine for TensorRT 10.3.0 on Orin")
    assert refusal(bundle, "fp16", RTX_3090).endswith(mending(bundle, "fp16", "tensorrt_rtx", "8.6"))


def test_engine_of_another_gpu_is_refused(bundle: Bundle):
    xavier = dataclasses.replace(ORIN, gpu="Xavier", compute_capability="7.2")
    engine = add_engine(bundle)
    assert refusal(bundle, machine=xavier) == (
        f"{engine} was compiled for compute capability 8.7 (Orin) where this GPU has 7.2 (Xavier){mending(bundle)}"
    )


def test_rtx_engine_that_lists_other_gpus_is_refused(bundle: Bundle):
    engine = add_engine(bundle, RTX_3090, compute_capabilities=("8.9", "12.0"))
    assert refusal(bundle, machine=RTX_3090).startswith(
        f"{engine} was compiled for compute capability 8.9, 12.0 where this GPU has 8.6 (NVIDIA GeForce RTX 3090);"
    )


@pytest.mark.parametrize("version", ["10.3.1", "10.3", "8.5.2.2", "11.4.0.12"])
def test_engine_of_another_version_is_refused(bundle: Bundle, version):
    engine = add_engine(bundle, version=version)
    assert refusal(bundle) == (
        f"{engine} was compiled by TensorRT {version} where this machine has 10.3.0{mending(bundle)} --force"
    )


def test_command_replaces_what_lies_where_it_writes_and_nothing_else(bundle: Bundle):
    """An engine for several GPUs is not there, and a sidecar alone is: fcn-build refuses to write over either."""
    add_engine(bundle, RTX_3090, name="int8.tensorrt_rtx.sm80-sm86.engine", version="1.0")
    assert refusal(bundle, machine=RTX_3090).endswith(mending(bundle, target="tensorrt_rtx", sm="8.6"))
    engine = add_engine(bundle, RTX_3090, version="1.0")
    assert refusal(bundle, machine=RTX_3090).endswith(mending(bundle, target="tensorrt_rtx", sm="8.6") + " --force")
    engine.unlink()
    assert refusal(bundle, machine=RTX_3090).endswith(mending(bundle, target="tensorrt_rtx", sm="8.6") + " --force")


def test_command_for_a_certain_file_writes_that_file(bundle: Bundle):
    output = bundle.path / "engines" / "my engine"
    command = f"fcn-build engine {bundle.path} --target tensorrt --precision int8 --output '{output}'"
    assert build_command(bundle, "int8", ORIN, output) == command
    add_engine(bundle, name="my engine")
    assert build_command(bundle, "int8", ORIN, output) == f"{command} --force"


@pytest.mark.parametrize(("visible", "chosen"), [(None, "1"), ("2, GPU-8a1f", "GPU-8a1f")])
def test_command_for_another_gpu_than_the_first_chooses_it(bundle: Bundle, monkeypatch, visible, chosen):
    set_visible(monkeypatch, visible)
    second = dataclasses.replace(ORIN, index=1)
    assert f"; compile one for this machine: CUDA_VISIBLE_DEVICES={chosen} fcn-build engine {bundle.path} " in refusal(
        bundle, machine=second
    )


def set_visible(monkeypatch: pytest.MonkeyPatch, visible: str | None) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)


def test_engine_of_another_graph_is_refused(bundle: Bundle):
    engine = add_engine(bundle, graph={"model.int8.onnx": "0" * 64})
    assert refusal(bundle).startswith(f"{engine} was compiled from another graph than the bundle's model.int8.onnx;")


def test_all_differences_of_the_nearest_are_named(bundle: Bundle):
    add_engine(bundle, name="a.engine", version="8.6.1", compute_capabilities=("7.2",), graph={"x": "0" * 64})
    engine = add_engine(bundle, name="b.engine", version="8.6.1", compute_capabilities=("7.2",), gpu="Xavier")
    (bundle.path / "engines" / "c.engine").write_bytes(b"of an unknown kind")
    assert refusal(bundle).startswith(
        f"{engine} was compiled for compute capability 7.2 (Xavier) where this GPU has 8.7 (Orin), and it was compiled "
        "by TensorRT 8.6.1 where this machine has 10.3.0;"
    )


@pytest.mark.parametrize("kept", [0, 1, 5])
def test_truncated_engine_is_refused(bundle: Bundle, kept):
    engine = add_engine(bundle)
    whole = engine.read_bytes()
    engine.write_bytes(whole[:kept])
    assert refusal(bundle).startswith(
        f"{engine} is cut off: it has {kept} of the {len(whole)} bytes that its sidecar says;"
    )


def test_engine_that_has_grown_is_refused(bundle: Bundle):
    engine = add_engine(bundle)
    engine.write_bytes(b"engine None and more")
    assert refusal(bundle).startswith(
        f"{engine} was changed after it was compiled: it has more than the 11 bytes that its sidecar says;"
    )


def test_changed_engine_is_refused(bundle: Bundle):
    data = b"enginE None"
    engine = add_engine(bundle)
    engine.write_bytes(data)
    starts = hashlib.sha256(data).hexdigest()[:12]
    assert f"{engine} was changed after it was compiled: its SHA-256 starts {starts}, its sidecar says" in refusal(
        bundle
    )


def test_whole_engine_is_taken_where_another_is_cut_off(bundle: Bundle):
    add_engine(bundle, name="a.engine").write_bytes(b"")
    engine = add_engine(bundle, name="b.engine")
    assert find_engine(bundle, "int8", ORIN).path == engine


def test_engine_without_sidecar_is_refused(bundle: Bundle):
    engine = add_engine(bundle)
    sidecar_path(engine).unlink()
    assert refusal(bundle) == (
        f"{engine} has no {engine.name}.json beside it, so nobody knows which GPU it is for{mending(bundle)} --force"
    )


def test_engine_with_a_damaged_sidecar_is_refused(bundle: Bundle):
    engine = add_engine(bundle)
    whole = sidecar_path(engine).read_text()
    for length in range(0, len(whole) - 2, 97):
        sidecar_path(engine).write_text(whole[:length])
        assert refusal(bundle).startswith(f"{engine.name}.json is not valid JSON; compile one for this machine: ")


def test_engines_folder_that_is_none_is_as_good_as_empty(bundle: Bundle):
    (bundle.path / "engines").write_text("a file")
    assert "has no int8 engine" in refusal(bundle)


def test_precision_that_the_bundle_has_not_is_the_bundles_error(tmp_path: Path):
    graphs = {"fp32": BUILDER_TESTS.typed_graph("fp32")}
    bundle = Bundle.load(BUILDER_TESTS.write_typed_bundle(tmp_path / "b", graphs=graphs))
    for call in (find_engine, obtain_engine):
        with pytest.raises(BundleError, match="holds no int8 graph, only fp32"):
            call(bundle, "int8", ORIN)


# --- compiling, by TensorRT-RTX itself


@pytest.fixture
def rtx() -> Machine:
    """Give a machine with the TensorRT-RTX that is installed, which compiles without a GPU, and an RTX 3090."""
    names = ("tensorrt_rtx", "tensorrt_rtx_bindings")
    name = next((name for name in names if importlib.util.find_spec(name)), None)
    if name is None:
        pytest.skip("TensorRT-RTX is not installed; pip install 'fcnedge[rtx]' brings it, and it needs no GPU")
    return dataclasses.replace(RTX_3090, version=str(importlib.import_module(name).__version__))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_missing_engine_is_compiled_into_the_bundle_and_found_from_then_on(
    rtx: Machine, bundle: Bundle, precision, caplog, capfd
):
    engine = obtain_engine(bundle, precision, rtx).path
    assert engine == bundle.path / "engines" / f"{precision}.tensorrt_rtx-{rtx.version}.sm86.engine"
    sidecar = read_sidecar(engine)
    assert (sidecar.library, sidecar.version) == ("tensorrt_rtx", rtx.version)
    assert (sidecar.precision, sidecar.compute_capabilities) == (precision, ("8.6",))
    assert names_in(engine.parent) == [engine.name, f"{engine.name}.json"]
    assert f"compiling the {precision} engine of tiny for TensorRT-RTX {rtx.version} on NVIDIA" in caplog.text
    assert f"it is kept as {engine}" in caplog.text
    assert capfd.readouterr() == ("", "")
    before = engine.stat().st_mtime_ns
    caplog.clear()
    assert obtain_engine(bundle, precision, rtx).path == find_engine(bundle, precision, rtx).path == engine
    assert (engine.stat().st_mtime_ns, caplog.text) == (before, "")
    assert Bundle.load(bundle.path).manifest == bundle.manifest


def test_bundle_may_have_a_relative_path_and_spaces(rtx: Machine, tmp_path: Path, monkeypatch):
    BUILDER_TESTS.write_typed_bundle(tmp_path / "-my model")
    monkeypatch.chdir(tmp_path)
    bundle = Bundle.load(Path("-my model"))
    assert "fcn-build engine '-my model' --target" in refusal(bundle, "fp32", rtx)
    assert obtain_engine(bundle, "fp32", rtx).path.parent == Path("-my model/engines")


def test_engine_that_is_cut_off_is_compiled_again(rtx: Machine, bundle: Bundle):
    engine = obtain_engine(bundle, "fp32", rtx).path
    whole = engine.read_bytes()
    engine.write_bytes(whole[: len(whole) // 2])
    assert "is cut off" in refusal(bundle, "fp32", rtx)
    assert obtain_engine(bundle, "fp32", rtx).path == engine
    assert engine.stat().st_size == read_sidecar(engine).bytes


def test_bundle_that_cannot_be_written_to_keeps_its_engines_in_the_users_cache(
    rtx: Machine, bundle: Bundle, cache: Path
):
    (bundle.path / "engines").write_text("not a folder")  # in this way even root cannot write there
    engine = obtain_engine(bundle, "fp32", rtx).path
    assert engine.parent.parent == cache
    assert find_engine(bundle, "fp32", rtx).path == engine
    assert read_sidecar(engine).compute_capabilities == ("8.6",)
    if os.name == "posix":
        assert [folder.stat().st_mode & 0o777 for folder in (engine.parent, cache, cache.parent)] == [0o700] * 3


def test_no_place_to_write_is_one_sentence(rtx: Machine, bundle: Bundle, cache: Path):
    (bundle.path / "engines").write_text("not a folder")
    cache.parent.mkdir(parents=True)
    cache.write_text("not a folder either")
    with pytest.raises(BackendError, match=r"nothing can be written to .*my-model/engines or .*; make one of them"):
        obtain_engine(bundle, "fp32", rtx)


def test_builders_sentence_becomes_ours(rtx: Machine, tmp_path: Path, capfd):
    graphs = {"fp16": BUILDER_TESTS.typed_graph("fp32")}
    bundle = Bundle.load(BUILDER_TESTS.write_typed_bundle(tmp_path / "false", graphs=graphs))
    with pytest.raises(BackendError) as caught:
        obtain_engine(bundle, "fp16", rtx)
    assert str(caught.value).startswith(f"{bundle.path}/model.fp16.onnx holds no float16 tensor, and TensorRT-RTX")
    assert str(caught.value).endswith("; rebuild the bundle with that precision.")
    assert capfd.readouterr().err == ""
    assert names_in(bundle.path / "engines") == []


def test_gpu_that_the_library_does_not_know_is_the_builders_sentence(rtx: Machine, bundle: Bundle):
    with pytest.raises(BackendError, match=r"^--sm has '8\.7'; TensorRT-RTX .* compiles for 7\.5, 8\.0, 8\.6"):
        obtain_engine(bundle, "fp32", dataclasses.replace(rtx, compute_capability="8.7"))


def test_advised_command_mends(rtx: Machine, bundle: Bundle, capsys):
    """For Turing too, which is not among the GPUs that TensorRT-RTX compiles for by default."""
    turing = dataclasses.replace(rtx, gpu="NVIDIA GeForce RTX 2080", compute_capability="7.5")
    for _ in range(2):
        advised = shlex.split(refusal(bundle, "fp32", turing).partition("for this machine: ")[2])
        assert advised[0] == "fcn-build"
        assert build_cli.main(advised[1:]) == 0
        find_engine(bundle, "fp32", turing).path.write_bytes(b"cut off")


@pytest.mark.parametrize(
    ("visible", "index", "chosen"),
    [(None, 0, "0"), (None, 1, "1"), ("3,2", 0, "3"), ("3,2", 1, "2"), ("GPU-8a1f, GPU-77", 1, "GPU-77")],
)
def test_tensorrt_sees_only_the_gpu_that_the_engine_is_for(
    bundle: Bundle, tmp_path: Path, monkeypatch, visible, index, chosen
):
    """In the real child, where a module by TensorRT's name writes down what it sees and loads no further."""
    seen = tmp_path / "seen"
    program = f"import os\nopen({str(seen)!r}, 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])\nraise ImportError('no')"
    (tmp_path / "tensorrt.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    set_visible(monkeypatch, visible)
    with pytest.raises(BackendError, match=r"^tensorrt is installed but cannot be loaded \(no\)"):
        obtain_engine(bundle, "int8", dataclasses.replace(ORIN, index=index))
    assert seen.read_text() == chosen


def test_engine_of_another_version_than_this_process_has_is_never_returned(rtx: Machine, bundle: Bundle):
    """As when the child's Python finds another TensorRT: what it compiled is looked at like any other engine."""
    with pytest.raises(BackendError, match=rf"was compiled by TensorRT-RTX {rtx.version} where this machine has 1\.0"):
        obtain_engine(bundle, "fp32", dataclasses.replace(rtx, version="1.0"))


def test_what_the_builder_logs_reaches_the_user(rtx: Machine, bundle: Bundle, monkeypatch, capfd):
    monkeypatch.setenv("FCNEDGE_LOG", "DEBUG")
    obtain_engine(bundle, "fp32", rtx)
    assert "Parsing node: conv [Conv]" in capfd.readouterr().err


OBTAIN = """
import logging, sys
from pathlib import Path
from fcnedge.runtime import Bundle
from fcnedge.runtime.engine_store import Machine, obtain_engine
logging.basicConfig(format="%(message)s")
try:
    print(obtain_engine(Bundle.load(sys.argv[1]), "fp32", Machine(*sys.argv[2:])).path)
except KeyboardInterrupt:
    print("interrupted")
maps = Path("/proc/self/maps")
print("tensorrt" in (maps.read_text() if maps.exists() else "".join(sys.modules)))
"""


def obtain_command(bundle: Bundle, machine: Machine) -> list[str]:
    return [sys.executable, "-c", OBTAIN, str(bundle.path), *dataclasses.astuple(machine)[:4]]


def test_two_processes_that_ask_at_once_compile_one_engine(rtx: Machine, bundle: Bundle):
    command = obtain_command(bundle, rtx)
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate() for process in both]
    engine = find_engine(bundle, "fp32", rtx).path
    assert [output.splitlines()[0] for output, _ in said] == [str(engine)] * 2
    assert sum(errors.count("compiling the fp32 engine") for _, errors in said) == 1
    assert names_in(engine.parent) == [engine.name, f"{engine.name}.json"]


@pytest.mark.skipif(os.name != "posix", reason="the lock is Unix's")
def test_waiting_for_another_process_is_said_once(rtx: Machine, bundle: Bundle):
    import fcntl

    folder = bundle.path / "engines"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    said = []
    with subprocess.Popen(
        obtain_command(bundle, rtx), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        if select.select([child.stderr], [], [], 60)[0]:  # one that waits in silence would never say anything
            said.append(child.stderr.readline())
        os.close(descriptor)
        said += child.communicate()[1].splitlines()
    assert said[0] == f"another process is compiling an engine into {folder}; waiting for it\n"
    assert [line for line in said[1:] if "another process" in line] == []
    assert "compiling the fp32 engine" in said[1]


@pytest.mark.skipif(sys.platform != "linux", reason="children are looked up as Linux lists them")
def test_compiler_keeps_the_lock_when_its_asker_is_killed(rtx: Machine, bundle: Bundle):
    """An application that is stopped in its first start and started again has no second compiler beside the first."""
    import fcntl

    command, environment = obtain_command(bundle, rtx), {**os.environ, "FCNEDGE_LOG": "DEBUG"}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as killed:
        assert killed.stderr is not None
        next(line for line in killed.stderr if "Parsing node" in line)  # the compiler is at work
        (compiler,) = map(int, Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split())
        os.kill(compiler, signal.SIGSTOP)
        killed.kill()
    descriptor = os.open(bundle.path / "engines", os.O_RDONLY)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.kill(compiler, signal.SIGCONT)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)
    assert find_engine(bundle, "fp32", rtx).path.name == name_for("fp32", rtx)


def test_builders_memory_was_never_ours(rtx: Machine, bundle: Bundle):
    """The library is not even mapped into the process that asked, so all that it took has gone back."""
    done = subprocess.run(obtain_command(bundle, rtx), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == "False"


@pytest.mark.skipif(os.name != "posix", reason="signals are Unix's")
def test_ctrl_c_ends_the_build_and_leaves_nothing_half_done(rtx: Machine, bundle: Bundle):
    environment = {**os.environ, "FCNEDGE_LOG": "DEBUG"}
    command = obtain_command(bundle, rtx)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as parent:
        for line in iter(parent.stderr.readline, ""):
            if "Parsing node" in line:  # the child is at work
                break
        parent.send_signal(signal.SIGINT)
        output, _ = parent.communicate()
    engine = bundle.path / "engines" / name_for("fp32", rtx)
    if names_in(engine.parent):  # a machine so fast that the engine was whole before the signal came
        assert names_in(engine.parent) == [engine.name, f"{engine.name}.json"]
        assert find_engine(bundle, "fp32", rtx).path == engine
    else:
        assert output.splitlines()[0] == "interrupted"


def test_compiling_is_announced_where_a_user_sees_it(rtx: Machine, bundle: Bundle, caplog):
    obtain_engine(bundle, "fp32", rtx)
    assert [record.levelno for record in caplog.records if "compiling" in record.message] == [logging.WARNING]
