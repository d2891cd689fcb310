"""mIoU of a graph in a bundle, against sets of pixels counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fcnedge.build_engine.labelled_accuracy import mean_iou
from fcnedge.calibration.voc import read_voc
from fcnedge.runtime import Bundle, Segmenter
from fcnedge.runtime.errors import UserError


def test_miou_is_the_mean_over_classes_that_occur(lite0_bundle, voc_folder):
    bundle, samples = Bundle.load(lite0_bundle), read_voc(voc_folder, "val")
    with Segmenter(lite0_bundle, "onnxruntime") as segment:
        found = np.concatenate([segment(sample.read_image()).ravel() for sample in samples])
    truth = np.concatenate([sample.read_mask().ravel() for sample in samples])
    found, truth = found[truth != 255], truth[truth != 255]
    shares = [
        np.sum((found == name) & (truth == name)) / np.sum((found == name) | (truth == name)) for name in (0, 1, 2)
    ]
    assert 0 < np.mean(shares) < 1
    assert mean_iou(bundle, bundle.model("fp32"), samples) == pytest.approx(np.mean(shares), rel=1e-12)


def test_masks_that_are_all_void_are_refused(lite0_bundle, voc_folder, monkeypatch):
    bundle, samples = Bundle.load(lite0_bundle), read_voc(voc_folder, "val")
    void = {sample.name: np.full_like(sample.read_mask(), 255) for sample in samples}
    monkeypatch.setattr(type(samples[0]), "read_mask", lambda self: void[self.name])
    with pytest.raises(UserError, match="no pixel of 3 masks counts, all are void or of other classes; choose another"):
        mean_iou(bundle, bundle.model("fp32"), samples)
