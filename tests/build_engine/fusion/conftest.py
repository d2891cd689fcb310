"""Real exports and small hand-made graphs for the fusion rules, run by ONNX Runtime with every optimisation off."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper

from fcnedge.build_engine.models.names import ARCHITECTURES

SIZE = (64, 96)
EXPORTED = tuple(name for name in ARCHITECTURES if not name.endswith(("lite1", "lite2")))
"""Architectures whose exports are fused here: the wider and deeper trunks are lite0's layers with other numbers."""
CLASSES = 5


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ir.Model]:
    """name of an architecture → a fresh copy of its raw export at 64x96 with 5 classes and random weights."""
    folder = tmp_path_factory.mktemp("exports")

    @functools.cache
    def path_of(name: str) -> Path:
        import keras

        from fcnedge.build_engine.export import export_onnx, save_onnx
        from fcnedge.build_engine.models import Architecture, build_model

        keras.utils.clear_session()
        architecture = Architecture.parse(name)
        model = build_model(architecture, classes=CLASSES, size=SIZE, fc_channels=8)
        randomise(model)
        centre_scores(model, architecture.preprocessing.apply(noise()))
        save_onnx(export_onnx(model, architecture.preprocessing, SIZE), folder / f"{name}.onnx")
        return folder / f"{name}.onnx"

    return lambda name: ir.load(path_of(name))


def randomise(model) -> None:
    """Random kernels that keep the scale of their input, biases and batch-norm statistics; bilinear deconvolutions."""
    rng = np.random.default_rng(7)
    for variable in model.weights:
        layer, kind = variable.path.split("/")
        if layer.startswith(("score2", "score4", "upsample")) and kind == "kernel":
            continue
        shape = tuple(variable.shape)
        if kind == "kernel" and "depthwise" not in layer:
            values = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
        elif kind == "kernel":
            values = rng.normal(0, np.sqrt(2 / np.prod(shape[:2])), shape)
        elif kind in ("gamma", "moving_variance"):
            values = rng.uniform(0.5, 1.5, shape)
        else:
            values = rng.normal(0, 0.3, shape)
        variable.assign(values.astype(np.float32))


def centre_scores(model, pixels: np.ndarray) -> None:
    """Take each class's mean score on `pixels` off its bias, so that no class wins everywhere."""
    import keras

    names = [layer.name for layer in model.layers if layer.name in ("score_fr", "score_pool4", "score_pool3")]
    answers = keras.Model(model.input, {name: model.get_layer(name).output for name in names})(pixels)
    for name in names:
        bias = model.get_layer(name).bias
        bias.assign(bias - np.mean(answers[name], axis=(0, 1, 2)))


def noise() -> np.ndarray:
    """(1, 64, 96, 3) uint8: no two pixels are alike."""
    return np.random.default_rng(1).integers(0, 256, (1, *SIZE, 3), np.uint8)


@pytest.fixture(scope="session")
def image() -> np.ndarray:
    return noise()


@pytest.fixture(scope="session")
def infer() -> Callable[..., np.ndarray]:
    """(model, *inputs) → its first output, by ONNX Runtime exactly as the graph is written; checks the graph."""

    def run(model: ir.Model, *inputs: np.ndarray) -> np.ndarray:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        proto = ir.to_proto(model)
        onnx.checker.check_model(proto, full_check=True)
        session = ort.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
        return session.run(None, {given.name: a for given, a in zip(session.get_inputs(), inputs, strict=True)})[0]

    return run


@pytest.fixture(scope="session")
def graph() -> Callable[..., ir.Model]:
    """Build and check a small model from onnx.helper nodes."""

    def build(
        nodes: Sequence[onnx.NodeProto],
        inputs: dict[str, np.ndarray | tuple],
        outputs: Sequence[str],
        constants: dict[str, np.ndarray] | None = None,
        *,
        shapes_known: bool = True,
        opset: int = 17,
    ) -> ir.Model:
        """inputs: name → an example array, or (numpy dtype, shape) with strings for unknown sides."""
        specs = {name: (x.dtype, x.shape) if isinstance(x, np.ndarray) else x for name, x in inputs.items()}
        given = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
            for name, (dtype, shape) in specs.items()
        ]
        results = [onnx.ValueInfoProto(name=name) for name in outputs]
        tensors = [onnx.numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
        proto = helper.make_model(
            helper.make_graph(nodes, "small", given, results, tensors),
            opset_imports=[helper.make_opsetid("", opset)],
            ir_version=8,
        )
        inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
        for info, known in zip(proto.graph.output, inferred.graph.output, strict=True):
            info.CopyFrom(known)
        onnx.checker.check_model(proto, full_check=True)
        return ir.from_proto(inferred if shapes_known else proto)

    return build
