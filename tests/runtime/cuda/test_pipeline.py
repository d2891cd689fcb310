"""Frame in, mask out through a stand-in for the GPU: the CPU's masks, nothing allocated on the way, nothing left."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import importlib.util
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fcnedge.runtime import BackendError, Bundle, Segmenter, UserError, blend
from fcnedge.runtime.backends import FakeBackend
from fcnedge.runtime.cuda import reference as kernel_reference
from fcnedge.runtime.cuda.captured_network import CapturedNetwork
from fcnedge.runtime.cuda.device import Device
from fcnedge.runtime.cuda.paint import Paint
from fcnedge.runtime.cuda.pipeline import GPU_STAGES, FramePipeline, check_frame_path
from fcnedge.runtime.palette import full_palette

SPEC = importlib.util.spec_from_file_location("fake_pycuda", Path(__file__).with_name("fake_pycuda.py"))
fake_pycuda = sys.modules.setdefault("fake_pycuda", importlib.util.module_from_spec(SPEC))
if not hasattr(fake_pycuda, "FakeCuda"):
    SPEC.loader.exec_module(fake_pycuda)
cpu_library, fake_nvcc, cuda = fake_pycuda.cpu_library, fake_pycuda.fake_nvcc, fake_pycuda.cuda

TAKEN = {"mem_alloc", "pagelocked_empty", "Stream", "Event", "module_from_buffer", "Module.get_function"}
RANDOM = np.random.default_rng(7)


class ColourNetwork:
    """A DeviceNetwork on the stand-in: FakeBackend's scores, a little of the brightness added so that cells differ."""

    name, precision = "colours", "fp32"

    def __init__(self, cuda, manifest, dtype=np.float32):
        self.cuda, self.manifest, self.closed = cuda, manifest, 0
        size, head = (manifest.input.height, manifest.input.width), manifest.head
        self.image_shape = (1, *size, 3)
        self.output_dtype = np.dtype(np.uint8 if head.kind == "labels" else dtype)
        self.output_shape = (1, *size)
        if head.kind == "bilinear":
            self.output_shape = (1, len(manifest.classes), size[0] // head.stride, size[1] // head.stride)

    def bind(self, image_address, output_address, stream_handle):
        self.cuda.call("bind", stream_handle)
        self.addresses, self.stream = (image_address, output_address), stream_handle

    def enqueue(self):
        self.cuda.enqueue(self.stream, "network", self.run)

    def run(self):
        image = self.cuda.at(self.addresses[0], int(np.prod(self.image_shape))).reshape(self.image_shape)
        output = self.infer(image)
        self.cuda.at(self.addresses[1], output.nbytes)[...] = output.reshape(-1).view(np.uint8)

    def infer(self, image):
        """As `Backend.infer`: the reference for what the GPU path shall give."""
        output = FakeBackend(self.manifest).infer(image)
        if self.output_dtype == np.uint8:
            return output
        stride = self.manifest.head.stride
        grey = image[0, ::stride, ::stride, 1].astype(np.float32)[: output.shape[2], : output.shape[3]]
        weights = np.arange(output.shape[1])[:, None, None] % 3
        return (output + weights * grey / 512).astype(self.output_dtype)

    def close(self):
        self.closed += 1


class Overflowing(ColourNetwork):
    """NaN for scores, 9 for labels."""

    def infer(self, image):
        value = 9 if self.output_dtype == np.uint8 else np.nan
        return np.full(self.output_shape, value, self.output_dtype)


def frame_of(height: int, width: int) -> np.ndarray:
    """Coloured patches of many sizes."""
    frame = np.zeros((height, width, 3), np.uint8)
    for _ in range(12):
        top, left = RANDOM.integers(height), RANDOM.integers(width)
        frame[top : top + height // 3 + 1, left : left + width // 3 + 1] = RANDOM.integers(0, 256, 3)
    return frame


@pytest.fixture
def bundle(tmp_path, write_bundle) -> Bundle:
    return Bundle.load(write_bundle(tmp_path / "b"))


def opened(cuda, bundle, kind=ColourNetwork, **more) -> FramePipeline:
    return FramePipeline(Device(), kind(cuda, bundle.manifest, **more), bundle.manifest)


def reference(cuda, bundle, **more) -> Segmenter:
    return Segmenter(bundle, ColourNetwork(cuda, bundle.manifest, **more))


# Masks


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_masks_are_those_of_the_cpu(tmp_path, write_bundle, cuda, fit, dtype, integrated):
    """Sizes with equal grid positions in float64: anywhere else a label may differ by rounding."""
    cuda.integrated = integrated
    bundle = Bundle.load(write_bundle(tmp_path / "b", size=(64, 96), fit=fit))
    expected, pipeline = reference(cuda, bundle, dtype=dtype), opened(cuda, bundle, dtype=dtype)
    for size in [(64, 96), (128, 192), (32, 48), (64, 48), (16, 96)]:
        frame = frame_of(*size)
        result = pipeline.segment(frame)
        assert (result.mask.shape, result.mask.dtype) == (size, np.uint8)
        assert (result.mask == expected(frame)).all()
    assert len(np.unique(result.mask)) > 1


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("size", [(64, 96), (31, 47), (100, 30), (1, 1), (480, 640)])
def test_labels_of_a_labels_head_are_resized_as_on_the_cpu(tmp_path, write_bundle, cuda, size, integrated):
    cuda.integrated = integrated
    bundle = Bundle.load(write_bundle(tmp_path / "b", size=(64, 96), fit="letterbox", head="labels"))
    frame = frame_of(*size)
    assert (opened(cuda, bundle).segment(frame).mask == reference(cuda, bundle)(frame)).all()


def test_class_that_the_bundle_has_not_is_refused(tmp_path, write_bundle, cuda):
    bundle = Bundle.load(write_bundle(tmp_path / "b", head="labels"))
    with pytest.raises(BackendError, match=r"gives class 9, model\.json has 8 classes"):
        opened(cuda, bundle, Overflowing).segment(frame_of(9, 9))


def test_scores_that_overflowed_are_refused(cuda, bundle):
    with pytest.raises(UserError, match="scores hold NaN or infinity"):
        opened(cuda, bundle, Overflowing).segment(frame_of(9, 9))


@pytest.mark.parametrize("integrated", [False, True])
def test_memory_layout_of_the_frame_does_not_matter(cuda, bundle, integrated):
    cuda.integrated = integrated
    big, pipeline = frame_of(100, 140), opened(cuda, bundle)
    views = [big[:50, :70][:, ::-1], big[::2, ::2], np.rot90(big[:70, :50]), big[:50, :70, ::-1]]
    read_only = np.frombuffer(big[:50, :70].tobytes(), np.uint8).reshape(50, 70, 3)
    for view in (*views, read_only, np.asfortranarray(big[:50, :70])):
        before = view.copy()
        assert (pipeline.segment(view).mask == pipeline.segment(before).mask).all()
        assert (view == before).all()


def test_mask_is_the_callers_own(cuda, bundle):
    pipeline = opened(cuda, bundle)
    first = pipeline.segment(frame_of(40, 40)).mask
    before = first.copy()
    pipeline.segment(255 - frame_of(40, 40))
    pipeline.close()
    assert (first == before).all()
    first[...] = 0  # and may be written to


@pytest.mark.parametrize("head", ["bilinear", "labels"])
def test_mask_goes_where_the_caller_wants_it(tmp_path, write_bundle, cuda, head):
    bundle = Bundle.load(write_bundle(tmp_path / "b", head=head))
    frame, pipeline = frame_of(40, 50), opened(cuda, bundle)
    big = np.full((60, 120), 99, np.uint8)
    out = big[10:50, 10:110:2]  # any memory layout
    assert pipeline.segment(frame, out=out).mask is out
    assert (out == pipeline.segment(frame).mask).all()
    assert (big[:10] == 99).all()


@pytest.mark.parametrize("out", [np.zeros((40, 51), np.uint8), np.zeros((40, 50), np.int8), np.zeros((40, 50), bool)])
def test_out_of_another_kind_is_refused(cuda, bundle, out):
    with pytest.raises(UserError, match=r"it must be uint8 \(40, 50\), the frame's size"):
        opened(cuda, bundle).segment(frame_of(40, 50), out=out)


def test_read_only_out_is_refused(cuda, bundle):
    out = np.zeros((40, 50), np.uint8)
    out.flags.writeable = False
    with pytest.raises(UserError, match="to write to"):
        opened(cuda, bundle).segment(frame_of(40, 50), out=out)


@pytest.mark.parametrize("frame", [None, np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8)])
def test_frame_of_another_kind_is_refused(cuda, bundle, frame):
    with pytest.raises(UserError, match=r"a frame is a NumPy array \(H, W, 3\) uint8"):
        opened(cuda, bundle).segment(frame)


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("head", ["bilinear", "labels"])
def test_overlay_has_the_classes_colours(tmp_path, write_bundle, cuda, head, integrated):
    cuda.integrated = integrated
    bundle = Bundle.load(write_bundle(tmp_path / "b", head=head))
    pipeline, palette = opened(cuda, bundle), np.array(bundle.manifest.palette, np.uint8)
    for paint in (Paint(), Paint(0.25, (1, 4)), Paint(1.0, ())):
        frame = frame_of(45, 51)
        before = frame.copy()
        result = pipeline.segment(frame, paint=paint)
        if head == "labels":  # painted on the CPU
            expected = blend(frame, result.mask, palette, alpha=paint.alpha, ignore=paint.ignore)
        else:
            painted = np.ones(256, np.uint8)
            painted[[*paint.ignore, 255]] = 0
            colours = full_palette(palette)[:, ::-1]
            expected = kernel_reference.overlay(frame, result.mask, colours, painted, paint.alpha)
        assert (result.overlay == expected).all()
        assert (frame == before).all()
        assert (pipeline.segment(frame).mask == result.mask).all()
        assert pipeline.segment(frame).overlay is None


@pytest.mark.parametrize(("alpha", "ignore"), [(1.1, ()), (float("nan"), ()), (0.5, (256,)), (0.5, (-1,))])
def test_paint_that_cannot_be_is_refused(alpha, ignore):
    with pytest.raises(UserError):
        Paint(alpha, ignore)


def test_infer_gives_the_networks_output(cuda, bundle):
    image = RANDOM.integers(0, 256, (1, 32, 48, 3), np.uint8)
    pipeline = opened(cuda, bundle)
    scores = pipeline.infer(image[:, ::-1])
    assert (scores == ColourNetwork(cuda, bundle.manifest).infer(image[:, ::-1])).all()
    pipeline.infer(255 - image)
    assert (scores == ColourNetwork(cuda, bundle.manifest).infer(image[:, ::-1])).all()
    for wrong in (image[0], image.astype(np.float32), image[:, :16]):
        with pytest.raises(BackendError, match=r"the network takes uint8 \(1, 32, 48, 3\)"):
            pipeline.infer(wrong)


# What is asked of the GPU


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


# The end


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


def test_lost_gpu_is_one_error_and_closes_quietly(cuda, bundle):
    network = ColourNetwork(cuda, bundle.manifest)
    pipeline = FramePipeline(Device(), network, bundle.manifest)
    pipeline.segment(frame_of(40, 50))
    cuda.lost = True
    with pytest.raises(BackendError, match=r"Orin cannot be used: Context\.push failed: unspecified launch failure"):
        pipeline.segment(frame_of(40, 50))
    pipeline.close()
    assert network.closed == 1
    assert cuda.pycuda_stack == []


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


# Together with others


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


# CUDA graphs


class RecordingDriver:
    """libcuda's six calls for graphs. refuses: the call that gives an error."""

    def __init__(self, cuda, refuses=""):
        self.cuda, self.refuses, self.calls, self.capturing = cuda, refuses, [], None

    def _answer(self, name):
        self.calls.append(name)
        return 900 if name == self.refuses else 0

    def cuStreamBeginCapture_v2(self, stream, mode):  # noqa: N802 - CUDA's own names
        assert mode == 1
        self.stream, self.before = stream.value, len(self.cuda.streams[stream.value])
        return self._answer("begin")

    def cuStreamEndCapture(self, stream, graph):  # noqa: N802
        work = self.cuda.streams[stream.value]
        self.captured = work[self.before :]
        del work[self.before :]  # captured work does not run
        if self.refuses != "end":
            graph._obj.value = 0x61
        return self._answer("end")

    def cuGraphInstantiateWithFlags(self, replay, graph, flags):  # noqa: N802
        assert (graph.value, flags.value) == (0x61, 0)
        replay._obj.value = 0x62
        return self._answer("instantiate")

    def cuGraphLaunch(self, replay, stream):  # noqa: N802
        assert isinstance(replay, ctypes.c_void_p)
        assert replay.value == 0x62
        self.cuda.streams[stream.value].extend(self.captured)
        return self._answer("launch")

    def cuGraphDestroy(self, graph):  # noqa: N802
        return self._answer("destroy graph")

    def cuGraphExecDestroy(self, replay):  # noqa: N802
        return self._answer("destroy replay")


def captured(cuda, bundle, driver) -> tuple[FramePipeline, CapturedNetwork]:
    network = CapturedNetwork(ColourNetwork(cuda, bundle.manifest), driver)
    return FramePipeline(Device(), network, bundle.manifest), network


def test_second_frame_is_recorded_and_later_ones_are_replayed(cuda, bundle):
    driver, expected = RecordingDriver(cuda), opened(cuda, bundle)
    pipeline, network = captured(cuda, bundle, driver)
    for index in range(5):
        frame = frame_of(40 + index % 2, 50)  # other sizes too: the network's addresses are the same
        assert (pipeline.segment(frame).mask == expected.segment(frame).mask).all()
    assert driver.calls == ["begin", "end", "instantiate", "destroy graph", *["launch"] * 4]
    del cuda.calls[:]
    pipeline.segment(frame_of(40, 50))
    assert "network" not in cuda.names()
    assert network.captured
    pipeline.close()
    assert driver.calls[-1] == "destroy replay"


@pytest.mark.parametrize("refuses", ["begin", "end", "instantiate"])
def test_network_that_cannot_be_recorded_runs_as_it_is(cuda, bundle, refuses, caplog):
    driver = RecordingDriver(cuda, refuses)
    (pipeline, network), expected = captured(cuda, bundle, driver), opened(cuda, bundle)
    with caplog.at_level("INFO"):
        for _ in range(4):
            frame = frame_of(40, 50)
            assert (pipeline.segment(frame).mask == expected.segment(frame).mask).all()
    assert driver.calls.count("begin") == 1
    assert "launch" not in driver.calls
    assert "not recorded in a CUDA graph" in caplog.text
    assert not network.captured
    pipeline.close()


def test_network_that_fails_while_recorded_ends_the_capture(cuda, bundle):
    driver = RecordingDriver(cuda)
    network = ColourNetwork(cuda, bundle.manifest)
    pipeline = FramePipeline(Device(), CapturedNetwork(network, driver), bundle.manifest)
    pipeline.segment(frame_of(40, 50))
    network.enqueue = lambda: (_ for _ in ()).throw(BackendError("not capturable"))
    with pytest.raises(BackendError, match="not capturable"):
        pipeline.segment(frame_of(40, 50))
    assert driver.calls == ["begin", "end", "destroy graph"]
    del network.enqueue
    pipeline.segment(frame_of(40, 50))


def test_replay_that_fails_is_one_error(cuda, bundle):
    driver = RecordingDriver(cuda)
    pipeline, _ = captured(cuda, bundle, driver)
    pipeline.segment(frame_of(40, 50))
    driver.refuses = "launch"
    with pytest.raises(BackendError, match="cuGraphLaunch gives error 900"):
        pipeline.segment(frame_of(40, 50))


def test_machine_without_libcuda_records_nothing(cuda, bundle, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError(f"{name}: not found")))
    pipeline, network = captured(cuda, bundle, None)
    for _ in range(3):
        pipeline.segment(frame_of(40, 50))
    assert not network.captured
