"""Which bundle is measured when none is named, and what is said when none can be had."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fcnedge.benchmarks import measured_bundle as module
from fcnedge.benchmarks.measured_bundle import SHIPPED, measured_bundle
from fcnedge.runtime.errors import BundleError, UserError


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def builds(monkeypatch, colour_bundle) -> list[list[str]]:
    """Give the commands that would build; what each leaves is the colour bundle."""
    commands = []

    def build(command: list[str], name: str) -> None:
        commands.append(command)
        shutil.copytree(colour_bundle, command[command.index("-o") + 1])

    monkeypatch.setattr(module, "run_child", build)
    return commands


def test_bundle_that_is_named_is_taken(colour_bundle, builds):
    assert measured_bundle(str(colour_bundle)).path == colour_bundle
    assert measured_bundle(str(colour_bundle), (96, 96)).path == colour_bundle
    assert builds == []


def test_bundle_of_another_size_than_asked_for_is_refused(colour_bundle):
    with pytest.raises(UserError, match=r"takes 96x96, --size asks for 128x64; .* fcn-build model --size 128x64\.$"):
        measured_bundle(str(colour_bundle), (64, 128))


def test_name_that_is_neither_bundle_nor_model_is_refused():
    with pytest.raises(BundleError, match=r"^there is no bundle at nonsense; build one with: "):
        measured_bundle("nonsense")


@pytest.mark.parametrize("place", [f"build/demo/{SHIPPED}", SHIPPED])
def test_shipped_bundle_at_hand_is_taken(colour_bundle, builds, place):
    shutil.copytree(colour_bundle, place)
    assert measured_bundle().path == Path(place)
    assert builds == []


def test_damaged_bundle_that_nobody_named_is_passed_over_aloud(colour_bundle, builds, caplog):
    shutil.copytree(colour_bundle, SHIPPED)
    (Path(SHIPPED) / "model.fp32.onnx").write_bytes(b"")
    assert "cache" in str(measured_bundle().path)
    assert any(f"{SHIPPED} is passed over: " in message for message in caplog.messages)


def test_model_is_built_once_into_the_cache_with_a_message(builds, caplog):
    caplog.set_level(logging.WARNING)
    first = measured_bundle()
    assert measured_bundle().path == first.path
    (command,) = builds
    assert command[1:4] == ["-m", "fcnedge.build_engine.cli", "model"]
    assert command[4:] == [SHIPPED, "-o", str(first.path), "--precision", "fp32,fp16,int8"]
    assert first.path.parent == Path(os.environ["XDG_CACHE_HOME"]) / "fcnedge" / "models"
    assert [message.startswith(f"building {SHIPPED} into ") for message in caplog.messages] == [True]


def test_another_size_is_another_bundle_of_the_cache(builds):
    paths = {measured_bundle(SHIPPED, size).path for size in (None, (96, 96), (320, 512))}
    assert len(paths) == 3
    assert builds[2][-2:] == ["--size", "512x320"]


def test_model_that_cannot_be_built_says_why_and_what_else_to_do(monkeypatch):
    def fails(command: list[str], name: str) -> None:
        raise UserError("tensorflow is not installed; install it with: pip install 'fcnedge[build]'")

    monkeypatch.setattr(module, "run_child", fails)
    with pytest.raises(
        UserError, match=r"could not be built: tensorflow is not .*'fcnedge\[build\]'; or name a bundle"
    ):
        measured_bundle()


@pytest.mark.slow
def test_command_without_arguments_builds_measures_and_says_so(tmp_path):
    """As in a fresh clone; twenty seconds of building."""
    from fcnedge.benchmarks import latency

    words = [sys.executable, latency.__file__, "--frames", "20", "--duration", "1", "--json", str(tmp_path / "r.json")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"building {SHIPPED} into {tmp_path / 'cache'}" in done.stderr
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert (report["model"]["name"], report["source"]["uri"]) == (SHIPPED, "demo://clip")
