"""The kernels on the GPU give what their references give, bit for bit."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest

from fcnedge.runtime import BilinearHead
from fcnedge.runtime.cuda import reference
from fcnedge.runtime.cuda.geometry import (
    KernelLaunch,
    content_size,
    labels_launch,
    overlay_launch,
    preprocess_launch,
)
from fcnedge.runtime.manifest import HeadSpec, InputSpec, Manifest
from fcnedge.runtime.palette import voc_palette
from fcnedge.runtime.preprocessing import Preprocessing

pytestmark = pytest.mark.gpu
FRAMES = [(1, 1), (7, 5), (31, 200), (375, 500), (480, 640), (720, 1280), (1080, 1920)]


@pytest.fixture
def on_gpu(device, kernels):
    """Give (launch, pointers and pitches before its arguments, index of the one to fetch) → that array afterwards.

    An array stands for a buffer with its content, a NumPy scalar for itself.
    """

    def run(launch: KernelLaunch, leading: list, fetched: int) -> np.ndarray:
        with contextlib.ExitStack() as closing, device.current():
            stream = device.stream()
            closing.callback(stream.close)
            values, buffers = [], {}
            for index, value in enumerate(leading):
                if not isinstance(value, np.ndarray):
                    values.append(value)
                    continue
                host = device.host_buffer(value.shape, value.dtype, "a test")
                closing.callback(host.close)
                there = device.device_buffer(value.nbytes, "a test")
                closing.callback(there.close)
                host.array[...] = value
                device.upload(there, host, stream)
                buffers[index] = host, there
                values.append(np.uintp(there.address))
            kernels.launch(launch.name, (*values, *launch.arguments), launch.block, launch.grid, stream)
            host, there = buffers[fetched]
            device.download(host, there, stream)
            stream.synchronize()
            return host.array.copy()

    return run


def manifest_of(size: tuple[int, int] = (384, 384), fit: str = "letterbox", stride: int = 8) -> Manifest:
    palette = tuple((int(red), int(green), int(blue)) for red, green, blue in voc_palette(21))
    return Manifest(
        name="kernels",
        arch="none",
        classes=tuple(f"class {index}" for index in range(21)),
        palette=palette,
        input=InputSpec(*size, fit),
        preprocessing=Preprocessing("rgb", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        head=HeadSpec("bilinear", stride, 2 * stride),
        files={},
        versions={},
    )


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("frame_size", FRAMES)
def test_preprocess_equals_its_reference(on_gpu, frame_size, fit):
    manifest = manifest_of((320, 512), fit)
    frame = np.random.default_rng(0).integers(0, 256, (*frame_size, 3), np.uint8)
    target = np.zeros((1, 320, 512, 3), np.uint8)
    pitch = np.int32(3 * frame_size[1])
    found = on_gpu(preprocess_launch(manifest, frame_size), [frame, pitch, target], 2)
    assert (found == reference.preprocess(frame, (320, 512), fit)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_labels_equal_the_heads_bit_for_bit_on_dyadic_geometry(on_gpu, stride, dtype, scale):
    manifest = manifest_of((384, 512), "stretch", stride)
    scores = smooth_scores((1, 21, 384 // stride, 512 // stride)).astype(dtype)
    frame_size = 384 * scale, 512 * scale
    mask = on_gpu(labels_launch(manifest, frame_size, dtype), [scores, np.full(frame_size, 254, np.uint8)], 1)
    assert (mask == BilinearHead(manifest.head.geometry).labels(scores, frame_size)).all()


@pytest.mark.parametrize("frame_size", FRAMES)
def test_labels_equal_the_heads_at_camera_sizes(on_gpu, frame_size):
    """Random scores of 21 classes: two of them within float64 rounding of each other is nothing that chance gives."""
    manifest = manifest_of((384, 384))
    scores = smooth_scores((1, 21, 48, 48))
    mask = on_gpu(labels_launch(manifest, frame_size, np.float32), [scores, np.full(frame_size, 254, np.uint8)], 1)
    content = content_size(manifest, frame_size)
    assert (mask == BilinearHead(manifest.head.geometry).labels(scores, frame_size, content)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("frame_size", FRAMES)
def test_point_labels_equal_the_heads_at_camera_sizes(on_gpu, frame_size, dtype):
    manifest = manifest_of((384, 384))
    scores = smooth_scores((1, 21, 48, 48)).astype(dtype)
    launch = labels_launch(manifest, frame_size, dtype, "point")
    mask = on_gpu(launch, [scores, np.full(frame_size, 254, np.uint8)], 1)
    head = BilinearHead(manifest.head.geometry, "point")
    assert (mask == head.labels(scores, frame_size, content_size(manifest, frame_size))).all()


def test_scores_that_are_not_finite_give_255(on_gpu):
    manifest, scores = manifest_of(), smooth_scores((1, 21, 48, 48))
    scores[0, 3] = np.nan
    mask = on_gpu(labels_launch(manifest, (384, 384), np.float32), [scores, np.zeros((384, 384), np.uint8)], 1)
    assert (mask == 255).all()


def test_ties_go_to_the_lowest_class(on_gpu):
    manifest = replace(manifest_of(), classes=("a", "b", "c"))
    scores = np.zeros((1, 3, 48, 48), np.float32)
    scores[:, 1:] = 1
    mask = on_gpu(labels_launch(manifest, (384, 384), np.float32), [scores, np.zeros((384, 384), np.uint8)], 1)
    assert (mask == 1).all()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("frame_size", FRAMES)
def test_overlay_equals_its_reference(on_gpu, frame_size, alpha):
    numbers = np.random.default_rng(2)
    frame = numbers.integers(0, 256, (*frame_size, 3), np.uint8)
    labels = numbers.integers(0, 21, frame_size, np.uint8)
    palette = np.ascontiguousarray(voc_palette()[:, ::-1])
    painted = np.ones(256, np.uint8)
    painted[[0, 255]] = 0
    found = on_gpu(overlay_launch(frame_size, alpha), [frame, labels, palette, painted], 0)
    assert (found == reference.overlay(frame, labels, palette, painted, alpha)).all()


def smooth_scores(shape: tuple[int, ...]) -> np.ndarray:
    """Scores with regions: neighbouring grid points mostly agree on their class."""
    coarse = np.random.default_rng(1).normal(0, 4, (*shape[:2], shape[2] // 4 + 1, shape[3] // 4 + 1))
    fine = coarse.repeat(4, axis=2).repeat(4, axis=3)[:, :, : shape[2], : shape[3]]
    return (fine + np.random.default_rng(2).normal(0, 1, shape)).astype(np.float32)
