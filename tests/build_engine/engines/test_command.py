"""The command line: options, dry run, table; and that it can be read without TensorRT."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fcnedge.build_engine.engines.command import DEFAULT_WORKSPACE_MB, EngineOptions, run
from fcnedge.runtime.command import Parser
from fcnedge.runtime.errors import BundleError
from fcnedge.runtime.options import add_options, read_options


def parsed(*words: str) -> EngineOptions:
    parser = Parser()
    add_options(parser, EngineOptions)
    return read_options(EngineOptions, parser.parse_args(words))


def test_bundle_alone_is_a_command():
    """It is what messages tell the user to run."""
    assert parsed("my-model") == EngineOptions(Path("my-model"), "tensorrt", "fp16", workspace=DEFAULT_WORKSPACE_MB)


def test_all_options_are_read():
    words = "b --target tensorrt_rtx --precision int8 -o e --workspace 64 --sm 8.6,8.9 --dla --calibration-cache c"
    options = parsed(*words.split(), "--timing-cache", "t", "--force", "--dry-run", "--json", "j")
    assert options == EngineOptions(
        Path("b"), "tensorrt_rtx", "int8", Path("e"), 64, "8.6,8.9", True, Path("c"), Path("t"), True, True, Path("j")
    )


def test_dry_run_says_what_would_be_and_writes_nothing(stand_in, bundle: Path, capsys):
    stand_in("10.3")
    run(EngineOptions(bundle, precision="int8", dry_run=True))
    assert capsys.readouterr().out == (
        f"would compile {bundle}/model.int8.onnx (8 layers, strongly typed) with TensorRT 10.3.0 for 8.7 into "
        f"{bundle}/engines/int8.tensorrt-10.3.0.sm87.engine\n"
    )
    assert not (bundle / "engines").exists()


def test_table_says_what_was_asked_and_obtained(stand_in, bundle: Path, capsys):
    stand_in("10.3")
    run(EngineOptions(bundle, precision="int8"))
    printed = capsys.readouterr().out
    assert "asked        int8, strongly typed\n" in printed
    assert "obtained     7 float16, 1 int8 (layers by the type they take; from the engine inspector)\n" in printed
    assert "for          Orin 8.7\n" in printed


def test_engine_that_nobody_could_inspect_says_so(stand_in, bundle: Path, capsys, monkeypatch):
    stand_in("10.3")
    monkeypatch.setattr("fcnedge.build_engine.engines.layers._inspector_json", lambda *_: "")
    run(EngineOptions(bundle, precision="int8"))
    assert "obtained     not inspected\n" in capsys.readouterr().out


def test_what_is_no_bundle_is_refused_before_tensorrt_is_looked_for(tmp_path: Path):
    with pytest.raises(BundleError, match="is not a bundle"):
        run(EngineOptions(tmp_path))


def test_reading_the_command_line_loads_no_tensorrt():
    code = "import sys, fcnedge.build_engine.engines.build; print([n for n in sys.modules if 'tensorrt_rtx' in n])"
    code += "; print([n for n in ('onnx', 'onnx_ir', 'tensorflow', 'cv2', 'pycuda') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n[]\n"
