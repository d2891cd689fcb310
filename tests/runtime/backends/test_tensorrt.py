"""The TensorRT backend on stand-ins for pycuda and TensorRT: whole frames, a lost GPU, and nothing left behind."""

from __future__ import annotations

import gc

import pytest

from fcnedge.runtime import BackendError, Bundle, Segmenter
from fcnedge.runtime.backends import FrameBackend, TensorRtBackend

from .conftest import noise, with_engine

pytest.importorskip("onnxruntime", reason="the extra cpu is not installed")


@pytest.fixture
def bundle(tiny_bundle) -> Bundle:
    return with_engine(tiny_bundle)


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("head", ["bilinear", "labels"])
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_masks_are_those_of_onnxruntime(tmp_path, write_bundle, cuda, trt, fit, head, integrated):
    cuda.integrated = integrated
    bundle = with_engine(write_bundle(tmp_path / "b", size=(64, 96), fit=fit, head=head))
    with Segmenter(bundle, "tensorrt") as segment, Segmenter(bundle, "onnxruntime") as reference:
        for size in [(64, 96), (128, 192), (64, 48), (32, 96)]:
            assert (segment(noise(*size)) == reference(noise(*size))).all()
        image = noise(64, 96)[None]
        assert (segment.backend.infer(image) == reference.backend.infer(image)).all()
    gc.collect()
    assert cuda.alive == {}
    assert trt.alive == []


@pytest.mark.parametrize("head", ["bilinear", "labels"])
def test_point_masks_are_those_of_onnxruntime_at_any_size(tmp_path, write_bundle, cuda, trt, head):
    bundle = with_engine(write_bundle(tmp_path / "b", size=(64, 96), fit="letterbox", head=head))
    with (
        Segmenter(bundle, "tensorrt", filter_mode="point") as segment,
        Segmenter(bundle, "onnxruntime", filter_mode="point") as reference,
        Segmenter(bundle, "tensorrt") as linear,
    ):
        for size in [(64, 96), (37, 101), (480, 640)]:
            mask = segment(noise(*size))
            assert (mask == reference(noise(*size))).all()
        assert (mask != linear(noise(*size))).any() == (head == "bilinear")
        assert isinstance(segment.backend, TensorRtBackend)
        assert segment.backend.filter_mode == "point"


def test_it_is_a_backend_for_whole_frames(bundle, trt):
    with Segmenter(bundle, TensorRtBackend(bundle)) as segment:
        assert isinstance(segment.backend, FrameBackend)
        result = segment.segment(noise(40, 50))
        assert result.gpu_ms["network"] > 0
        assert (segment.backend.name, segment.backend.precision) == ("tensorrt", "fp32")


def test_network_runs_on_the_pipelines_own_stream_and_takes_nothing_per_frame(bundle, cuda, trt):
    backend = TensorRtBackend(bundle)
    backend.segment(noise(40, 50))
    alive, parts = dict(cuda.alive), list(trt.alive)
    del cuda.calls[:]
    for _ in range(5):
        backend.segment(noise(40, 50))
    (handle,) = {details for name, details in cuda.calls if name == "execute_async_v3"}
    assert handle in [number for number, what in cuda.alive.items() if what == "Stream"]
    assert {"set_tensor_address", "mem_alloc", "pagelocked_empty"}.isdisjoint(cuda.names())
    assert (cuda.alive, trt.alive) == (alive, parts)
    backend.close()


def test_two_backends_in_one_process(tmp_path, write_bundle, cuda, trt):
    sizes = {"a": (32, 48), "b": (64, 64)}
    bundles = [with_engine(write_bundle(tmp_path / name, size=size)) for name, size in sizes.items()]
    first, second = (TensorRtBackend(bundle) for bundle in bundles)
    frame = noise(64, 96)
    expected = [Segmenter(bundle, "onnxruntime")(frame) for bundle in bundles]
    assert (first.segment(frame).mask == expected[0]).all()
    first.close()
    assert (second.segment(frame).mask == expected[1]).all()
    second.close()
    gc.collect()
    assert cuda.alive == {}
    assert trt.alive == []


def test_foreign_context_is_current_again_after_everything(bundle, cuda, trt):
    cuda.cuda_stack.append("theirs")
    backend = TensorRtBackend(bundle)
    assert cuda.cuda_stack == ["theirs"]
    backend.segment(noise(40, 50))
    assert cuda.cuda_stack == ["theirs"]
    backend.close()
    assert cuda.cuda_stack == ["theirs"]


def test_closed_backend_says_so(bundle, trt):
    backend = TensorRtBackend(bundle)
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="is closed; open another Segmenter"):
        backend.segment(noise(40, 50))


def test_whatever_fails_while_opening_nothing_is_left(bundle, cuda, trt):
    TensorRtBackend(bundle).close()
    for n in range(1, 200):
        cuda.fail_at = n
        try:
            TensorRtBackend(bundle).close()
            message = "injected"
        except BackendError as error:
            message = str(error)
        assert "injected" in message
        done, cuda.fail_at = cuda.fail_at > 0, None
        gc.collect()
        assert trt.alive == [], n
        assert cuda.cuda_stack == []
        if done:
            assert n > 40
            return
        assert cuda.alive == {} or "free" in cuda.names(), n
    pytest.fail("never done")


# A GPU that is lost


def test_process_goes_on_with_the_cpu_when_asked(bundle, cuda, trt, caplog):
    frame = noise(40, 50)
    with Segmenter(bundle, "tensorrt", fallback="cpu") as segment:
        expected = segment(frame)
        cuda.lost = True
        assert (segment(frame) == expected).all()
        assert segment.backend.name in ("openvino", "onnxruntime")
        assert (segment(noise(41, 51)).shape) == (41, 51)
    assert caplog.text.count("Going on with the CPU") == 1
    assert "backend tensorrt failed: Orin" in caplog.text


def test_lost_gpu_is_an_error_each_time_when_not_asked(bundle, cuda, trt):
    with Segmenter(bundle, "tensorrt") as segment:
        segment(noise(40, 50))
        cuda.lost = True
        for said in (r"failed: Event\.record failed: unspecified launch failure", "was lost"):
            with pytest.raises(BackendError, match=rf"^Orin {said}; use the CPU, or start this program again\.$"):
                segment(noise(40, 50))


def test_engine_that_fails_on_a_frame_gives_the_librarys_reason(bundle, trt):
    backend = TensorRtBackend(bundle)
    trt.refuses = "execute_async_v3"
    with pytest.raises(
        BackendError, match=r"^TensorRT 10\.3\.0 failed on this frame \(enqueueV3: .*illegal memory.*; use the CPU"
    ):
        backend.segment(noise(40, 50))
    trt.refuses = ""
    assert backend.segment(noise(40, 50)).mask.shape == (40, 50)
    backend.close()
