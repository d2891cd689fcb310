"""What peers run is the same model: an unfused bundle for TensorRT, the raw export, and what cannot be converted."""

from __future__ import annotations

import sys
from contextlib import closing

import numpy as np
import pytest

from fcnedge.benchmarks.peers.child import Child, ChildError
from fcnedge.benchmarks.peers.conversion import Converter, _check_memory
from fcnedge.benchmarks.peers.hand_work import HandWork
from fcnedge.benchmarks.peers.keras_predict import open_keras_predict
from fcnedge.benchmarks.peers.onnxruntime_peer import open_onnxruntime
from fcnedge.benchmarks.peers.original import Original
from fcnedge.build_engine.build import build_bundle
from fcnedge.build_engine.model_source import resolve_source
from fcnedge.runtime import Bundle, Segmenter
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.manifest import InputSpec
from fcnedge.runtime.preprocessing import Preprocessing


def test_an_export_that_memory_cannot_hold_is_refused_beforehand():
    with pytest.raises(UserError, match=r"^tf2onnx's default export of 10000000 MB of weights takes about 500000 GB "):
        _check_memory(10**13)


def test_a_missing_package_names_the_command_that_installs_it(monkeypatch):
    original = Original("fcn8s-lite0-voc", None, ("x",) * 21, (64, 96), "stretch", 4096)
    hand = HandWork(InputSpec(64, 96), Preprocessing("bgr", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    for start in (lambda: Converter(original, hand, print), lambda: open_keras_predict(original, hand, 1)):
        with pytest.raises(UserError, match=r"^tensorflow is not installed; .* pip install 'fcnedge\[build\]'$"):
            start()


@pytest.mark.slow
def test_unfused_bundle_and_raw_export_label_alike(tmp_path, voc_folder):
    """Two exports of one Keras model by different ways; argmax in the one's graph, in NumPy behind the other."""
    from fcnedge.calibration.voc import read_voc

    size = (64, 96)
    built = tmp_path / "bundle"
    build_bundle(resolve_source("fcn8s-lite0-voc", size=size), built)
    manifest = Bundle.load(built).manifest
    hand = HandWork(manifest.input, manifest.preprocessing)
    original = Original.of(manifest, None, None, 4096)
    with closing(Child(Converter, original, hand)) as child:
        child.call("onnx", tmp_path / "raw.onnx")
        child.call("unfused_bundle", tmp_path / "unfused", built)
    by_hand = open_onnxruntime(tmp_path / "raw.onnx", hand, "CPUExecutionProvider", 1).segment
    image = next(image for sample in read_voc(voc_folder, "val") if (image := sample.read_image()).shape[:2] == size)
    with Segmenter(tmp_path / "unfused", "onnxruntime", "fp32", 1) as segmenter:
        mask = segmenter(image)
    assert np.mean(mask == by_hand(image)) > 0.999  # the two sum floats in another order
    assert len(np.unique(mask)) > 1


@pytest.mark.slow
def test_a_model_of_other_arithmetic_than_the_bundle_is_refused():
    original = Original("fcn8s-lite0-voc", None, ("x",) * 21, (64, 96), "stretch", 4096)
    hand = HandWork(InputSpec(64, 96), Preprocessing("bgr", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    with pytest.raises(ChildError, match=r"it was not built from that model, name the right one with --original\.$"):
        Child(Converter, original, hand)
