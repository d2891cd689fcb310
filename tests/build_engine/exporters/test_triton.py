"""What `export triton` writes, read by Triton's own protobuf and run by ONNX Runtime, which Triton runs it with."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fcnedge.build_engine.bundle_writer import file_specs, write_manifest
from fcnedge.build_engine.exporters import triton
from fcnedge.runtime import Bundle
from fcnedge.runtime.bundle import sha256_of
from fcnedge.runtime.engine_sidecar import EngineSidecar, TensorSpec, sidecar_path

NAME = "fcn8s-lite0"


def read_config(folder: Path) -> Any:
    """config.pbtxt as Triton parses it: an unknown field or a wrong type raises."""
    reason = "Triton's protobuf is not installed; pip install 'tritonclient[grpc]'"
    config = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason=reason)
    text_format = pytest.importorskip("google.protobuf.text_format")
    return text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), config.ModelConfig())


def type_names(tensors: Any) -> list[tuple[str, str, list[int]]]:
    names = type(tensors[0]).DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    return [(tensor.name, names[tensor.data_type].name, list(tensor.dims)) for tensor in tensors]


@pytest.mark.parametrize(("precision", "target"), [("fp32", None), ("fp16", None), ("int8", None), ("int8", "vnni")])
def test_configuration_fits_the_model_and_both_take_batches(
    typed_bundle, pictures, tools, expect_labels, precision, target, tmp_path: Path
):
    flags = ["--precision", precision, *(["--target", target] if target else [])]
    tools.export("triton", typed_bundle.path, "-o", tmp_path / "models", "--batch", 4, *flags)
    folder = tmp_path / "models" / NAME
    config = read_config(folder)
    assert (config.name, config.backend, config.max_batch_size) == (NAME, "onnxruntime", 4)
    assert config.HasField("dynamic_batching")
    assert type_names(config.input) == [("image", "TYPE_UINT8", [64, 96, 3])]
    assert type_names(config.output) == [("labels", "TYPE_UINT8", [64, 96])]
    model = onnx.load(folder / "1" / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    for value, tensor in ((model.graph.input[0], config.input[0]), (model.graph.output[0], config.output[0])):
        batch, *sides = value.type.tensor_type.shape.dim
        assert batch.dim_param
        assert (value.name, [side.dim_value for side in sides]) == (tensor.name, list(tensor.dims))
    expect_labels(tools.run(folder / "1" / "model.onnx", pictures), pictures, typed_bundle.model(precision, target))


def test_warmup_instances_and_classes_are_configured(typed_bundle, tools, tmp_path: Path):
    tools.export("triton", typed_bundle.path, "-o", tmp_path, "--instances", 2, "--device", "cpu")
    config = read_config(tmp_path / NAME)
    (group,) = config.instance_group
    assert (group.count, group.Kind.Name(group.kind)) == (2, "KIND_CPU")
    (warmup,) = config.model_warmup
    assert (warmup.batch_size, list(warmup.inputs)) == (1, ["image"])
    assert warmup.inputs["image"].zero_data
    assert list(warmup.inputs["image"].dims) == [64, 96, 3]
    classes = list(typed_bundle.manifest.classes)
    assert json.loads(config.parameters["classes"].string_value) == classes
    assert (tmp_path / NAME / "labels.txt").read_text(encoding="utf-8").splitlines() == classes
    text = (tmp_path / NAME / "README.txt").read_text(encoding="utf-8")
    assert "Not carried over" in text
    assert "label_filename" in text


def test_one_picture_at_a_time_when_asked(typed_bundle, pictures, tools, tmp_path: Path):
    tools.export("triton", typed_bundle.path, "-o", tmp_path, "--batch", 1)
    config = read_config(tmp_path / NAME)
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert type_names(config.input) == [("image", "TYPE_UINT8", [1, 64, 96, 3])]
    assert type_names(config.output) == [("labels", "TYPE_UINT8", [1, 64, 96])]
    assert config.model_warmup[0].batch_size == 1
    assert tools.run(tmp_path / NAME / "1" / "model.onnx", pictures[:1]).shape == (1, 64, 96)


def test_graph_that_fixes_one_picture_inside_is_served_without_batches_and_said_so(
    typed_bundle, pictures, tools, capsys, tmp_path: Path
):
    """Scores reshaped to (C, h·w) and back: nothing that a batch could go through."""
    bundle = tmp_path / "fixed"
    shutil.copytree(typed_bundle.path, bundle)
    model = ir.load(bundle / "model.fp32.onnx")
    proto = ir.to_proto(model)
    shape = [side.dim_value for side in proto.graph.output[0].type.tensor_type.shape.dim]
    last = next(node for node in proto.graph.node if "scores" in node.output)
    last.output[0] = "whole"
    for name, sides in (("flat_shape", [shape[1], -1]), ("full_shape", shape)):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(sides), name))
    proto.graph.node.append(onnx.helper.make_node("Reshape", ["whole", "flat_shape"], ["flat"], name="flat"))
    proto.graph.node.append(onnx.helper.make_node("Reshape", ["flat", "full_shape"], ["scores"], name="scores"))
    onnx.save(proto, bundle / "model.fp32.onnx")
    manifest = Bundle.load(typed_bundle.path).manifest
    files = file_specs(bundle, manifest.files)
    write_manifest(bundle, replace(manifest, files=files))
    tools.export("triton", bundle, "-o", tmp_path / "models")
    assert "the graph takes one picture at a time; ONNX Runtime cannot run it with 8" in capsys.readouterr().out
    config = read_config(tmp_path / "models" / NAME)
    assert config.max_batch_size == 0
    assert sorted(path.name for path in (tmp_path / "models" / NAME / "1").iterdir()) == ["model.onnx"]
    assert tools.run(tmp_path / "models" / NAME / "1" / "model.onnx", pictures[:1]).shape == (1, 64, 96)


def write_engine(bundle: Bundle, folder: Path, **changes: object) -> Path:
    """An engine file that TensorRT never saw, with a sidecar that fits `bundle`: what Triton would be given."""
    engine = folder / "fp16.tensorrt-10.3.0.sm87.engine"
    engine.write_bytes(b"plan")
    graph = {name: spec.sha256 for name, spec in bundle.graph_files(bundle.model("fp16")).items()}
    facts: dict[str, Any] = {
        "engine": engine.name,
        "sha256": sha256_of(engine),
        "bytes": 4,
        "library": "tensorrt",
        "version": "10.3.0",
        "gpu": "Orin",
        "compute_capabilities": ("8.7",),
        "precision": "fp16",
        "route": "strongly typed",
        "layers": None,
        "inspected_by": None,
        "inputs": (TensorSpec("image", "uint8", (1, 64, 96, 3)),),
        "outputs": (TensorSpec("scores", "float16", (1, 5, 8, 12)),),
        "graph": graph,
        "workspace_mb": 256,
        "dla": False,
        "fcnedge": "0",
        "seconds": 1.0,
    }
    sidecar_path(engine).write_text(EngineSidecar(**(facts | changes)).to_json(), encoding="utf-8")
    return engine


def test_engine_is_served_as_a_plan_that_gives_scores(typed_bundle, tools, capsys, tmp_path: Path):
    engine = write_engine(typed_bundle, tmp_path)
    tools.export("triton", typed_bundle.path, "-o", tmp_path / "models", "--engine", engine)
    folder = tmp_path / "models" / NAME
    config = read_config(folder)
    assert (config.backend, config.max_batch_size) == ("tensorrt", 0)
    assert config.instance_group[0].Kind.Name(config.instance_group[0].kind) == "KIND_GPU"
    assert type_names(config.input) == [("image", "TYPE_UINT8", [1, 64, 96, 3])]
    assert type_names(config.output) == [("scores", "TYPE_FP16", [1, 5, 8, 12])]
    assert (folder / "1" / "model.plan").read_bytes() == b"plan"
    assert "The head: the engine gives scores at stride 8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"library": "tensorrt_rtx"}, "an engine of TensorRT-RTX, which Triton has no backend for"),
        ({"graph": {"model.fp16.onnx": "0" * 64}}, "was compiled from another graph"),
        ({"sha256": "0" * 64}, "is not the engine that its sidecar speaks of"),
    ],
)
def test_engine_that_does_not_fit_is_refused(typed_bundle, tools, capsys, changes, words, tmp_path: Path):
    engine = write_engine(typed_bundle, tmp_path, **changes)
    said = tools.refusal(capsys, "triton", typed_bundle.path, "-o", tmp_path / "models", "--engine", engine)
    assert words in said
    assert not (tmp_path / "models").exists()


def test_models_lie_side_by_side_in_a_repository(typed_bundle, tools, capsys, tmp_path: Path):
    (tmp_path / "models" / "other").mkdir(parents=True)
    tools.export("triton", typed_bundle.path, "-o", tmp_path / "models", "--batch", 1)
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == [NAME, "other"]
    said = tools.refusal(capsys, "triton", typed_bundle.path, "-o", tmp_path / "models")
    assert "add --force" in said
    tools.export("triton", typed_bundle.path, "-o", tmp_path / "models", "--batch", 1, "--force")


@pytest.mark.parametrize("text", ['say "hi"', "back\\slash", "línea\nnueva", "tab\t日本"])
def test_strings_survive_protobufs_text_format(text):
    reason = "Triton's protobuf is not installed; pip install 'tritonclient[grpc]'"
    config = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason=reason)
    text_format = pytest.importorskip("google.protobuf.text_format")
    assert text_format.Parse(f"name: {triton._quoted(text)}", config.ModelConfig()).name == text
