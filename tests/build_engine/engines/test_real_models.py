"""Engines of the real models, full width, by the real TensorRT-RTX: both heads, FP16 and INT8, no GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest

from fcnedge.build_engine import keras_stage
from fcnedge.build_engine.bundle_writer import file_specs, write_manifest
from fcnedge.build_engine.engines.build import build_engine, plan_engine
from fcnedge.build_engine.engines.command import EngineOptions
from fcnedge.build_engine.export import save_onnx
from fcnedge.build_engine.fusion import fuse
from fcnedge.build_engine.fusion.layer_names import name_layers
from fcnedge.build_engine.model_source import ModelSource, resolve_source
from fcnedge.build_engine.precision import place, to_fp16, to_int8
from fcnedge.calibration.activations import load_graph
from fcnedge.calibration.collect import collect
from fcnedge.calibration.pictures import choose_pictures
from fcnedge.runtime import Bundle, Manifest
from fcnedge.runtime.engine_sidecar import TensorSpec
from fcnedge.runtime.manifest import HeadSpec, InputSpec

SIZE = (224, 224)
CLASSES = 21
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["fcn8s-vgg16", "fcn16s-vgg16", "fcn32s-vgg16", "fcn8s-lite0"])
def exported(request, tmp_path_factory) -> Iterator[tuple[ModelSource, keras_stage.KerasResult, Path]]:
    """Give an architecture with random weights, exported once: VGG16's fc6 and fc7 have all their 4096 channels."""
    work = tmp_path_factory.mktemp(request.param)
    source = resolve_source(request.param, size=SIZE)
    yield source, keras_stage.run_keras_stage(source, 4096, [], work), work / keras_stage.EXPORTED_FILE
    for path in work.iterdir():
        path.unlink()  # half a gigabyte each


def fused_bundle(folder: Path, exported: tuple, head: str, pictures: Path) -> Bundle:
    """The exported model as a bundle in FP32, FP16 and TensorRT's INT8, ranges from two pictures."""
    source, keras, graph = exported
    folder.mkdir()
    model = ir.load(graph)
    tail = fuse(model, SIZE, labels=head == "labels").tail
    name_layers(model.graph, keras.layers)
    names = [path.name for path in save_onnx(model, folder / "model.fp32.onnx")]
    del model
    manifest = Manifest(
        name=source.name,
        arch=source.arch,
        classes=source.classes,
        palette=((0, 0, 0),) * CLASSES,
        input=InputSpec(*SIZE),
        preprocessing=keras.preprocessing,
        head=HeadSpec("labels") if tail is None else HeadSpec("bilinear", tail.stride, tail.kernel, tail.offset),
        files=file_specs(folder, names),
        versions={"fcnedge": "0"},
    )
    assert (tail is None) is (head == "labels")
    bundle = write_manifest(folder, manifest)
    ranges = collect(bundle, choose_pictures(pictures, images=2), method="minmax").tensors
    for precision in ("fp16", "int8.tensorrt"):  # one graph in memory at a time
        model = load_graph(bundle.model("fp32"))
        if precision == "fp16":
            to_fp16(model, ranges=ranges)
        else:
            to_int8(model, ranges, place(model, depthwise=False), elsewhere="fp16")
        names += [path.name for path in save_onnx(model, folder / f"model.{precision}.onnx")]
        del model
    return write_manifest(folder, replace(manifest, files=file_specs(folder, names)))


@pytest.mark.parametrize("head", ["bilinear", "labels"])
def test_engines_of_the_real_models_compile(rtx, exported, head, voc_folder, tmp_path):
    source, *_ = exported
    bundle = fused_bundle(tmp_path / source.name, exported, head, voc_folder / "JPEGImages")
    stride = bundle.manifest.head.stride
    grid = (1, CLASSES, SIZE[0] // stride, SIZE[1] // stride)
    scores, labels = TensorSpec("scores", "float16", grid), TensorSpec("labels", "uint8", (1, *SIZE))
    outputs = (scores if head == "bilinear" else labels,)
    for precision, dtype in (("fp16", "float16"), ("int8", "int8")):
        options = EngineOptions(bundle.path, "tensorrt_rtx", precision, sm="8.6,8.9,12.0")
        engine, sidecar = build_engine(plan_engine(options))
        assert sidecar.outputs == outputs
        assert sidecar.layers[dtype] >= 10
        assert sidecar.compute_capabilities == ("8.6", "8.9", "12.0")
        assert sidecar.bytes == engine.stat().st_size > 1_000_000
        engine.unlink()
