"""A small bundle written by hand with onnx.helper, with a stem, a ReLU6, a residual sum and scores, all float."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fcnedge.runtime.manifest import FileSpec, HeadSpec, InputSpec, Manifest
from fcnedge.runtime.preprocessing import Preprocessing

SIZE = (32, 48)
MEAN_BGR = (104.0, 117.0, 123.0)
ACTIVATIONS = ("image_float", "image_centred", "stem", "stem_relu", "block_project", "block_add", "scores")


def network(seed: int = 0, size: tuple[int, int] = SIZE, scale: float = 0.02) -> onnx.ModelProto:
    """Transpose → Cast → Sub → Conv /2 → Clip(0, 6) → Conv → Add → Conv /4, random weights, 3 classes, no shapes."""
    random = np.random.default_rng(seed)
    arrays = {
        "mean": np.array(MEAN_BGR, np.float32).reshape(1, 3, 1, 1),
        "stem.w": random.normal(0, scale, (8, 3, 3, 3)),
        "stem.b": random.normal(0, 0.1, 8),
        "low": np.array(0),
        "high": np.array(6),
        "project.w": random.normal(0, 0.3, (8, 8, 3, 3)),
        "scores.w": random.normal(0, 0.3, (3, 8, 4, 4)),
    }
    nodes = [
        helper.make_node("Transpose", ["image"], ["image_planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["image_planes"], ["image_float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["image_float", "mean"], ["image_centred"]),
        helper.make_node("Conv", ["image_centred", "stem.w", "stem.b"], ["stem"], strides=[2, 2], pads=[0, 0, 1, 1]),
        helper.make_node("Clip", ["stem", "low", "high"], ["stem_relu"]),
        helper.make_node("Conv", ["stem_relu", "project.w"], ["block_project"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["block_project", "stem_relu"], ["block_add"]),
        helper.make_node("Conv", ["block_add", "scores.w"], ["scores"], strides=[4, 4]),
    ]
    constants = [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in arrays.items()]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, *size, 3])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3, size[0] // 8, size[1] // 8])
    graph = helper.make_graph(nodes, "small", [image], [scores], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_bundle(folder: Path, model: onnx.ModelProto, *, external: bool = False, fit: str = "stretch") -> Path:
    """Write `model` as a bundle; external: its weights in model.fp32.onnx.data."""
    folder.mkdir(parents=True)
    location = "model.fp32.onnx.data"
    onnx.save(
        model, str(folder / "model.fp32.onnx"), save_as_external_data=external, location=location, size_threshold=0
    )
    (height, width) = (side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim[1:3])
    contents = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    manifest = Manifest(
        name="small",
        arch="three convolutions",
        classes=("background", "aeroplane", "bicycle"),
        palette=((0, 0, 0), (128, 0, 0), (0, 128, 0)),
        input=InputSpec(height, width, fit),
        preprocessing=Preprocessing("bgr", MEAN_BGR, (1.0, 1.0, 1.0)),
        head=HeadSpec("bilinear", 8, 16),
        files={name: FileSpec(hashlib.sha256(data).hexdigest(), len(data), "fp32") for name, data in contents.items()},
        versions={"onnx": onnx.__version__},
    )
    (folder / "model.json").write_text(manifest.to_json(), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def make_network() -> Callable[..., onnx.ModelProto]:
    """Give `network`: (seed, size, scale) → onnx.ModelProto."""
    return network


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Path]:
    """Give `write_bundle`: (folder, model, external, fit) → folder."""
    return write_bundle


@pytest.fixture
def small_bundle(tmp_path: Path) -> Path:
    """Give a bundle folder: 32x48 pixels, three classes, random weights."""
    return write_bundle(tmp_path / "small", network())


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Give a folder of 12 pictures of soft blobs, of various sizes."""
    folder, random = tmp_path / "photographs", np.random.default_rng(4)
    folder.mkdir()
    for index in range(12):
        size = (60 + 4 * index, 90 - 3 * index)
        picture = cv2.resize(random.integers(0, 256, (5, 7, 3), np.uint8), size)
        assert cv2.imwrite(str(folder / f"photo{index}.png"), picture)
    return folder
