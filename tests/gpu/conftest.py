"""The GPU itself: `pytest -m gpu`, one command with one summary at its end. In any other run these tests are skipped.

FCNEDGE_BUNDLE: a bundle to run instead of building the shipped model (where the extra `build` is not installed).
FCNEDGE_VOC: pictures; without it, mirrored and scaled copies of the demo photographs.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from fcnedge.runtime import Bundle, UserError, open_source
from fcnedge.runtime.backends import FrameBackend, open_backend
from fcnedge.runtime.cuda.compiler import load_kernels
from fcnedge.runtime.cuda.device import Device, Module

BACKENDS = ("tensorrt", "tensorrt_rtx", "onnxruntime_cuda")
PRECISIONS = ("fp32", "fp16", "int8")
PICTURES = 20
# https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/getting-started/support-matrix.html
_RTX_GPUS = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
_HIDDEN = "-1"
"""What tests/conftest.py sets CUDA_VISIBLE_DEVICES to, so that no other test takes somebody's GPU."""

_told = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(config: pytest.Config) -> None:
    config.stash[_told] = []
    if _asked(config) and os.environ.get("CUDA_VISIBLE_DEVICES") == _HIDDEN:
        del os.environ["CUDA_VISIBLE_DEVICES"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not _asked(config):
        return
    counts = {kind: len(terminalreporter.stats.get(kind, [])) for kind in ("passed", "failed", "error", "skipped")}
    terminalreporter.section("on the GPU")
    for line in config.stash.get(_told, []) or ["nothing was run on a GPU"]:
        terminalreporter.write_line(line)
    terminalreporter.write_line(", ".join(f"{number} {kind}" for kind, number in counts.items()))


def _asked(config: pytest.Config) -> bool:
    expression = config.getoption("markexpr", "") or ""
    return "gpu" in expression and "not gpu" not in expression


@pytest.fixture(scope="session")
def tell(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Give a function that adds a line to the summary."""
    return pytestconfig.stash[_told].append


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config, tell: Callable[[str], None]) -> Iterator[Device]:
    if not _asked(pytestconfig):
        pytest.skip("tests on the GPU run alone: pytest -m gpu")
    try:
        made = Device()
    except UserError as error:
        pytest.skip(str(error))
    tell(
        f"{made.name}, compute capability {made.compute_capability}, driver for CUDA {made.driver_version}, "
        f"{'shared' if made.integrated else 'own'} memory"
    )
    yield made
    made.close()


@pytest.fixture(scope="session")
def kernels(device: Device) -> Module:
    return load_kernels(device)


@pytest.fixture(scope="session")
def bundle(device: Device, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Give the shipped model in all precisions, in a folder of this run: its engines are compiled anew."""
    folder = tmp_path_factory.mktemp("gpu") / "bundle"
    if "FCNEDGE_BUNDLE" in os.environ:
        shutil.copytree(os.environ["FCNEDGE_BUNDLE"], folder, ignore=shutil.ignore_patterns("engines"))
        return Bundle.load(folder)
    for name, extra in (("keras", "build"), ("skimage", "demo"), ("matplotlib", "demo")):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"the extra {extra} is not installed; set FCNEDGE_BUNDLE to a bundle in {PRECISIONS}")
    command = [sys.executable, "-m", "fcnedge.build_engine.cli", "model", "fcn8s-lite0-voc", "-o", str(folder)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": _HIDDEN}  # TensorFlow would take the whole GPU
    subprocess.run([*command, "--precision", ",".join(PRECISIONS)], check=True, env=environment)
    return Bundle.load(folder)


@pytest.fixture(scope="session")
def opened(device: Device, bundle: Bundle) -> Iterator[Callable[[str, str], FrameBackend]]:
    """Give (name, precision) → the backend, opened once; skips where its library is missing or knows no such GPU."""
    made: dict[tuple[str, str], FrameBackend] = {}

    def give(name: str, precision: str) -> FrameBackend:
        if reason := why_not(name, device):
            pytest.skip(reason)
        if precision not in bundle.manifest.precisions:
            pytest.skip(f"{bundle.path} holds no {precision} graph")
        if (name, precision) not in made:
            backend = open_backend(bundle, name, precision)
            assert isinstance(backend, FrameBackend)
            made[name, precision] = backend
        return made[name, precision]

    yield give
    for backend in made.values():
        backend.close()


@pytest.fixture(scope="session")
def available(device: Device) -> str:
    """Give the name of a GPU backend that can be opened here."""
    reasons = {name: why_not(name, device) for name in BACKENDS}
    for name, reason in reasons.items():
        if reason is None:
            return name
    pytest.skip("; ".join(str(reason) for reason in reasons.values()))


def why_not(name: str, device: Device) -> str | None:
    """Why a backend cannot be tried on this machine, None when it must work."""
    modules = {"tensorrt": ["tensorrt"], "tensorrt_rtx": ["tensorrt_rtx", "tensorrt_rtx_bindings"]}.get(name, [])
    if modules and not any(importlib.util.find_spec(module) for module in modules):
        return f"{name} is not installed"
    if name == "tensorrt_rtx" and device.compute_capability not in _RTX_GPUS:
        return f"TensorRT-RTX does not know compute capability {device.compute_capability}"
    if name == "onnxruntime_cuda":
        if importlib.util.find_spec("onnxruntime") is None:
            return "onnxruntime is not installed"
        import onnxruntime

        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            return "onnxruntime has no CUDA provider: it is not onnxruntime-gpu"
    return None


@pytest.fixture(scope="session")
def pictures(device: Device) -> list[np.ndarray]:
    """Give 20 pictures, (H, W, 3) uint8 BGR, of several sizes."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data" / "VOCdevkit"
    voc = Path(os.environ.get("FCNEDGE_VOC", beside)) / "VOC2012"
    listing = voc / "ImageSets" / "Segmentation" / "val.txt"
    if listing.is_file():
        names = listing.read_text(encoding="utf-8").split()
        chosen = names[:: max(1, len(names) // PICTURES)][:PICTURES]
        read = [cv2.imread(str(voc / "JPEGImages" / f"{name}.jpg")) for name in chosen]
        return [picture for picture in read if picture is not None]
    try:
        photographs = [frame.image for frame in open_source("demo://")]
    except UserError as error:
        pytest.skip(f"no pictures: {error}; or set FCNEDGE_VOC to the folder VOCdevkit")
    variants: list[np.ndarray] = []
    for scale in (1.0, 0.7, 0.5, 0.35):
        for picture in photographs:
            scaled = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            variants += [scaled, np.ascontiguousarray(scaled[:, ::-1])]
    return variants[:PICTURES]
