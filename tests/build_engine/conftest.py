"""One small bundle, built once for all tests, and a record of what Keras said in that build."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fcnedge.build_engine import build, cli
from fcnedge.build_engine.keras_stage import KerasResult, run_keras_stage
from fcnedge.build_engine.model_source import ModelSource, keras_model, resolve_source
from fcnedge.build_engine.models.weights_file import WeightsInfo, save_weights
from fcnedge.calibration.collect import collect
from fcnedge.calibration.pictures import PictureList
from fcnedge.calibration.ranges import Ranges
from fcnedge.runtime import Bundle, Segmenter

CLASSES = 5


def write_lively_weights(path: Path, source: ModelSource, dtype: str = "float32") -> Path:
    """Random weights under which no class wins everywhere and no batch norm is the identity, as safetensors."""
    import keras

    random = np.random.default_rng(3)
    keras.utils.set_random_seed(3)
    model, preprocessing = keras_model(source, fc_channels=8, fixed_size=True)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            count = layer.get_weights()[0].size
            gamma, variance = random.uniform(0.8, 1.2, count), random.uniform(0.1, 0.3, count)
            layer.set_weights([gamma, random.normal(0, 0.1, count), random.normal(0, 0.1, count), variance])
        if layer.name == "score_context":  # random scores of the whole picture would let one class win all of it
            layer.set_weights([0.1 * weight for weight in layer.get_weights()])
    scores = model.predict_on_batch(preprocessing.apply(blobs(random, source.size))[None])[0]
    kernel, bias = model.get_layer("score_fr").get_weights()
    model.get_layer("score_fr").set_weights([kernel, bias - scores.mean(axis=(0, 1))])
    save_weights(model, path, WeightsInfo(source.name, source.arch, source.classes, source.size, source.fit), dtype)
    return path


def blobs(random: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A picture (H, W, 3) uint8 of soft blobs of colour."""
    return cv2.resize(random.integers(0, 256, (6, 9, 3), np.uint8), size[::-1])


@dataclass(frozen=True)
class Lite0Build:
    """A run of `fcn-build model fcn8s-lite0 --size 96x64 --classes 5 --weights …` with random weights.

    bundle, pictures: folders; result: what --json wrote; printed: standard output; recorded: copy of the folder that
    the Keras stage left, with its result in `keras`.
    """

    bundle: Path
    pictures: Path
    result: dict[str, Any]
    printed: str
    recorded: Path
    keras: KerasResult
    source: ModelSource


@pytest.fixture(scope="session")
def lite0_build(tmp_path_factory: pytest.TempPathFactory) -> Lite0Build:
    folder = tmp_path_factory.mktemp("lite0")
    pictures = folder / "pictures"
    pictures.mkdir()
    random = np.random.default_rng(1)
    for index in range(2):
        assert cv2.imwrite(str(pictures / f"blobs{index}.png"), blobs(random, (120, 180)))
    source = resolve_source("fcn8s-lite0", classes=str(CLASSES), size=(64, 96))
    weights = write_lively_weights(folder / "lively.safetensors", source)
    recorded, results = folder / "recorded", []

    def record(source: ModelSource, fc_channels: int, images: list[tuple[str, np.ndarray]], work: Path) -> KerasResult:
        results.append(run_keras_stage(source, fc_channels, images, work))
        shutil.copytree(work, recorded)
        return results[-1]

    words = ["model", "fcn8s-lite0", "-o", folder / "bundle", "--size", "96x64", "--classes", CLASSES]
    words += ["--weights", weights, "--verify", pictures, "--json", folder / "result.json"]
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(build, "run_keras_stage", record)
        assert cli.main([str(word) for word in words]) == 0
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    keras = _moved(results[0], recorded)
    return Lite0Build(folder / "bundle", pictures, result, printed.getvalue(), recorded, keras, source)


@pytest.fixture(scope="session")
def lively_weights() -> Callable[..., Path]:
    """Give `write_lively_weights`: (path, source, dtype) → path."""
    return write_lively_weights


@pytest.fixture(scope="session")
def lite0_bundle(lite0_build: Lite0Build) -> Path:
    """Give a bundle folder: fcn8s-lite0, random weights, 96x64, 5 classes. Do not write to it."""
    return lite0_build.bundle


@pytest.fixture
def replay(lite0_build: Lite0Build, monkeypatch: pytest.MonkeyPatch) -> Callable[..., KerasResult]:
    """Let builds in this test take the recorded Keras stage of `lite0_build` instead of 15 seconds of TensorFlow."""

    def again(source: ModelSource, fc_channels: int, images: object, work: Path) -> KerasResult:
        shutil.copytree(lite0_build.recorded, work, dirs_exist_ok=True)
        return _moved(lite0_build.keras, work)

    monkeypatch.setattr(build, "run_keras_stage", again)
    return again


@pytest.fixture(scope="session")
def lite0_ranges(lite0_build: Lite0Build) -> Ranges:
    """Give the ranges of `lite0_bundle` on the two pictures that it was verified with."""
    paths = tuple(sorted(lite0_build.pictures.iterdir()))
    pictures = PictureList(tuple(path.name for path in paths), paths, len(paths), "the blobs")
    return collect(Bundle.load(lite0_build.bundle), pictures, method="minmax", threads=1)


@pytest.fixture(scope="session")
def lite0_voc(lite0_build: Lite0Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder in VOC layout whose masks are `lite0_bundle`'s own: in FP32 its mIoU is 100%."""
    folder = tmp_path_factory.mktemp("own_voc") / "VOC2012"
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / part).mkdir(parents=True)
    random = np.random.default_rng(9)
    with Segmenter(lite0_build.bundle, "onnxruntime") as segment:
        for name in ("a", "b", "c"):
            picture = folder / "JPEGImages" / f"{name}.jpg"
            assert cv2.imwrite(str(picture), blobs(random, (70, 110)))
            assert cv2.imwrite(str(folder / "SegmentationClass" / f"{name}.png"), segment(cv2.imread(str(picture))))
    (folder / "ImageSets" / "Segmentation" / "val.txt").write_text("a\nb\nc\n", encoding="utf-8")
    return folder


def _moved(result: KerasResult, folder: Path) -> KerasResult:
    return replace(result, references=[folder / path.name for path in result.references])


@pytest.fixture(scope="session")
def small_disk() -> Callable[[Path, str, list[str]], list[str]]:
    """Give (folder, size, command) → that command with a disk of `size` (tmpfs's "1m") mounted over `folder`.

    The mount lives in a mount namespace of the command's own and is gone with it, whatever happens.
    """
    unshare = ["unshare", "--mount", "--map-root-user"]
    try:
        tried = subprocess.run([*unshare, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no `unshare` here to mount a small disk with")
    if tried.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {tried.stderr.decode(errors='replace').strip()}")

    def wrapped(folder: Path, size: str, command: list[str]) -> list[str]:
        script = 'mount -t tmpfs -o size="$1" none "$2" && shift 2 && exec "$@"'
        return [*unshare, "sh", "-c", script, "sh", size, str(folder), *command]

    return wrapped
