"""What a user writes by hand, against the reference for the arithmetic and against masks written out."""

from __future__ import annotations

import numpy as np
import pytest

from fcnedge.benchmarks.peers.hand_work import HandWork, enlarge
from fcnedge.runtime.manifest import InputSpec
from fcnedge.runtime.preprocessing import Preprocessing


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_pixels_are_normalised_as_the_network_was_trained(order):
    preprocessing = Preprocessing(order, (10.0, 20.0, 30.0), (0.5, 0.25, 2.0))
    frame = np.random.default_rng(1).integers(0, 256, (32, 64, 3), np.uint8)
    found, content = HandWork(InputSpec(32, 64), preprocessing).prepare(frame)
    assert (found.dtype, found.shape, content) == (np.float32, (1, 32, 64, 3), (32, 64))
    np.testing.assert_array_equal(found[0], preprocessing.apply(frame))


def test_a_letterboxed_frame_gets_its_own_part_of_the_mask():
    hand = HandWork(InputSpec(4, 4, "letterbox"), Preprocessing("bgr", (0.0,) * 3, (1.0,) * 3))
    frame = np.zeros((4, 8, 3), np.uint8)  # at 4x4 it takes the upper half
    pixels, content = hand.prepare(frame)
    assert content == (2, 4)
    assert (pixels[0, 2:] == 127).all()
    scores = np.zeros((1, 4, 4, 3), np.float32)
    scores[0, :2, :2, 1] = 1  # class 1 at the upper left, 2 in what the frame does not take
    scores[0, 2:, :, 2] = 1
    np.testing.assert_array_equal(hand.mask(scores, frame, content), np.repeat([[1, 1, 1, 1, 0, 0, 0, 0]], 4, axis=0))


def test_enlarging_keeps_ids():
    labels = np.array([[0, 20], [7, 3]], np.uint8)
    np.testing.assert_array_equal(
        enlarge(labels, np.zeros((4, 6, 3), np.uint8), (2, 2)), labels.repeat(2, axis=0).repeat(3, axis=1)
    )
