"""FP16 and INT8 beside FP32: which graphs appear, what is said about them, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fcnedge.build_engine import typed_plan
from fcnedge.build_engine.build import BuildReport, build_bundle
from fcnedge.build_engine.model_source import resolve_source
from fcnedge.build_engine.precision import QuantisedLayer, place
from fcnedge.build_engine.precision.variant import FORMS
from fcnedge.build_engine.typed_plan import PrecisionPlan, plan_precisions
from fcnedge.build_engine.typed_stage import RangesUsed
from fcnedge.calibration.activations import load_graph
from fcnedge.calibration.ranges import Ranges, TensorRange, read_ranges
from fcnedge.calibration.tensorrt_cache import read_cache
from fcnedge.runtime import Bundle, Segmenter, open_source
from fcnedge.runtime.backends import onnxruntime, openvino
from fcnedge.runtime.command import jsonable
from fcnedge.runtime.errors import UserError

INT8_TITLES = [form.title for form in FORMS["int8"]]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def plan(*words: str, **options: Any) -> PrecisionPlan:
    return plan_precisions(resolve_source("fcn8s-lite0", classes="5", size=(64, 96)), *words, **options)


def clipped(ranges: Ranges, layers: Collection[str], factor: float) -> Ranges:
    """`ranges` whose clipping limits of `layers` are `factor` times too small."""
    wrong = {
        name: dataclasses.replace(each, threshold=each.threshold / factor) if name in layers else each
        for name, each in ranges.tensors.items()
    }
    return dataclasses.replace(ranges, tensors=wrong)


def int8_layers(bundle: Path) -> tuple[QuantisedLayer, ...]:
    """What INT8 takes of the FP32 graph unless told otherwise."""
    return place(load_graph(bundle / "model.fp32.onnx")).layers


@pytest.fixture
def build(lite0_build, lite0_ranges, tmp_path, replay) -> Callable[..., BuildReport]:
    """Build `lite0_build` again into tmp_path / "model", with other options; its own ranges unless others are given."""

    def again(precision: str, ranges: Ranges | None = lite0_ranges, **options: Any) -> BuildReport:
        if ranges is not None:
            ranges.write(tmp_path / "given.json")
            options["ranges"] = tmp_path / "given.json"
        planned = plan(precision, **options)
        (tmp_path / "given.json").unlink(missing_ok=True)
        return build_bundle(lite0_build.source, tmp_path / "model", verify=lite0_build.pictures, plan=planned)

    return again


def test_bundle_holds_the_graphs_that_were_asked_for(build, lite0_ranges, lite0_bundle, tmp_path):
    report = build("int8,fp16")
    output = tmp_path / "model"
    typed = {"model.fp16.onnx": ("fp16", None), **{form.file: ("int8", form.target) for form in FORMS["int8"]}}
    others = ["calibration.cache", "model.fp32.onnx", "ranges.json", "report.json"]
    assert names_in(output) == sorted([*typed, *others, "model.json"])
    manifest = Bundle.load(output).manifest  # sizes and hashes agree
    assert manifest.precisions == ("fp32", "fp16", "int8")
    assert {name: (spec.precision, spec.target) for name, spec in manifest.files.items()} == {
        **typed,
        **dict.fromkeys(others, (None, None)),
        "model.fp32.onnx": ("fp32", None),
    }
    assert (output / "model.fp32.onnx").read_bytes() == (lite0_bundle / "model.fp32.onnx").read_bytes()
    for name, (precision, target) in typed.items():
        model = onnx.load(str(output / name))
        onnx.checker.check_model(model, full_check=True)
        half = precision == "fp16" or target == "tensorrt"
        kinds = onnx.TensorProto
        assert model.graph.output[0].type.tensor_type.elem_type == (kinds.FLOAT16 if half else kinds.FLOAT)
        quantised = sum(node.op_type == "QuantizeLinear" for node in model.graph.node)
        assert (quantised > 0) is (precision == "int8")
    assert read_ranges(output / "ranges.json") == lite0_ranges
    steps = read_cache((output / "calibration.cache").read_text(encoding="utf-8"), 8502).steps
    assert steps == {name: np.float32(each.threshold / 127) for name, each in lite0_ranges.tensors.items()}
    written = json.loads((output / "report.json").read_text(encoding="utf-8"))
    assert written["precisions"] == jsonable(report.precisions)
    assert list(written["precisions"]) == ["fp16", *INT8_TITLES]
    for each in written["precisions"].values():
        assert each["bytes"] == (output / each["file"]).stat().st_size
        assert each["share_of_fp32"] == each["bytes"] / written["fp32_bytes"]
    assert written["fp32_bytes"] == (output / "model.fp32.onnx").stat().st_size
    assert written["ranges"] == {"origin": str(tmp_path / "given.json"), "method": "minmax", "images": 2}
    assert written["accuracy"] is None
    assert written["precisions"]["int8"]["int8_layers"] == [layer.node for layer in int8_layers(lite0_bundle)]


def test_most_exact_graph_runs_by_default(build, tmp_path):
    build("fp16")
    with Segmenter(tmp_path / "model", "onnxruntime") as segmenter:
        assert segmenter.backend.precision == "fp32"


def test_fp16_alone_takes_ranges_from_the_verify_pictures_and_says_so(build, lite0_ranges, tmp_path):
    given, collected = build("fp16").precisions, None
    shutil.rmtree(tmp_path / "model")
    report = build("fp16", None)
    collected = report.precisions
    assert report.ranges == RangesUsed("collected on the verify pictures", "minmax", 2)
    assert collected == given, "the ranges given are minmax of the same pictures"
    assert names_in(tmp_path / "model") == ["model.fp16.onnx", "model.fp32.onnx", "model.json", "report.json"]


def test_excluded_layers_stay_in_float(build, lite0_bundle):
    first, *others = (layer.node for layer in int8_layers(lite0_bundle))
    report = build("int8", exclude=f"{first}").precisions["int8"]
    assert report.int8_layers == tuple(others)
    assert {layer.node: layer.reason for layer in report.float_layers}[first] == "excluded by name."


def test_cache_leaves_out_what_was_zero_on_all_pictures(build, lite0_ranges, lite0_bundle, tmp_path):
    read = {layer.tensor for layer in int8_layers(lite0_bundle)}
    unread = next(name for name in lite0_ranges.tensors if name not in read and name.endswith("depthwise"))
    tensors = lite0_ranges.tensors | {unread: TensorRange(0, 0, 0)}
    build("int8", dataclasses.replace(lite0_ranges, tensors=tensors))
    steps = read_cache((tmp_path / "model" / "calibration.cache").read_text(encoding="utf-8")).steps
    assert set(steps) == set(lite0_ranges.tensors) - {unread}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda ranges: _other_weights(ranges), "these ranges were collected on another graph: 1 of its "),
        (
            lambda ranges: dataclasses.replace(ranges, preprocessing_sha256="0" * 64),
            "these ranges were collected with another input size, fit, mean, scale or channel order",
        ),
        (
            lambda ranges: dataclasses.replace(ranges, tensors=dict(list(ranges.tensors.items())[:-1])),
            "the ranges have no tensor ",
        ),
        (lambda ranges: clipped(ranges, set(ranges.tensors), 50), "the int8 graph disagrees with fp32, so no bundle"),
    ],
    ids=["weights", "preprocessing", "tensor_missing", "wrong"],
)
def test_ranges_that_are_not_this_models_are_refused_and_leave_nothing(
    build, lite0_ranges, tmp_path, change, complaint
):
    with pytest.raises(UserError, match=re.escape(complaint)):
        build("fp32,int8", change(lite0_ranges))
    assert names_in(tmp_path) == []


def _other_weights(ranges: Ranges) -> Ranges:
    name, weight = next(iter(ranges.graph.weights.items()))
    other = ranges.graph.weights | {name: dataclasses.replace(weight, magnitude=1.1 * weight.magnitude)}
    return dataclasses.replace(ranges, graph=dataclasses.replace(ranges.graph, weights=other))


def test_shipped_ranges_of_another_size_still_leave_fp16_its_own(
    build, lite0_ranges, lite0_build, tmp_path, monkeypatch
):
    other = dataclasses.replace(lite0_ranges, preprocessing_sha256="0" * 64)
    other.write(tmp_path / "weights" / "fcn8s-lite0.ranges.json")
    monkeypatch.setattr(typed_plan, "WEIGHTS_FOLDER", tmp_path / "weights")
    monkeypatch.setattr(typed_plan, "shipped_models", lambda: ("fcn8s-lite0",))
    assert build("fp16", None).ranges == RangesUsed("collected on the verify pictures", "minmax", 2)
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(
        UserError, match=r"ranges \(shipped with fcn8s-lite0\): these ranges were collected with another"
    ):
        build("int8", None)
    lite0_ranges.write(tmp_path / "weights" / "fcn8s-lite0.ranges.json")
    assert build("int8", None).ranges == RangesUsed("shipped with fcn8s-lite0", "minmax", 2)


# --- mIoU, and its limit


def test_miou_of_every_precision_is_in_the_report(build, lite0_voc, tmp_path):
    accuracy = build("fp16,int8", data=lite0_voc, max_drop=100).accuracy
    assert (accuracy.split, accuracy.pictures, accuracy.max_drop, accuracy.exceptions) == ("val", 3, 100, ())
    assert accuracy.miou["fp32"] == 1.0, "the masks are its own"
    assert accuracy.miou["fp16"] > accuracy.miou["int8"] > 0.5
    assert accuracy.drop_points == {name: 100 * (1 - accuracy.miou[name]) for name in ("fp16", *INT8_TITLES)}


def test_miou_may_be_that_of_a_subset(build, lite0_voc):
    every = build("fp16", data=lite0_voc)
    shutil.rmtree(every.output)
    names = resolve_source("fcn8s-lite0", classes="5").classes
    part = build("fp16", data=lite0_voc, subset=f"{names[1]}, {names[3]}")
    assert part.accuracy.subset == (names[1], names[3])
    assert part.accuracy.miou["fp16"] != every.accuracy.miou["fp16"]


def test_fp32_alone_can_be_measured(build, lite0_voc):
    accuracy = build("fp32", None, data=lite0_voc).accuracy
    assert (accuracy.miou, accuracy.drop_points) == ({"fp32": 1.0}, {})


def test_fp16_that_loses_more_than_the_limit_is_refused(build, lite0_voc, tmp_path):
    with pytest.raises(UserError, match=r"^fp16 loses \d+\.\d\d points of mIoU on val, the limit is 0, so no "):
        build("fp16", data=lite0_voc, max_drop=0)
    assert names_in(tmp_path) == []


def three_layers(bundle: Path) -> tuple[list[QuantisedLayer], str]:
    """First, middle and last of the INT8 layers, and all others as --exclude takes them."""
    layers = int8_layers(bundle)
    chosen = [layers[0], layers[len(layers) // 2], layers[-1]]
    return chosen, ",".join(layer.node for layer in layers if layer not in chosen)


def test_one_spoilt_layer_is_left_in_float_to_hold_the_limit(build, lite0_ranges, lite0_bundle, lite0_voc, tmp_path):
    layers, others = three_layers(lite0_bundle)
    wrong = clipped(lite0_ranges, {layers[1].tensor}, 50)
    report = build("int8", wrong, data=lite0_voc, max_drop=15, exclude=others)
    assert report.accuracy.exceptions == (layers[1].node,)
    assert report.precisions["int8"].int8_layers == (layers[0].node, layers[2].node)
    assert 0 <= report.accuracy.drop_points["int8"] <= 15
    assert Bundle.load(tmp_path / "model").manifest.precisions == ("fp32", "int8")


def test_limit_that_needs_most_layers_in_float_is_refused(build, lite0_ranges, lite0_bundle, lite0_voc, tmp_path):
    layers, others = three_layers(lite0_bundle)
    wrong = clipped(lite0_ranges, {layers[1].tensor, layers[2].tensor}, 50)
    sentence = (
        r"int8.* loses \d+\.\d\d points of mIoU on val, and to hold the limit of 15 it would need more than 1 of 3 "
        rf"convolutions in float, worst first ({layers[1].node}|{layers[2].node}), so no bundle"
    )
    with pytest.raises(UserError, match=sentence):
        build("int8", wrong, data=lite0_voc, max_drop=15, exclude=others)
    assert names_in(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("target", [None, "vnni"])
def test_int8_gives_the_same_labels_in_onnxruntime_and_openvino(shipped_bundle, target, monkeypatch):
    """Both as they come, without a word about how to run the graph."""
    for backend in (onnxruntime, openvino):
        monkeypatch.setattr(backend, "cpu_target", lambda: target)
    frames = [frame.image for frame in open_source("demo://")]
    masks = {}
    for backend in ("onnxruntime", "openvino"):
        with Segmenter(shipped_bundle, backend, "int8") as segmenter:
            masks[backend] = np.concatenate([segmenter(frame).ravel() for frame in frames])
    assert len(np.unique(masks["onnxruntime"])) > 3, "one class everywhere proves little"
    assert np.mean(masks["onnxruntime"] == masks["openvino"]) >= 0.99
