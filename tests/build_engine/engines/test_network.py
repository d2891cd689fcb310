"""What the parser and the builder say when they refuse, as one sentence, on releases that say more or less."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcnedge.build_engine.engines.build import plan_engine
from fcnedge.build_engine.engines.command import EngineOptions
from fcnedge.build_engine.engines.library_log import reason_in
from fcnedge.runtime.errors import UserError


@pytest.mark.parametrize("version", ["8.5", "10.3", "10.13", "11.4"])
def test_refused_operator_is_named_with_its_node(stand_in, bundle: Path, version):
    """The parser of 8.5 gives a number only: there the name comes from its log."""
    tensorrt = stand_in(version)
    tensorrt.refuses = "Relu"
    with pytest.raises(UserError) as caught:
        plan_engine(EngineOptions(bundle, "tensorrt", "fp32"))
    assert str(caught.value) == (
        f"TensorRT {tensorrt.module.__version__} refuses node relu (Relu) of {bundle}/model.fp32.onnx: "
        "No importer registered for op: Relu; rebuild the bundle without it, or choose another --target."
    )


def test_machine_without_gpu_is_told_where_to_compile(stand_in, bundle: Path):
    stand_in("10.3").has_gpu = False
    with pytest.raises(UserError) as caught:
        plan_engine(EngineOptions(bundle, "tensorrt", "fp32"))
    assert str(caught.value) == (
        "TensorRT 10.3.0 cannot start (CUDA initialization failure with error: 35); it compiles on the GPU that will "
        "run the engine: run this there, or choose --target tensorrt_rtx, which needs none."
    )


def test_driver_that_shows_no_gpu_is_told_too(stand_in, bundle: Path, monkeypatch):
    stand_in("10.3")
    monkeypatch.setattr("fcnedge.build_engine.engines.build.current_gpu", lambda: None)
    with pytest.raises(UserError, match="compiles for the GPU that it runs on, and the driver shows none"):
        plan_engine(EngineOptions(bundle, "tensorrt", "fp32"))


@pytest.mark.parametrize("version", ["10.3", "10.13", "11.4"])
def test_types_are_checked_where_the_graph_decides(stand_in, write_bundle, graph_of, tmp_path: Path, version):
    stand_in(version)
    bundle = write_bundle(tmp_path / "false", graphs={"fp16": graph_of("fp32"), "int8": graph_of("fp16")})
    for precision, lacks in (("fp16", "no float16 tensor"), ("int8", "no QuantizeLinear or DequantizeLinear")):
        with pytest.raises(UserError, match=f"holds {lacks}, and TensorRT {version}"):
            plan_engine(EngineOptions(bundle, "tensorrt", precision))


def test_flags_make_fp16_of_any_graph(stand_in, write_bundle, graph_of, tmp_path: Path):
    stand_in("8.5")
    bundle = write_bundle(tmp_path / "untyped", graphs={"fp16": graph_of("fp32")})
    assert plan_engine(EngineOptions(bundle, "tensorrt", "fp16")).parsed.outputs[0].dtype == "float32"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Invalid Node - a\nfirst input has type UInt8\nmore", "first input has type UInt8"),
        ("Error Code 4: API Usage Error (a: wrong. In checkType at /_src/b.cpp:1)", "a: wrong"),
        ("plain.", "plain"),
        ("", "it gives no reason"),
        ("x" * 400, "x" * 300),
    ],
)
def test_reason_is_the_part_that_helps(said, reason):
    assert reason_in(said) == reason
