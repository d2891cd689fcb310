"""Exported graphs compiled by the real TensorRT-RTX, which needs no GPU for it."""

from __future__ import annotations

import importlib.util
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from fcnedge.build_engine.engines.compile import Settings, compile_network, configure
from fcnedge.build_engine.engines.library import Library, open_library
from fcnedge.build_engine.engines.library_log import library_log
from fcnedge.build_engine.engines.network import parse_graph
from fcnedge.build_engine.engines.recipe import choose_recipe
from fcnedge.build_engine.exporters.labels_graph import end_in_labels, open_graph, save_whole
from fcnedge.runtime.engine_sidecar import TensorSpec
from fcnedge.runtime.manifest import InputSpec

pytestmark = pytest.mark.slow
LABELS = TensorSpec("labels", "uint8", (1, 64, 96))


@pytest.fixture(scope="module")
def rtx() -> Library:
    if not any(importlib.util.find_spec(name) for name in ("tensorrt_rtx", "tensorrt_rtx_bindings")):
        pytest.skip("TensorRT-RTX is not installed; pip install 'fcnedge[rtx]' brings it, and it needs no GPU")
    return open_library("tensorrt_rtx")


def compiled(rtx: Library, graph: Path, precision: str) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...], int]:
    """Inputs, outputs and bytes of the engine for compute capability 8.6."""
    log = library_log(rtx.module, cancelled := threading.Event())
    parsed = parse_graph(rtx, log, graph, strongly_typed=True)
    recipe = choose_recipe(rtx, precision, dla=False, calibration_cache=False)
    configuration = configure(rtx, parsed, Settings(recipe, 256, ("8.6",)))
    plan = compile_network(rtx, log, parsed, configuration, cancelled).plan
    return parsed.inputs, parsed.outputs, plan.nbytes


@pytest.mark.parametrize(("precision", "target"), [("fp32", None), ("fp16", None), ("int8", "tensorrt")])
def test_labels_graph_compiles(rtx, typed_bundle, tools, precision, target, tmp_path: Path):
    flags = ["--precision", precision, *(["--target", target] if target else [])]
    tools.export("onnx", typed_bundle.path, "-o", tmp_path / "m.onnx", *flags)
    inputs, outputs, size = compiled(rtx, tmp_path / "m.onnx", precision)
    assert inputs == (TensorSpec("image", "uint8", (1, 64, 96, 3)),)
    assert outputs == (LABELS,)
    assert size > 10_000


def test_labels_graph_with_float_planes_compiles(rtx, typed_bundle, tools, tmp_path: Path):
    tools.export("onnx", typed_bundle.path, "-o", tmp_path / "m.onnx", "--layout", "nchw", "--float-input")
    inputs, outputs, _ = compiled(rtx, tmp_path / "m.onnx", "fp32")
    assert inputs == (TensorSpec("image", "float32", (1, 3, 64, 96)),)
    assert outputs == (LABELS,)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_deepstreams_graph_compiles(rtx, typed_bundle, tools, precision, tmp_path: Path):
    tools.export("deepstream", typed_bundle.path, "-o", tmp_path / "ds", "--precision", precision)
    inputs, outputs, _ = compiled(rtx, tmp_path / "ds" / "model.onnx", precision)
    assert inputs == (TensorSpec("image_centred", "float32", (1, 3, 64, 96)),)
    assert outputs == (TensorSpec("probabilities", "float32", (1, 5, 64, 96)),)


def test_head_whose_crop_is_larger_than_its_kernel_compiles(rtx, typed_bundle, tmp_path: Path):
    """As after the pad of 100 of Caffe's FCNs: grid points at the border are never read."""
    manifest = typed_bundle.manifest
    size = InputSpec(manifest.input.height - 48, manifest.input.width - 48)
    head = replace(manifest.head, offset=(24.0, 24.0), points=(8, 12))
    model = open_graph(typed_bundle, "fp16")
    end_in_labels(model, replace(manifest, input=size, head=head))
    (graph,) = save_whole(model, tmp_path / "m.onnx")
    _, outputs, _ = compiled(rtx, graph, "fp16")
    assert outputs == (TensorSpec("labels", "uint8", (1, size.height, size.width)),)
