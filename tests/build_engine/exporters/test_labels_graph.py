from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from fcnedge.build_engine.exporters.labels_graph import (
    describe,
    end_in_labels,
    end_in_probabilities,
    open_graph,
    save_whole,
)
from fcnedge.runtime import BilinearHead
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.head import HeadGeometry
from fcnedge.runtime.manifest import HeadSpec, InputSpec

CLASSES = 4


@st.composite
def heads(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, int], int, tuple[float, float]]:
    """(grid, size, stride, offset) that a deconvolution with whole, not negative pads gives.

    Pads reach beyond the kernel, as after the pad of 100 of Caffe's FCNs: then grid points are never read.
    """
    stride = draw(st.integers(1, 9))
    grid, size, offset = [], [], []
    for _ in range(2):
        count = 2 * stride - draw(st.integers(0, 1))
        before, after, side = (draw(st.integers(low, high)) for low, high in ((0, 4 * stride), (0, stride), (1, 40)))
        points = max(1, -(-(before + after + side - count) // stride) + 1)
        side = stride * (points - 1) + count - before - after
        grid.append(points)
        size.append(side)
        offset.append(before - (count - 1) / 2 + stride / 2 - 0.5)
    return (grid[0], grid[1]), (size[0], size[1]), stride, (offset[0], offset[1])


def scores_graph(grid: tuple[int, int], dtype: int = TensorProto.FLOAT) -> ir.Model:
    """`image` (1, C, h, w) is handed on as `scores`."""
    shape = [1, CLASSES, *grid]
    taken, given_ = (helper.make_tensor_value_info(name, dtype, shape) for name in ("image", "scores"))
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["scores"])], "grid", [taken], [given_])
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def manifest_of(size: tuple[int, int], head: HeadSpec) -> SimpleNamespace:
    return SimpleNamespace(
        name="grid", head=head, input=InputSpec(*size), classes=tuple(f"class {index}" for index in range(CLASSES))
    )


def run_model(model: ir.Model, values: np.ndarray) -> np.ndarray:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": values})[0]


@settings(max_examples=60)
@given(heads(), st.integers(0, 2**32 - 1))
def test_labels_are_those_of_the_runtimes_head_whatever_its_geometry(tools, geometry, seed):
    grid, size, stride, offset = geometry
    scores = np.random.default_rng(seed).normal(size=(1, CLASSES, *grid)).astype(np.float32)
    model = scores_graph(grid)
    end_in_labels(model, manifest_of(size, HeadSpec("bilinear", stride, 2 * stride, offset)))
    labels = run_model(model, scores)
    assert (labels.dtype, labels.shape) == (np.uint8, (1, *size))
    full = tools.upsampled(scores[0], size, stride, offset)
    clear = tools.clear(full)
    assert np.array_equal(labels[0][clear], full.argmax(axis=0)[clear])
    mask = BilinearHead(HeadGeometry(stride, offset)).labels(scores, size, size)
    assert np.array_equal(labels[0][clear], mask[clear])


@pytest.mark.parametrize("stride", [2, 8, 16, 32])
def test_ties_go_to_the_lowest_class_as_in_the_runtime(stride):
    grid, size = (3, 2), (3 * stride, 2 * stride)
    scores = np.random.default_rng(0).integers(0, 2, (1, CLASSES, *grid)).astype(np.float32)
    model = scores_graph(grid)
    end_in_labels(model, manifest_of(size, HeadSpec("bilinear", stride, 2 * stride)))
    mask = BilinearHead(HeadGeometry(stride)).labels(scores, size)
    assert np.array_equal(run_model(model, scores)[0], mask)


def test_half_precision_scores_are_interpolated_in_single(tools):
    scores = np.random.default_rng(0).normal(size=(1, CLASSES, 3, 4)).astype(np.float16)
    model = scores_graph((3, 4), TensorProto.FLOAT16)
    end_in_labels(model, manifest_of((24, 32), HeadSpec("bilinear", 8, 16)))
    assert np.array_equal(run_model(model, scores)[0], BilinearHead(HeadGeometry(8)).labels(scores, (24, 32)))


def test_probabilities_sum_to_one_and_have_the_same_winner(tools):
    scores = np.random.default_rng(0).normal(0, 5, (1, CLASSES, 3, 4)).astype(np.float32)
    model = scores_graph((3, 4))
    end_in_probabilities(model, manifest_of((24, 32), HeadSpec("bilinear", 8, 16)))
    got = run_model(model, scores)
    assert got.shape == (1, CLASSES, 24, 32)
    np.testing.assert_allclose(got.sum(axis=1), 1, rtol=1e-6)
    full = tools.upsampled(scores[0], (24, 32), 8, (0, 0))
    clear = tools.clear(full)
    assert np.array_equal(got[0].argmax(axis=0)[clear], full.argmax(axis=0)[clear])


@pytest.mark.parametrize("end", [end_in_labels, end_in_probabilities])
def test_networks_own_names_are_not_the_heads(end):
    """A layer `labels`, weights `head.kernel`, and the name that would be given instead, taken too."""
    names = ("labels", "labels.network", "probabilities")
    shape = [1, CLASSES, 2, 3]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", names[-1])]
    weights = np.random.default_rng(0).standard_normal((CLASSES, CLASSES, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "head.kernel"], [names[0]], name="head.winner"),
        helper.make_node("Relu", [names[0]], [names[1]], name="head.upsampled"),
        helper.make_node("Neg", [names[1]], [names[2]], name="labels"),
    ]
    kernel = helper.make_tensor("head.kernel", TensorProto.FLOAT, weights.shape, weights.ravel())
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], [kernel])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    manifest = manifest_of((8, 12), HeadSpec("bilinear", 4, 8))
    image = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    scores = run_model(ir.from_proto(proto), image)
    model = ir.from_proto(proto)
    end(model, manifest)
    result = run_model(model, image)
    assert model.graph.outputs[0].name == ("labels" if end is end_in_labels else "probabilities")
    labels = result if end is end_in_labels else result.argmax(1)
    head = BilinearHead(HeadGeometry(4))
    assert np.array_equal(labels[0], head.labels(scores, (8, 12)))


@pytest.mark.parametrize(
    ("size", "offset", "words"),
    [((32, 32), (0.3, 0.0), "offset is 0.3 pixels"), ((80, 32), (0.0, 0.0), "reads beyond its grid of 4x4 scores")],
)
def test_head_that_no_deconvolution_expresses_is_refused(size, offset, words):
    with pytest.raises(UserError, match=words):
        end_in_labels(scores_graph((4, 4)), manifest_of(size, HeadSpec("bilinear", 8, 16, offset)))


def test_metadata_says_what_model_json_says(typed_bundle, tmp_path: Path):
    model = open_graph(typed_bundle, "fp32")
    end_in_labels(model, typed_bundle.manifest)
    describe(model, replace(typed_bundle.manifest, name="näme"), "fp32")
    (path,) = save_whole(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map
    assert told["name"] == "näme"
    assert told["classes"] == '["' + '", "'.join(typed_bundle.manifest.classes) + '"]'
    assert told["trained_channel_order"] == typed_bundle.manifest.preprocessing.channel_order


def test_weights_past_the_limit_of_an_onnx_file_lie_beside_it(typed_bundle, pictures, tools, tmp_path: Path):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    labels = []
    for folder, options in ((whole, {}), (parted, {"limit": 1000})):
        folder.mkdir()
        model = open_graph(typed_bundle, "fp32")
        end_in_labels(model, typed_bundle.manifest)
        written = save_whole(model, folder / "model.onnx", **options)
        assert sorted(written) == sorted(folder.iterdir())
        labels.append(tools.run(folder / "model.onnx", pictures[:1]))
    assert [path.name for path in sorted(parted.iterdir())] == ["model.onnx", "model.onnx.data"]
    assert [path.name for path in whole.iterdir()] == ["model.onnx"]
    assert np.array_equal(*labels)
