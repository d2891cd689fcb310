"""Small bundles written by hand, with onnx.helper and hashlib: nothing of what is under test writes them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fcnedge.runtime.manifest import FileSpec, HeadSpec, InputSpec, Manifest
from fcnedge.runtime.palette import voc_palette
from fcnedge.runtime.preprocessing import Preprocessing

COLOURS = ("black", "blue", "green", "cyan", "red", "magenta", "yellow", "white")
"""The eight classes: blue + 2·green + 4·red, which is FakeBackend's rule too."""


class WriteBundle(Protocol):
    """Writes a bundle folder; `files` adds to it, or replaces its graph under that graph's name."""

    def __call__(
        self,
        folder: Path,
        *,
        size: tuple[int, int] = (32, 48),
        stride: int = 8,
        fit: str = "stretch",
        head: str = "bilinear",
        graph: str | None = "model.fp32.onnx",
        precision: str | None = "fp32",
        files: dict[str, bytes] | None = None,
    ) -> Path: ...


@pytest.fixture
def forbidden_folder(tmp_path: Path) -> Iterator[Path]:
    """Give a folder of which this process may not even ask what lies in it; root becomes `nobody` for the test."""
    if not hasattr(os, "geteuid"):
        pytest.skip("permissions are Unix's")
    folder = tmp_path / "forbidden"
    folder.mkdir(mode=0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)


@pytest.fixture(scope="session")
def write_bundle() -> WriteBundle:
    return _write_bundle


@pytest.fixture
def tiny_bundle(tmp_path: Path) -> Path:
    """Give a bundle folder: 32x48 pixels, stride 8, eight colours as classes, scores by one convolution."""
    return _write_bundle(tmp_path / "tiny")


@pytest.fixture(scope="session")
def colour_graph() -> object:
    """Give the function that makes the graph: (size, stride, head) → onnx.ModelProto."""
    return _colour_graph


def _write_bundle(
    folder: Path,
    *,
    size: tuple[int, int] = (32, 48),
    stride: int = 8,
    fit: str = "stretch",
    head: str = "bilinear",
    graph: str | None = "model.fp32.onnx",
    precision: str | None = "fp32",
    files: dict[str, bytes] | None = None,
) -> Path:
    contents: dict[str, bytes] = {"report.json": b"{}\n"}
    if graph is not None:
        contents[graph] = _colour_graph(size, stride, head).SerializeToString()
    contents |= files or {}
    for name, data in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    palette = voc_palette(len(COLOURS)).tolist()
    manifest = Manifest(
        name="tiny",
        arch="one convolution",
        classes=COLOURS,
        palette=tuple((red, green, blue) for red, green, blue in palette),
        input=InputSpec(*size, fit),
        preprocessing=Preprocessing("bgr", (127.5, 127.5, 127.5), (1.0, 1.0, 1.0)),
        head=HeadSpec(head, stride, 2 * stride) if head == "bilinear" else HeadSpec(head),
        files={
            name: FileSpec(hashlib.sha256(data).hexdigest(), len(data), precision if name == graph else None)
            for name, data in contents.items()
        },
        versions={"fcnedge": "0", "onnx": onnx.__version__},
    )
    (folder / "model.json").write_text(manifest.to_json(), encoding="utf-8")
    return folder


def _colour_graph(size: tuple[int, int], stride: int, head: str) -> onnx.ModelProto:
    """Transpose → Cast → Conv: the score of a class is Σ ±(mean of the cell's channel - 127.5), + for its channels.

    A "labels" head looks at each pixel instead of at cells, and ends in ArgMax.
    """
    cell = stride if head == "bilinear" else 1
    signs = np.array([[1 if colour >> bit & 1 else -1 for bit in range(3)] for colour in range(8)], np.float32)
    weight = np.broadcast_to(signs[:, :, None, None] / cell**2, (8, 3, cell, cell))
    constants = [numpy_helper.from_array(np.ascontiguousarray(weight), "weight")]
    constants.append(numpy_helper.from_array((-127.5 * signs.sum(axis=1)).astype(np.float32), "bias"))
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["pixels", "weight", "bias"], ["scores"], strides=[cell, cell]),
    ]
    output = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 8, size[0] // cell, size[1] // cell])
    if head == "labels":
        nodes.append(helper.make_node("ArgMax", ["scores"], ["winner"], axis=1, keepdims=0))
        nodes.append(helper.make_node("Cast", ["winner"], ["labels"], to=TensorProto.UINT8))
        output = helper.make_tensor_value_info("labels", TensorProto.UINT8, [1, *size])
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, *size, 3])
    graph = helper.make_graph(nodes, "tiny", [image], [output], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
