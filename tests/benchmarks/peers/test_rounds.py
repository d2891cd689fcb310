"""Ratios of rows in turns, on times whose true ratio is known."""

from __future__ import annotations

import numpy as np
import pytest

from fcnedge.benchmarks.peers.rounds import paired_ratio

ROUNDS, FRAMES = 15, 8


def noisy(random: np.random.Generator, ms: float) -> np.ndarray:
    """Times with noise of 5% that has a long tail, as latencies do."""
    return ms * np.exp(np.abs(random.normal(0, 0.05, (ROUNDS, FRAMES))))


def test_ratio_of_known_times_is_found():
    found = paired_ratio(np.full((4, 3), 30.0), np.full((4, 3), 10.0))
    assert (found.ratio, found.low, found.high) == (3.0, 3.0, 3.0)


def test_what_slows_a_whole_round_cancels():
    random = np.random.default_rng(1)
    busy = random.uniform(1, 10, (ROUNDS, 1))
    reference, row = noisy(random, 10), noisy(random, 25)
    assert paired_ratio(row * busy, reference * busy).ratio == pytest.approx(paired_ratio(row, reference).ratio)


def test_pictures_that_take_longer_cancel():
    reference = np.tile(np.arange(1.0, FRAMES + 1), (ROUNDS, 1))
    found = paired_ratio(2 * reference, reference)
    assert (found.ratio, found.low, found.high) == (2.0, 2.0, 2.0)


def test_interval_holds_the_true_ratio_about_as_often_as_it_says():
    """95% is what it says; blocks of so few rounds make it somewhat narrow."""
    random = np.random.default_rng(2)
    held = 0
    for _ in range(100):
        shared = np.exp(random.normal(0, 0.03, (ROUNDS, 1)))  # of the row alone, the same for all frames of a round
        found = paired_ratio(noisy(random, 25) * shared, noisy(random, 10))
        held += found.low <= 2.5 <= found.high
    assert 80 <= held <= 100


def test_interval_is_narrower_with_less_noise():
    random = np.random.default_rng(3)
    calm, wild = (
        paired_ratio(25 * np.exp(random.normal(0, sigma, (9, 8))), np.full((9, 8), 10.0)) for sigma in (0.01, 0.1)
    )
    assert calm.high - calm.low < (wild.high - wild.low) / 3


def test_only_frames_that_both_rows_have_count():
    row, reference = np.full((3, 2), 20.0), np.full((3, 2), 10.0)
    row[0], reference[1] = np.nan, np.nan
    row[1] = 1000.0  # the reference has nothing there
    assert paired_ratio(row, reference).ratio == 2.0


def test_rows_without_a_common_frame_have_no_ratio():
    nothing = np.full((3, 2), np.nan)
    assert paired_ratio(nothing, np.ones((3, 2))) is None
