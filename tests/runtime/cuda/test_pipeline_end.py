"""The frame path's end, failures and neighbours: nothing is left, and nobody else's context is touched."""

from __future__ import annotations

import contextlib
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fcnedge.runtime import BackendError, Bundle
from fcnedge.runtime.cuda.device import Device
from fcnedge.runtime.cuda.paint import Paint
from fcnedge.runtime.cuda.pipeline import FramePipeline

from .conftest import ColourNetwork, frame_of, opened


def test_close_frees_everything_and_the_network_once(cuda, bundle):
    network = ColourNetwork(cuda, bundle.manifest)
    pipeline = FramePipeline(Device(), network, bundle.manifest)
    pipeline.segment(frame_of(40, 50))
    pipeline.infer(np.zeros((1, 32, 48, 3), np.uint8))
    pipeline.close()
    pipeline.close()
    assert cuda.alive == {}
    assert network.closed == 1
    for call in (lambda: pipeline.segment(frame_of(9, 9)), lambda: pipeline.infer(np.zeros((1, 32, 48, 3), np.uint8))):
        with pytest.raises(BackendError, match="is closed; open another Segmenter"):
            call()


def test_whatever_fails_while_opening_or_closing_nothing_is_left(cuda, bundle):
    """What a failing close leaves, the device's own takes away."""
    opened(cuda, bundle).close()
    for n in range(1, 200):
        network = ColourNetwork(cuda, bundle.manifest)
        device = Device()
        cuda.fail_at = n
        with contextlib.suppress(BackendError):
            FramePipeline(device, network, bundle.manifest).close()
        done, cuda.fail_at = cuda.fail_at > 0, None
        device.close()
        gc.collect()
        assert cuda.alive == {}, n
        assert cuda.cuda_stack == []
        assert network.closed == 1
        if done:
            assert n > 40
            return
    pytest.fail("never done")


@pytest.mark.parametrize("integrated", [False, True])
def test_whatever_fails_in_a_frame_the_next_one_is_right_and_nothing_is_left(cuda, bundle, integrated):
    """At the first frame, of a size that has no buffers yet, with overlay: every call there is fails once."""
    cuda.integrated = integrated
    frame, other = frame_of(40, 50), frame_of(30, 20)
    expected = opened(cuda, bundle).segment(frame).mask
    for n in range(1, 200):
        device = Device()
        pipeline = FramePipeline(device, ColourNetwork(cuda, bundle.manifest), bundle.manifest)
        pipeline.segment(other)
        cuda.fail_at = n
        with contextlib.suppress(BackendError):
            pipeline.segment(frame, paint=Paint())
        done, cuda.fail_at = cuda.fail_at > 0, None
        assert cuda.cuda_stack == []
        assert (pipeline.segment(frame).mask == expected).all(), n
        pipeline.close()
        device.close()
        gc.collect()
        assert cuda.alive == {}, n
        if done:
            assert n > 20
            return
    pytest.fail("never done")


@pytest.mark.parametrize(
    ("stuck", "said"), [(True, r"cannot be used: Context\.push failed"), (False, r"failed: Event\.record failed")]
)
def test_lost_gpu_is_one_error_and_closes_quietly(cuda, bundle, stuck, said):
    device = Device()
    network = ColourNetwork(cuda, bundle.manifest)
    pipeline = FramePipeline(device, network, bundle.manifest)
    pipeline.segment(frame_of(40, 50))
    cuda.lost, cuda.stuck = True, stuck
    with pytest.raises(BackendError, match=rf"Orin {said}: unspecified launch failure; use the CPU, or start"):
        pipeline.segment(frame_of(40, 50))
    pipeline.close()
    device.close()
    assert network.closed == 1
    assert cuda.pycuda_stack == []
    if not stuck:
        del pipeline, device
        gc.collect()
        assert cuda.warned == 0


def test_full_memory_names_the_frame_and_smaller_frames_go_on(cuda, bundle):
    pipeline = opened(cuda, bundle)
    cuda.total = cuda.memory + 100_000
    with pytest.raises(BackendError, match=r"Orin has no memory left for the frame: 3\.0 MB needed, 0\.1 MB of"):
        pipeline.segment(np.zeros((1000, 1000, 3), np.uint8))
    assert pipeline.segment(frame_of(40, 50)).mask.shape == (40, 50)


def test_frame_that_does_not_fit_takes_no_memory(cuda, bundle):
    """There is room for its first buffer and not for its second; the exception is kept, as applications do."""
    pipeline = opened(cuda, bundle)
    memory, cuda.total = cuda.memory, cuda.memory + 4_000_000
    with pytest.raises(BackendError, match=r"no memory left for the frame: 3\.0 MB needed, 1\.0 MB of") as kept:
        pipeline.segment(np.zeros((1000, 1000, 3), np.uint8))
    assert kept
    assert cuda.memory == memory


def test_foreign_context_is_current_again_after_each_call(cuda, bundle):
    cuda.cuda_stack.append("theirs")
    pipeline = opened(cuda, bundle)
    for call in (lambda: pipeline.segment(frame_of(40, 50)), pipeline.close):
        assert cuda.cuda_stack == ["theirs"]
        call()
    assert cuda.cuda_stack == ["theirs"]
    assert cuda.alive == {}


def test_threads_take_turns_and_get_their_own_masks(cuda, bundle):
    frames = [frame_of(30 + 10 * (index % 3), 50) for index in range(24)]
    pipeline = opened(cuda, bundle)
    expected = [pipeline.segment(frame).mask for frame in frames]
    with ThreadPoolExecutor(4) as pool:
        masks = list(pool.map(lambda frame: pipeline.segment(frame).mask, frames))
    assert all((mask == other).all() for mask, other in zip(masks, expected, strict=True))
    closer = threading.Thread(target=pipeline.close)
    closer.start()
    closer.join()
    assert cuda.alive == {}


def test_two_pipelines_in_one_process_do_not_disturb_each_other(tmp_path, write_bundle, cuda):
    bundles = [
        Bundle.load(write_bundle(tmp_path / name, size=size)) for name, size in (("a", (32, 48)), ("b", (64, 64)))
    ]
    pipelines = [opened(cuda, bundle) for bundle in bundles]
    assert len({pipeline._stream.handle for pipeline in pipelines}) == 2
    frame = frame_of(64, 96)
    first = [pipeline.segment(frame).mask for pipeline in pipelines]
    with ThreadPoolExecutor(2) as pool:
        again = list(pool.map(lambda index: pipelines[index % 2].segment(frame).mask, range(20)))
    assert all((mask == first[index % 2]).all() for index, mask in enumerate(again))
    pipelines[0].close()
    assert (pipelines[1].segment(frame).mask == first[1]).all()
    pipelines[1].close()
    assert cuda.alive == {}
