"""The child process that runs Keras: its answers, its refusals, its crashes and its violent ends."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from fcnedge.build_engine import keras_stage
from fcnedge.build_engine.keras_stage import EXPORTED_FILE, run_keras_stage
from fcnedge.build_engine.model_source import ModelSource, keras_model
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.preprocessing import Preprocessing

SOURCE = ModelSource("m", "fcn32s-lite0", ("a", "b"), (32, 32), "stretch", None)
PICTURES = [("grey", np.full((32, 32, 3), 127, np.uint8))]


def test_stage_leaves_graph_references_and_facts(lite0_build):
    keras = lite0_build.keras
    assert keras.preprocessing == Preprocessing("rgb", (127.0, 127.0, 127.0), (1 / 128, 1 / 128, 1 / 128))
    model, _ = keras_model(lite0_build.source, fc_channels=1, fixed_size=True)
    assert keras.weights_bytes == 4 * model.count_params()
    assert [path.name for path in keras.references] == ["reference0000.npz", "reference0001.npz"]
    with np.load(keras.references[1]) as reference:
        assert str(reference["name"]) == "blobs1"
        assert reference["image"].shape == (64, 96, 3)
        assert reference["scores"].shape == (5, 8, 12)
        assert reference["labels"].shape == (64, 96)
    graph = onnx.load(str(lite0_build.recorded / EXPORTED_FILE)).graph
    assert [value.name for value in graph.input] == ["image"]
    assert [side.dim_value for side in graph.output[0].type.tensor_type.shape.dim] == [1, 64, 96, 5]


def test_users_error_arrives_as_its_sentence(tmp_path, monkeypatch):
    """In one line, though the file's name holds two; and from Keras, though a file here is called like it."""
    users_folder, work = tmp_path / "user", tmp_path / "work"
    users_folder.mkdir()
    work.mkdir()
    (users_folder / "keras.py").write_text("raise RuntimeError('not the Keras you wanted')", encoding="utf-8")
    monkeypatch.chdir(users_folder)
    weights = tmp_path / "two\nlines.h5"
    with pytest.raises(UserError) as caught:
        run_keras_stage(replace(SOURCE, weights=weights), 8, PICTURES, work)
    assert str(caught.value) == f"there is no weights file {tmp_path}/two lines.h5; check the path."


def test_package_that_is_missing_in_the_child_names_its_extra(tmp_path):
    missing = "raise ModuleNotFoundError(\"No module named 'keras'\", name='keras')"
    (tmp_path / "keras.py").write_text(missing, encoding="utf-8")  # the child's folder comes first on its import path
    with pytest.raises(UserError, match=r"^keras is not installed; install it with: pip install 'fcnedge\[build\]'$"):
        run_keras_stage(SOURCE, 8, PICTURES, tmp_path)


def test_crash_of_the_child_is_a_bug_with_its_traceback(tmp_path):
    broken = replace(SOURCE, classes=None)
    with pytest.raises(RuntimeError, match="the Keras stage failed with exit code 1") as caught:
        run_keras_stage(broken, 8, PICTURES, tmp_path)
    assert "Traceback (most recent call last)" in str(caught.value)
    assert "TypeError: 'NoneType' object is not iterable" in str(caught.value)


def interpreter(folder: Path, script: str) -> str:
    """A program that stands where Python would."""
    path = folder / "interpreter"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_killed_child_is_said_to_lack_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, "kill -KILL $$"))
    with pytest.raises(UserError, match="the export was killed, most likely for lack of memory; close other programs"):
        run_keras_stage(SOURCE, 8, PICTURES, tmp_path)


def test_child_ended_by_another_signal_is_a_bug(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, "echo 'terminate called' >&2; kill -ABRT $$"))
    with pytest.raises(RuntimeError, match=r"exit code -6:\nterminate called"):
        run_keras_stage(SOURCE, 8, PICTURES, tmp_path)


def test_child_is_asked_for_everything_the_caller_said(tmp_path, monkeypatch):
    """The request is all that the child knows: relative weights, pictures and sizes reach it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, "exit 3"))
    source = replace(SOURCE, weights=Path("my.h5"), size=(64, 96), fit="letterbox")
    with pytest.raises(RuntimeError, match="exit code 3"):
        run_keras_stage(source, 123, PICTURES, tmp_path)
    request = json.loads((tmp_path / keras_stage._REQUEST_FILE).read_text(encoding="utf-8"))
    assert request["source"] == {
        "name": "m",
        "arch": "fcn32s-lite0",
        "classes": ["a", "b"],
        "size": [64, 96],
        "fit": "letterbox",
        "weights": str(tmp_path / "my.h5"),
        "origin": None,
    }
    assert request["fc_channels"] == 123
    ((name, file),) = request["pictures"]
    assert name == "grey"
    np.testing.assert_array_equal(np.load(tmp_path / file), PICTURES[0][1])
