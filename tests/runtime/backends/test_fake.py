"""The fake backend, so that applications can trust their own tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fcnedge.runtime import BackendError, Bundle, FakeBackend
from fcnedge.runtime.manifest import HeadSpec, InputSpec, Manifest


@pytest.fixture
def manifest(tiny_bundle) -> Manifest:
    return Bundle.load(tiny_bundle).manifest


@pytest.mark.parametrize("colour", range(8))
def test_class_is_blue_plus_two_green_plus_four_red(manifest, colour):
    blue, green, red = colour & 1, colour >> 1 & 1, colour >> 2 & 1
    for bright, dark in ((255, 0), (128, 127)):
        image = np.empty((1, 32, 48, 3), np.uint8)
        image[...] = [bright if on else dark for on in (blue, green, red)]
        scores = FakeBackend(manifest).infer(image)
        assert (scores.shape, scores.dtype) == ((1, 8, 4, 6), np.float32)
        assert (scores[0, colour] == 1).all()
        assert scores.sum() == 4 * 6


def test_only_the_centre_of_a_cell_counts(manifest):
    image = np.zeros((1, 32, 48, 3), np.uint8)
    image[0, 8 + 4, 16 + 4] = 255
    assert np.argwhere(FakeBackend(manifest).infer(image)[0, 7]).tolist() == [[1, 2]]


def test_classes_wrap_where_the_model_has_fewer(manifest):
    few = replace(manifest, classes=("background", "ball", "goal"), palette=manifest.palette[:3])
    image = np.full((1, 32, 48, 3), (255, 0, 255), np.uint8)  # class 5, of three: 2
    assert (FakeBackend(few).infer(image).argmax(axis=1) == 2).all()


def test_labels_head_gives_one_class_per_pixel(manifest):
    labels_head = replace(manifest, head=HeadSpec("labels", 8, 16))
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3), np.uint8)
    labels = FakeBackend(labels_head).infer(image)
    assert (labels.shape, labels.dtype) == ((1, 32, 48), np.uint8)
    bits = (image[0] > 127).astype(int)
    assert (labels[0] == bits[..., 0] + 2 * bits[..., 1] + 4 * bits[..., 2]).all()


@pytest.mark.parametrize("size", [(32, 48), (36, 52), (39, 55)])
def test_grid_has_whole_cells_only_as_a_graph_has(manifest, size):
    odd = replace(manifest, input=InputSpec(*size))
    assert FakeBackend(odd).infer(np.zeros((1, *size, 3), np.uint8)).shape == (1, 8, 4, 6)


def test_closed_fake_says_so(manifest):
    backend = FakeBackend(manifest)
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="the fake backend is closed"):
        backend.infer(np.zeros((1, 32, 48, 3), np.uint8))
