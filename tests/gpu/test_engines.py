"""Engines on the GPU: the CPU's masks, frame after frame, from several threads, and none that does not fit."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fcnedge.runtime import BackendError, Bundle, Segmenter, open_backend
from fcnedge.runtime.backends import FrameBackend, OnnxRuntimeBackend, TensorRtBackend
from fcnedge.runtime.cuda import reference
from fcnedge.runtime.cuda.paint import Paint
from fcnedge.runtime.cuda.pipeline import GPU_STAGES
from fcnedge.runtime.palette import full_palette

pytestmark = pytest.mark.gpu
BACKENDS = ("tensorrt", "tensorrt_rtx", "onnxruntime_cuda")
# What rounding may change: of float32 in another order (and TF32 on the way), of float16, of the fusions of INT8.
LEAST_EQUAL = {"fp32": 0.999, "fp16": 0.995, "int8": 0.98}
FRAMES = 1000


@pytest.fixture(scope="module")
def references(bundle, pictures):
    """Give precision → the masks of ONNX Runtime on the CPU."""
    pytest.importorskip("onnxruntime", reason="the extra cpu is not installed")
    masks: dict[str, list[np.ndarray]] = {}

    def give(precision: str) -> list[np.ndarray]:
        if precision not in masks:
            with Segmenter(bundle, OnnxRuntimeBackend(bundle, precision)) as segment:
                masks[precision] = [segment(picture) for picture in pictures]
        return masks[precision]

    return give


@pytest.mark.parametrize("precision", LEAST_EQUAL)
@pytest.mark.parametrize("name", BACKENDS)
def test_masks_are_those_of_onnxruntime_on_the_cpu(opened, references, pictures, tell, name, precision):
    backend = opened(name, precision)
    assert len(pictures) == 20
    equal = pixels = 0
    for picture, expected in zip(pictures, references(precision), strict=True):
        mask = backend.segment(picture).mask
        equal, pixels = equal + int((mask == expected).sum()), pixels + mask.size
    assert len({class_id for mask in references(precision) for class_id in np.unique(mask)}) > 2  # something is seen
    tell(f"{name} {precision}: {100 * equal / pixels:.3f}% of {pixels / 1e6:.1f} M labels equal ONNX Runtime's")
    assert equal / pixels >= LEAST_EQUAL[precision]


@pytest.mark.parametrize("precision", LEAST_EQUAL)
@pytest.mark.parametrize("name", BACKENDS)
def test_a_thousand_frames_take_no_more_memory_than_ten(opened, pictures, device, tell, name, precision):
    """Less than one frame of 1080p (6.2 MB) more, on the GPU and in the process: one allocation a frame would show."""
    backend = opened(name, precision)
    frame = np.ascontiguousarray(np.resize(pictures[0], (1080, 1920, 3)))
    for _ in range(10):
        backend.segment(frame)
    gc.collect()
    free, resident = free_bytes(device), resident_bytes()
    results = [backend.segment(frame).gpu_ms for _ in range(FRAMES)]
    gc.collect()
    stages = {stage: float(np.median([times[stage] for times in results])) for stage in GPU_STAGES}
    total = float(np.median([sum(times.values()) for times in results]))
    shown = ", ".join(f"{stage} {milliseconds:.3f}" for stage, milliseconds in stages.items())
    tell(f"{name} {precision}: {total:.3f} ms per 1080p frame on the GPU, median of {FRAMES} ({shown})")
    assert free - free_bytes(device) < 6_000_000
    assert resident_bytes() - resident < 6_000_000


def free_bytes(device) -> int:
    import pycuda.driver as driver

    with device.current():
        return driver.mem_get_info()[0]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("name", BACKENDS)
def test_overlay_comes_with_the_mask(opened, bundle, pictures, name):
    backend, palette = opened(name, "fp32"), np.array(bundle.manifest.palette, np.uint8)
    painted = np.ones(256, np.uint8)
    painted[[0, 255]] = 0
    for picture in pictures[:3]:
        result = backend.segment(picture, paint=Paint())
        colours = np.ascontiguousarray(full_palette(palette)[:, ::-1])
        assert (result.overlay == reference.overlay(picture, result.mask, colours, painted, 0.5)).all()


@pytest.mark.parametrize("name", BACKENDS)
def test_two_threads_share_one_backend(opened, pictures, name):
    backend = opened(name, "fp32")
    expected = [backend.segment(picture).mask for picture in pictures]
    with ThreadPoolExecutor(2) as pool:
        masks = list(pool.map(lambda picture: backend.segment(picture).mask, pictures * 5))
    assert all((mask == expected[index % len(pictures)]).all() for index, mask in enumerate(masks))


@pytest.mark.parametrize("name", BACKENDS)
def test_two_engines_run_at_once(opened, pictures, name):
    backends = [opened(name, precision) for precision in ("fp32", "fp16")]
    expected = [[backend.segment(picture).mask for picture in pictures] for backend in backends]

    def run(index: int) -> list[np.ndarray]:
        return [backends[index].segment(picture).mask for _ in range(5) for picture in pictures]

    with ThreadPoolExecutor(2) as pool:
        for index, masks in enumerate(pool.map(run, (0, 1))):
            assert all((mask == expected[index][place % len(pictures)]).all() for place, mask in enumerate(masks))


@pytest.mark.parametrize("name", BACKENDS)
def test_frame_of_another_size_in_mid_stream(opened, pictures, name):
    backend, frame = opened(name, "fp32"), pictures[0]
    first = backend.segment(frame).mask
    for size in [(1, 1), (1080, 1920), (37, 53)]:
        assert backend.segment(np.zeros((*size, 3), np.uint8)).mask.shape == size
    assert (backend.segment(frame).mask == first).all()


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_graph_replay_gives_the_same_masks(opened, bundle, pictures, tell, name):
    """And what it saves, in the summary."""
    plain = opened(name, "fp16")
    replayed = TensorRtBackend(bundle, "fp16", module=name, cuda_graph=True)
    try:
        for picture in pictures:
            assert (plain.segment(picture).mask == replayed.segment(picture).mask).all()
        medians = [
            float(np.median([backend.segment(pictures[0]).total_ms for _ in range(300)]))
            for backend in (plain, replayed)
        ]
    finally:
        replayed.close()
    tell(
        f"{name} fp16: {medians[0]:.3f} ms per frame without a CUDA graph, {medians[1]:.3f} ms with"
        f"{'' if replayed.captured else ' (which was not captured)'}"
    )


# Engines that do not fit


@pytest.fixture(params=["tensorrt", "tensorrt_rtx"])
def copied(request, opened, bundle, tmp_path) -> tuple[str, Bundle, Path]:
    """Give (library, a copy of the bundle with its FP16 engine, that engine), to be spoilt."""
    opened(request.param, "fp16")
    shutil.copytree(bundle.path, tmp_path / "copy")
    (engine,) = (tmp_path / "copy" / "engines").glob(f"fp16.{request.param}-*.engine")
    return request.param, Bundle.load(tmp_path / "copy"), engine


def refusal(name: str, bundle: Bundle) -> str:
    with pytest.raises(BackendError) as caught:
        TensorRtBackend(bundle, "fp16", module=name, build=False)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [("version", "1.0.0", "1.0.0"), ("compute_capabilities", ["3.5"], "3.5"), ("precision", "int8", "no fp16 engine")],
)
def test_engine_of_another_machine_is_refused(copied, field, value, word):
    name, bundle, engine = copied
    sidecar = engine.with_name(f"{engine.name}.json")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {field: value}))
    assert word in refusal(name, bundle)


def test_truncated_engine_is_refused(copied):
    name, bundle, engine = copied
    engine.write_bytes(engine.read_bytes()[:-1000])
    assert str(engine) in refusal(name, bundle)


def test_truncated_engine_with_a_fitting_sidecar_is_refused_by_the_library(copied):
    """It was cut short before its hash was taken: only TensorRT itself can tell."""
    name, bundle, engine = copied
    data = engine.read_bytes()[: engine.stat().st_size // 2]
    engine.write_bytes(data)
    sidecar = engine.with_name(f"{engine.name}.json")
    changes = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | changes))
    assert "cannot open" in refusal(name, bundle)


def test_closed_backend_gives_all_memory_back(available, bundle, device, pictures):
    """After a first one, whose libraries keep what they need once."""
    used = []
    for _ in range(4):
        backend = open_backend(bundle, available, "fp16")
        assert isinstance(backend, FrameBackend)
        backend.segment(pictures[0])
        backend.close()
        del backend
        gc.collect()
        used.append(free_bytes(device))
    assert used[-1] >= used[1] - 2_000_000  # the driver's unit is 2 MB
