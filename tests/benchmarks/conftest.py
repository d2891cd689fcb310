"""A bundle that reads colours, so that the right answer of every pixel is known."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fcnedge.runtime.manifest import FileSpec, HeadSpec, InputSpec, Manifest
from fcnedge.runtime.preprocessing import Preprocessing

CLASSES = ("background", "aeroplane", "bicycle", "bird")
SIZE = (96, 96)


@pytest.fixture(scope="session")
def colour_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a bundle that tells `voc_folder`'s colours apart: red is 1, blue is 2, anything dark is 0, nothing is 3.

    Its fp32 graph does; its fp16 graph sees no blue.
    """
    folder = tmp_path_factory.mktemp("bundle")
    # labels = argmax of (100, red - green, blue - green, 0); pictures are BGR
    weight = np.array([[0, 0, 0], [0, -1, 1], [1, -1, 0], [0, 0, 0]], np.float32).reshape(4, 3, 1, 1)
    constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.float32([100, 0, 0, 0]), "b")]
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["pixels", "w", "b"], ["full"]),
        helper.make_node("ArgMax", ["full"], ["winner"], axis=1, keepdims=0),
        helper.make_node("Cast", ["winner"], ["labels"], to=TensorProto.UINT8),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, *SIZE, 3])
    labels = helper.make_tensor_value_info("labels", TensorProto.UINT8, [1, *SIZE])
    graph = helper.make_graph(nodes, "colours", [image], [labels], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.fp32.onnx").write_bytes(model.SerializeToString())
    # in "fp16" no blue is blue enough to be a bicycle; the weights lie in a file of their own
    constants[0].CopyFrom(numpy_helper.from_array(weight * np.float32([1, 1, 0, 1]).reshape(4, 1, 1, 1), "w"))
    model.graph.initializer[0].CopyFrom(constants[0])
    onnx.save(
        model,
        folder / "model.fp16.onnx",
        save_as_external_data=True,
        location="model.fp16.data",
        size_threshold=0,
        all_tensors_to_one_file=True,
    )
    files = {
        path.name: FileSpec(hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size, precision)
        for path in sorted(folder.iterdir())
        for precision in [path.name.split(".")[1]]
    }
    manifest = Manifest(
        name="colours",
        arch="one convolution",
        classes=CLASSES,
        palette=((0, 0, 0),) * 4,
        input=InputSpec(*SIZE, "letterbox"),
        preprocessing=Preprocessing("bgr", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        head=HeadSpec("labels"),
        files=files,
        versions={"onnx": onnx.__version__},
    )
    (folder / "model.json").write_text(manifest.to_json(), encoding="utf-8")
    return folder
