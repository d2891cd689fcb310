"""What the frame path asks of the GPU: one frame's calls and times, and no memory after a size's first frame."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest

from fcnedge.runtime import BackendError, Bundle, UserError
from fcnedge.runtime.cuda.device import Device
from fcnedge.runtime.cuda.paint import Paint
from fcnedge.runtime.cuda.pipeline import GPU_STAGES, FramePipeline, check_frame_path

from .conftest import ColourNetwork, frame_of, opened

TAKEN = {"mem_alloc", "pagelocked_empty", "Stream", "Event", "module_from_buffer", "Module.get_function"}


def frame_calls(cuda, pipeline, frame, **more) -> list[tuple[str, object]]:
    del cuda.calls[:]
    pipeline.segment(frame, **more)
    return [(name, details) for name, details in cuda.calls if name not in ("Context.push", "Context.pop")]


def test_one_frame_is_this_and_nothing_else(cuda, bundle):
    pipeline = opened(cuda, bundle)
    pipeline.segment(frame_of(40, 50))
    stream = pipeline._stream.handle
    calls = frame_calls(cuda, pipeline, frame_of(40, 50))
    names = [name for name, _ in calls if name != "Event.record"]
    assert names[:-6] == [
        "memcpy_htod_async",
        "preprocess",
        "network",
        "scores_to_labels_f32",
        "memcpy_dtoh_async",
        "Stream.synchronize",
    ]
    assert names[-6:] == ["Event.time_since"] * 6
    assert {details for name, details in calls if name != "Event.time_since"} == {stream}


def test_integrated_gpu_copies_nothing(cuda, bundle):
    cuda.integrated = True
    pipeline = opened(cuda, bundle)
    names = [name for name, _ in frame_calls(cuda, pipeline, frame_of(40, 50), paint=Paint())]
    assert [name for name in names if "memcpy" in name] == ["memcpy_htod_async"]  # the palette, one kilobyte
    names = [name for name, _ in frame_calls(cuda, pipeline, frame_of(40, 50))]
    assert not any("memcpy" in name for name in names)


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("head", ["bilinear", "labels"])
def test_nothing_is_allocated_after_the_first_frame(tmp_path, write_bundle, cuda, head, integrated):
    cuda.integrated = integrated
    bundle = Bundle.load(write_bundle(tmp_path / "b", head=head))
    pipeline, image = opened(cuda, bundle), np.zeros((1, 32, 48, 3), np.uint8)
    pipeline.segment(frame_of(40, 50), paint=Paint())
    pipeline.infer(image)
    alive = dict(cuda.alive)
    del cuda.calls[:]
    for _ in range(20):
        pipeline.segment(frame_of(40, 50))
        pipeline.segment(frame_of(40, 50), paint=Paint())
        pipeline.infer(image)
    assert TAKEN.isdisjoint(cuda.names())
    assert "free" not in cuda.names()
    assert cuda.alive == alive


@pytest.mark.parametrize("integrated", [False, True])
def test_nothing_of_a_frames_size_is_allocated_by_numpy_when_out_is_given(cuda, bundle, integrated):
    cuda.integrated = integrated
    pipeline, frame, out = opened(cuda, bundle), frame_of(400, 500), np.empty((400, 500), np.uint8)
    pipeline.segment(frame, out=out)
    tracemalloc.start()
    try:
        pipeline.segment(frame, out=out)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        pipeline.segment(frame)
        _, with_a_new_mask = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < out.nbytes
    assert with_a_new_mask > out.nbytes  # so it would have been seen


def test_frame_of_another_size_in_mid_stream_takes_buffers_once(cuda, bundle):
    pipeline = opened(cuda, bundle)
    pipeline.segment(frame_of(40, 50))
    memory = cuda.memory
    pipeline.segment(frame_of(400, 500))
    assert cuda.memory > memory
    del cuda.calls[:]
    assert pipeline.segment(frame_of(400, 500)).mask.shape == (400, 500)
    assert TAKEN.isdisjoint(cuda.names())


@pytest.mark.parametrize("cameras", [2, 4])
def test_cameras_of_different_sizes_take_turns_without_allocating(cuda, bundle, cameras):
    pipeline = opened(cuda, bundle)
    frames = [frame_of(40, 50 + number) for number in range(cameras)]
    expected = [pipeline.segment(frame).mask for frame in frames]
    del cuda.calls[:]
    for _ in range(3):
        for frame, mask in zip(frames, expected, strict=True):
            assert (pipeline.segment(frame).mask == mask).all()
    assert TAKEN.isdisjoint(cuda.names())
    assert "free" not in cuda.names()
    pipeline.close()
    assert cuda.alive == {}


def test_of_many_sizes_the_one_that_was_not_used_for_longest_goes(cuda, bundle):
    pipeline = opened(cuda, bundle)
    for width in (50, 51, 52, 53, 50):  # 51 is now the oldest
        pipeline.segment(frame_of(40, width))
    memory = cuda.memory
    pipeline.segment(frame_of(40, 54))
    assert cuda.memory == memory + 2 * 4 * 40 * (54 - 51)  # frame and mask, on both sides
    del cuda.calls[:]
    for width in (50, 52, 53, 54):
        pipeline.segment(frame_of(40, width))
    assert TAKEN.isdisjoint(cuda.names())
    pipeline.segment(frame_of(40, 51))
    assert "mem_alloc" in cuda.names()


def test_other_sizes_make_room_for_a_frame_that_needs_it(cuda, bundle):
    pipeline = opened(cuda, bundle)
    frames = [frame_of(100, 100 + number) for number in range(3)]
    expected = [pipeline.segment(frame).mask for frame in frames]
    large = frame_of(200, 200)
    cuda.total = cuda.memory + 8 * 40_000 - 1  # what it takes, but for one byte
    assert pipeline.segment(large).mask.shape == (200, 200)
    assert [(pipeline.segment(frame).mask == mask).all() for frame, mask in zip(frames, expected, strict=True)]
    pipeline.close()
    assert cuda.alive == {}


@pytest.mark.parametrize("size", [(16385, 2), (2, 16385)])
def test_frame_that_is_too_large_takes_nothing_however_often(cuda, bundle, size):
    pipeline = opened(cuda, bundle)
    pipeline.segment(frame_of(40, 50))
    alive, memory = dict(cuda.alive), cuda.memory
    for _ in range(3):
        with pytest.raises(UserError, match="the GPU takes 1 to 16384 of each"):
            pipeline.segment(np.zeros((*size, 3), np.uint8))
    assert (cuda.alive, cuda.memory) == (alive, memory)


def test_head_that_the_kernels_do_not_know_is_refused_when_opened(cuda, bundle):
    """So that "auto" goes on to the CPU, which knows it."""
    manifest = dataclasses.replace(bundle.manifest, head=dataclasses.replace(bundle.manifest.head, offset=(0.0, 0.25)))
    network, device = ColourNetwork(cuda, manifest), Device()
    for call in (lambda: FramePipeline(device, network, manifest), lambda: check_frame_path(device, manifest)):
        with pytest.raises(BackendError, match=r"offset is 0\.25 pixels .*choose a CPU backend"):
            call()
    assert (cuda.alive, network.closed) == ({}, 1)


def test_times_are_those_between_the_events(cuda, bundle):
    pipeline = opened(cuda, bundle)
    result = pipeline.segment(frame_of(40, 50))
    assert tuple(result.gpu_ms) == GPU_STAGES
    assert result.gpu_ms["network"] == 0.5  # of the stand-in's clock: the work itself and the event after it
    assert result.gpu_ms["overlay"] == 0.25
    assert result.infer_ms == result.gpu_ms["network"]
    assert result.preprocess_ms > result.gpu_ms["upload"] + result.gpu_ms["preprocess"]
