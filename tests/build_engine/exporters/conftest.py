"""A bundle of every graph that there is, small enough to export often, and the scores that decide its labels."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest

from fcnedge.build_engine import cli
from fcnedge.build_engine.bundle_writer import file_specs, write_manifest
from fcnedge.build_engine.export import save_onnx
from fcnedge.build_engine.precision import place, to_fp16, to_int8
from fcnedge.build_engine.precision.variant import FORMS
from fcnedge.calibration.activations import load_graph
from fcnedge.calibration.ranges import Ranges
from fcnedge.calibration.tensorrt_cache import write_cache
from fcnedge.runtime import Bundle
from fcnedge.runtime.manifest import HeadSpec


@pytest.fixture(scope="session")
def typed_bundle(lite0_bundle: Path, lite0_ranges: Ranges, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Give lite0_bundle (96x64, 5 classes) with FP16, all three graphs of INT8 and a calibration cache beside FP32."""
    folder = tmp_path_factory.mktemp("typed") / "all"
    shutil.copytree(lite0_bundle, folder)
    bundle = Bundle.load(folder)
    names = list(bundle.manifest.files)
    for form in (*FORMS["fp16"], *FORMS["int8"]):
        model = load_graph(bundle.model("fp32"))
        if form.precision == "fp16":
            to_fp16(model, ranges=lite0_ranges.tensors)
        else:
            placement = place(model, depthwise=form.depthwise)
            to_int8(model, lite0_ranges.tensors, placement, elsewhere=form.elsewhere, activations=form.activations)
        names += [path.name for path in save_onnx(model, folder / form.file)]
    moving = {name: each for name, each in lite0_ranges.tensors.items() if each.threshold > 0}
    (folder / "calibration.cache").write_text(write_cache(moving), encoding="utf-8")
    files = file_specs(folder, [*names, "calibration.cache"])
    return write_manifest(folder, replace(bundle.manifest, files=files))


@pytest.fixture(scope="session")
def labels_bundle(typed_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Give a bundle whose only graph ends in labels: an export of typed_bundle."""
    folder = tmp_path_factory.mktemp("labels") / "labels"
    folder.mkdir()
    export("onnx", typed_bundle.path, "-o", folder / "model.fp32.onnx")
    files = file_specs(folder, ["model.fp32.onnx"])
    return write_manifest(folder, replace(typed_bundle.manifest, head=HeadSpec("labels"), files=files))


def export(*words: object) -> None:
    """Run `fcn-build export` with these words, which must end well."""
    assert cli.main(["export", *map(str, words)]) == 0


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run `fcn-build export` with words that it refuses; gives its one sentence."""
    capsys.readouterr()
    assert cli.main(["export", *map(str, words)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    return said[0].removeprefix("fcn-build export: ")


def run_graph(path: Path, pictures: np.ndarray) -> np.ndarray:
    """The one output of the graph in `path` for its one input, by ONNX Runtime's CPU kernels."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: pictures})[0]


def upsampled(scores: np.ndarray, size: tuple[int, int], stride: int, offset: tuple[float, float]) -> np.ndarray:
    """(C, h, w) scores at `size` (height, width), float64: the formula of docs/bundle.md, axis after axis."""
    result = scores.astype(np.float64)
    for axis, (side, shift) in enumerate(zip(size, offset, strict=True), start=1):
        last = result.shape[axis] - 1
        u = np.clip((np.arange(side) + 0.5 + shift) / stride - 0.5, 0, last)
        lower = np.minimum(np.floor(u).astype(int), max(last - 1, 0))
        weight = np.expand_dims(u - lower, [each for each in (0, 1, 2) if each != axis])
        upper = np.minimum(lower + 1, last)
        result = result.take(lower, axis) * (1 - weight) + result.take(upper, axis) * weight
    return result


def clear_pixels(full: np.ndarray, margin: float = 1e-4) -> np.ndarray:
    """(H, W) bool: where the best of (C, H, W) scores leads the second by more than `margin` of their range."""
    best = np.sort(full, axis=0)
    return best[-1] - best[-2] > margin * np.ptp(full)


@pytest.fixture(scope="session")
def pictures(typed_bundle: Bundle) -> np.ndarray:
    """Give (3, 64, 96, 3) uint8: soft blobs of colour."""
    size, random = typed_bundle.manifest.input, np.random.default_rng(5)
    blobs = [random.integers(0, 256, (6, 9, 3), np.uint8) for _ in range(3)]
    return np.stack([cv2.resize(each, (size.width, size.height)) for each in blobs])


@pytest.fixture(scope="session")
def tools() -> Any:
    """Give the functions above, which test files cannot import from a conftest."""
    return SimpleNamespace(export=export, refusal=refusal, run=run_graph, upsampled=upsampled, clear=clear_pixels)


@pytest.fixture(scope="session")
def expect_labels(typed_bundle: Bundle) -> Callable[..., None]:
    """Give (labels (N, H, W), pictures, graph): fails unless labels are the graph's scores upsampled and compared.

    Wherever the winner leads clearly, which is nearly everywhere.
    """

    def check(labels: np.ndarray, pictures: np.ndarray, graph: Path) -> None:
        head, size = typed_bundle.manifest.head, typed_bundle.manifest.input
        for got, picture in zip(labels, pictures, strict=True):
            scores = run_graph(graph, picture[None])[0]
            full = upsampled(scores, (size.height, size.width), head.stride, head.offset)
            clear = clear_pixels(full)
            assert clear.mean() > 0.99
            assert len(np.unique(got)) > 1
            assert np.array_equal(got[clear], full.argmax(axis=0)[clear])

    return check
