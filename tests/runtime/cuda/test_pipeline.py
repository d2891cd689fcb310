"""Frame in, mask out through a stand-in for the GPU: the CPU's masks, overlays and scores."""

from __future__ import annotations

import numpy as np
import pytest

from fcnedge.runtime import BackendError, Bundle, UserError, blend
from fcnedge.runtime.cuda import reference as kernel_reference
from fcnedge.runtime.cuda.paint import Paint
from fcnedge.runtime.palette import full_palette

from .conftest import RANDOM, ColourNetwork, Overflowing, frame_of, opened, reference


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
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_point_masks_are_those_of_the_cpu_at_any_size(tmp_path, write_bundle, cuda, fit, integrated):
    cuda.integrated = integrated
    bundle = Bundle.load(write_bundle(tmp_path / "b", size=(64, 96), fit=fit))
    expected, pipeline = reference(cuda, bundle, "point"), opened(cuda, bundle, filter_mode="point")
    linear = opened(cuda, bundle)
    for size in [(64, 96), (31, 47), (100, 30), (480, 640), (1, 1), (64, 95)]:
        frame = frame_of(*size)
        assert (pipeline.segment(frame).mask == expected(frame)).all()
    assert (pipeline.segment(frame).mask != linear.segment(frame).mask).any()


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("size", [(64, 96), (31, 47), (100, 30), (1, 1), (480, 640)])
def test_labels_of_a_labels_head_are_resized_as_on_the_cpu(tmp_path, write_bundle, cuda, size, integrated):
    cuda.integrated = integrated
    bundle = Bundle.load(write_bundle(tmp_path / "b", size=(64, 96), fit="letterbox", head="labels"))
    frame = frame_of(*size)
    expected = reference(cuda, bundle)(frame)
    assert (reference(cuda, bundle, "point")(frame) == expected).all()
    for filter_mode in ("linear", "point"):
        assert (opened(cuda, bundle, filter_mode=filter_mode).segment(frame).mask == expected).all()


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
