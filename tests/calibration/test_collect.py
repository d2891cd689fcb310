"""Ranges of a real graph over real pictures, against onnx's reference evaluator, interrupted and spoilt."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from fcnedge.calibration import collect as collecting
from fcnedge.calibration.activations import ActivationGraph
from fcnedge.calibration.collect import preprocessing_sha256
from fcnedge.calibration.collected import Collected
from fcnedge.calibration.pictures import PictureList, choose_pictures
from fcnedge.calibration.ranges import read_ranges
from fcnedge.runtime import Bundle
from fcnedge.runtime.errors import BackendError, BundleError, UserError

# one thread: the pictures are tiny
collect = functools.partial(collecting.collect, threads=1)
collect_histograms = functools.partial(collecting.collect_histograms, threads=1)

ACTIVATIONS = ("image_float", "image_centred", "stem", "stem_relu", "block_project", "block_add", "scores")


def reference_activations(model: onnx.ModelProto, folder: Path, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """All values of each activation over the folder's pictures, by onnx's evaluator in NumPy."""
    model = onnx.shape_inference.infer_shapes(model)
    known = {value.name: value for value in [*model.graph.value_info, *model.graph.output]}
    del model.graph.output[:]
    model.graph.output.extend(known[name] for name in ACTIVATIONS)
    evaluator = ReferenceEvaluator(model)
    runs = []
    for index in range(12):
        picture = cv2.imread(str(folder / f"photo{index}.png"))
        assert picture is not None
        image = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_LINEAR)
        runs.append(evaluator.run(None, {"image": image[None]}))
    return {name: np.stack([run[index] for run in runs]) for index, name in enumerate(ACTIVATIONS)}


@pytest.fixture
def pictures(photographs: Path) -> PictureList:
    return choose_pictures(photographs)


@pytest.mark.parametrize("external", [False, True], ids=["weights inside", "weights outside"])
@pytest.mark.parametrize("relative", [False, True], ids=["absolute", "relative"])
def test_extremes_are_those_of_a_reference_evaluator(
    make_network, make_bundle, photographs, pictures, tmp_path, monkeypatch, external, relative
):
    folder = make_bundle(tmp_path / "bundle", make_network(), external=external)
    monkeypatch.chdir(tmp_path)
    ranges = collect(Bundle.load(folder.relative_to(tmp_path) if relative else folder), pictures, method="minmax")
    reference = reference_activations(make_network(), photographs, (32, 48))
    assert tuple(ranges.tensors) == ACTIVATIONS, "every float activation, in the graph's order, and no whole numbers"
    for name, values in reference.items():
        got, scale = ranges.tensors[name], float(np.abs(values).max())
        assert (got.minimum, got.maximum) == pytest.approx((values.min(), values.max()), abs=1e-5 * scale)
        assert got.threshold == max(-got.minimum, got.maximum)
    assert (ranges.images, ranges.skipped) == (12, ())


def test_percentile_is_that_of_all_values_of_all_pictures(make_network, small_bundle, photographs, pictures):
    ranges = collect(Bundle.load(small_bundle), pictures, method="percentile", percentile=99)
    for name, values in reference_activations(make_network(), photographs, (32, 48)).items():
        low, high = (np.percentile(np.abs(values), 99, method=side) for side in ("lower", "higher"))
        width = np.abs(values).max() / 8192
        assert low - width <= ranges.tensors[name].threshold <= high + width, name


def test_all_methods_come_from_one_pass(small_bundle, pictures):
    collected = collect_histograms(Bundle.load(small_bundle), pictures)
    by_method = {method: collected.ranges(method) for method in ("minmax", "percentile", "entropy", "mse")}
    assert [each.percentile for each in by_method.values()] == [None, 99.999, None, None]
    for name in ACTIVATIONS:
        peak = by_method["minmax"].tensors[name].threshold
        assert all(0 < each.tensors[name].threshold <= peak for each in by_method.values())
    graph = ActivationGraph(Bundle.load(small_bundle))
    by_method["mse"].check(graph.fingerprint)


def test_letterboxed_bundle_sees_letterboxed_pictures(make_network, make_bundle, tmp_path):
    folder = make_bundle(tmp_path / "bundle", make_network(), fit="letterbox")
    (tmp_path / "white").mkdir()
    cv2.imwrite(str(tmp_path / "white" / "a.png"), np.full((64, 48, 3), 255, np.uint8))
    ranges = collect(Bundle.load(folder), choose_pictures(tmp_path / "white"), method="minmax")
    assert (ranges.tensors["image_float"].minimum, ranges.tensors["image_float"].maximum) == (127, 255)


@pytest.mark.parametrize(
    ("restart", "command"), [(False, "the same command"), (True, "the same command without --restart")]
)
def test_interrupted_pass_ends_bit_equal(small_bundle, pictures, tmp_path, monkeypatch, caplog, restart, command):
    bundle, state = Bundle.load(small_bundle), tmp_path / "state.npz"
    whole = collect_histograms(bundle, pictures)
    seen, read = [], collecting.read_picture

    def interrupted(path: Path) -> np.ndarray:
        seen.append(path.name)
        if len(seen) == 6:
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(collecting, "read_picture", interrupted)
    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
        collect_histograms(bundle, pictures, state=state, restart=restart)
    assert caplog.messages[-1] == f"5 pictures are kept in {state}; {command} goes on from there."
    continued = collect_histograms(bundle, pictures, state=state)
    assert seen[5:] == [path.name for path in pictures.paths[5:]][:1] + [path.name for path in pictures.paths[5:]]
    assert continued.ranges("percentile") == whole.ranges("percentile")
    for name, histogram in whole.histograms.items():
        np.testing.assert_array_equal(histogram.counts, continued.histograms[name].counts)


def test_interruption_between_activations_keeps_whole_pictures_only(small_bundle, pictures, tmp_path, monkeypatch):
    bundle, state = Bundle.load(small_bundle), tmp_path / "state.npz"
    run, calls = ActivationGraph.run, []

    def interrupted(self, image):
        calls.append(1)
        for index, each in enumerate(run(self, image)):
            if len(calls) == 4 and index == 3:
                raise KeyboardInterrupt
            yield each

    monkeypatch.setattr(ActivationGraph, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collect_histograms(bundle, pictures, state=state)
    monkeypatch.undo()
    expected = collect_histograms(bundle, PictureList(pictures.names[:3], pictures.paths[:3], 12, ""))
    kept = Collected.load(state, collect_histograms(bundle, pictures).identity)
    assert kept.visited == 3
    for name, histogram in expected.histograms.items():
        np.testing.assert_array_equal(histogram.counts, kept.histograms[name].counts)


def test_finished_state_needs_no_picture_again(small_bundle, pictures, tmp_path, monkeypatch):
    bundle, state = Bundle.load(small_bundle), tmp_path / "state.npz"
    first = collect(bundle, pictures, method="percentile", state=state)
    monkeypatch.setattr(collecting, "read_picture", lambda path: pytest.fail(f"{path} was read again"))
    assert collect(bundle, pictures, method="percentile", state=state) == first


def test_state_of_something_else_is_refused_by_what_differs(make_network, make_bundle, pictures, tmp_path):
    state = tmp_path / "state.npz"
    bundle = Bundle.load(make_bundle(tmp_path / "one", make_network()))
    collect(bundle, pictures, state=state)
    fewer = PictureList(pictures.names[:5], pictures.paths[:5], 12, "")
    other = Bundle.load(make_bundle(tmp_path / "two", make_network(seed=9)))
    boxed = Bundle.load(make_bundle(tmp_path / "three", make_network(), fit="letterbox"))
    for arguments, words in (
        ((bundle, fewer), "another pictures; delete"),
        ((other, pictures), "another graph; delete"),
        ((boxed, pictures), "another preprocessing; delete"),
        ((other, fewer), "another pictures and graph; delete"),
    ):
        with pytest.raises(UserError, match=rf"state\.npz holds 12 pictures' ranges that belong to {words} it, or add"):
            collect(*arguments, state=state)
    assert collect_histograms(bundle, fewer, state=state, restart=True).visited == 5


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_damaged_state_is_refused(small_bundle, pictures, tmp_path, share):
    state, bundle = tmp_path / "state.npz", Bundle.load(small_bundle)
    collect(bundle, pictures, state=state)
    data = state.read_bytes()
    state.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match="is no collection of ranges that can be continued"):
        collect(bundle, pictures, state=state)


def test_state_with_pickles_is_refused(small_bundle, pictures, tmp_path):
    state = tmp_path / "state.npz"
    np.savez(state, header=np.array([{"a": 1}], object))
    with pytest.raises(UserError, match="is no collection of ranges that can be continued"):
        collect(Bundle.load(small_bundle), pictures, state=state)


def many(pictures: PictureList, count: int, bad: dict[int, Path]) -> PictureList:
    paths = tuple(bad.get(index, pictures.paths[index % 12]) for index in range(count))
    return PictureList(tuple(f"p{index}" for index in range(count)), paths, count, "the list")


def test_unreadable_picture_is_named_skipped_and_counted(small_bundle, pictures, tmp_path, caplog):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 half a picture")
    with caplog.at_level(logging.WARNING):
        ranges = collect(Bundle.load(small_bundle), many(pictures, 100, {41: broken}), method="minmax")
    assert (ranges.images, ranges.skipped) == (99, ("p41",))
    assert caplog.messages == [f"skipped: {broken} is truncated: it lacks JPEG's end-of-image marker; copy it again"]


def test_unreadable_picture_with_an_unprintable_name_spoils_no_pass(small_bundle, pictures, tmp_path, caplog):
    """Names are bytes to Linux: 0xff is no UTF-8, and U+202F is what macOS puts into names of screenshots."""
    broken = tmp_path / "a\udcff\u202f.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 half a picture")
    many_pictures = many(pictures, 100, {7: broken})
    names = (*many_pictures.names[:7], broken.name, *many_pictures.names[8:])
    ranges = collect(Bundle.load(small_bundle), dataclasses.replace(many_pictures, names=names), method="minmax")
    ranges.write(tmp_path / "ranges.json")
    assert read_ranges(tmp_path / "ranges.json") == ranges
    assert ranges.skipped == ("a\\udcff\\u202f.jpg",)


def test_more_than_one_in_a_hundred_is_refused(small_bundle, pictures, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"nothing")
    with pytest.raises(
        UserError, match=r"^2 of 199 pictures cannot be read \(p3, p5\), more than 1%; mend the list or"
    ):
        collect(Bundle.load(small_bundle), many(pictures, 199, {3: broken, 5: broken}))


def test_activation_that_overflows_is_named_with_its_picture(make_network, make_bundle, pictures, tmp_path):
    folder = make_bundle(tmp_path / "bundle", make_network(scale=1e38))
    with pytest.raises(UserError, match=r"the activation 'stem' holds NaN or infinite values on .*photo0\.png; check"):
        collect(Bundle.load(folder), pictures)


def test_activation_that_is_always_zero_has_threshold_zero(make_network, make_bundle, pictures, tmp_path):
    model = make_network()
    for tensor in model.graph.initializer:
        if tensor.name == "scores.w":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros((3, 8, 4, 4), np.float32), "scores.w"))
    ranges = collect(Bundle.load(make_bundle(tmp_path / "bundle", model)), pictures)
    assert ranges.tensors["scores"].threshold == 0
    assert type(ranges).parse(ranges.to_json()) == ranges


def test_bundle_without_fp32_graph_is_refused(small_bundle, pictures):
    text = (small_bundle / "model.json").read_text(encoding="utf-8")
    (small_bundle / "model.json").write_text(
        text.replace('"precision": "fp32"', '"precision": "fp16"'), encoding="utf-8"
    )
    with pytest.raises(BundleError, match="holds no fp32 graph, only fp16"):
        collect(Bundle.load(small_bundle), pictures)


def test_graph_that_onnxruntime_cannot_run_is_refused(make_network, make_bundle, pictures, tmp_path):
    model = make_network()
    model.graph.node[6].op_type = "Mangle"
    with pytest.raises(BackendError, match=r"onnxruntime .* cannot run .*model\.fp32\.onnx: .*Mangle"):
        collect(Bundle.load(make_bundle(tmp_path / "bundle", model)), pictures)


def test_preprocessing_hash_follows_size_fit_and_mean(make_network, make_bundle, tmp_path):
    hashes = {
        preprocessing_sha256(Bundle.load(folder).manifest)
        for folder in (
            make_bundle(tmp_path / "a", make_network()),
            make_bundle(tmp_path / "b", make_network(seed=4)),
            make_bundle(tmp_path / "c", make_network(), fit="letterbox"),
            make_bundle(tmp_path / "d", make_network(size=(64, 48))),
        )
    }
    assert len(hashes) == 3, "the weights are not part of it"


PEAK = """
import sys
from pathlib import Path
from fcnedge.calibration.collect import collect_histograms
from fcnedge.calibration.pictures import PictureList
from fcnedge.runtime import Bundle
from fcnedge.runtime.process_memory import peak_rss_bytes
count, path = int(sys.argv[2]), Path(sys.argv[3])
pictures = PictureList(tuple(f"p{i}" for i in range(count)), (path,) * count, count, "list")
collect_histograms(Bundle.load(sys.argv[1]), pictures, threads=1)
print(peak_rss_bytes())
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_pictures(make_network, make_bundle, photographs, tmp_path):
    """One picture's activations are 4.5 MB here: 38 more that were kept would take 170 MB."""
    folder, peaks = make_bundle(tmp_path / "bundle", make_network(size=(256, 320))), []
    for count in (2, 40):
        words = [sys.executable, "-c", PEAK, folder, str(count), photographs / "photo0.png"]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=dict(os.environ))
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 40_000_000
