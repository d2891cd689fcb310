"""Warm-up is found where it ends, however long it is, and not invented where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnedge.benchmarks.timing.statistics import find_drift
from fcnedge.benchmarks.timing.warm_up import HEAD_FRAMES, find_warm_up


def steady(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(20, 0.2, count)


@given(st.integers(1, 45), st.floats(1.5, 50))
def test_slow_start_is_left_out_whole_and_nothing_else(slow, factor):
    times = steady(250)
    times[:slow] *= factor
    found = find_warm_up(times)
    assert found.settled
    assert slow <= found.frames <= slow + HEAD_FRAMES


def test_start_that_settles_slowly_is_left_out_until_it_is_within_the_tolerance():
    times = 20 + 60 * np.exp(-np.arange(300) / 15)
    found = find_warm_up(times)
    assert found.settled
    assert times[found.frames] < 1.2 * 20
    assert times[found.frames // 2] > 1.2 * 20


def test_start_that_is_slow_for_longer_than_the_rule_looks_ahead_is_left_to_drift():
    times = steady(400)
    times[:200] *= 2
    assert find_warm_up(times).frames == 0
    assert find_drift(times).drifted


def test_noise_of_other_programs_does_not_keep_a_run_from_settling():
    """Every other frame takes half as long again: medians of ten jump about, and no stretch is slower than the next."""
    times = steady(300) * np.random.default_rng(8).choice([1.0, 1.5], 300)
    found = find_warm_up(times)
    assert found.settled
    assert found.frames < 40


def test_single_slow_first_frame_is_left_out_although_no_median_sees_it():
    times = np.concatenate([[400.0], steady(200)])
    assert find_warm_up(times).frames == 1


def test_steady_run_loses_no_frame():
    assert find_warm_up(np.full(100, 20.0)).frames == 0


def test_clocks_that_fall_slowly_are_drift_and_not_warm_up():
    """3% over 60 frames: each stretch is as fast as the next one, within the tolerance."""
    found = find_warm_up(20 * 1.0005 ** np.arange(600))
    assert (found.frames, found.settled) == (0, True)


def test_run_that_never_settles_keeps_all_frames_and_says_so():
    found = find_warm_up(20 * 1.02 ** np.arange(200))
    assert (found.frames, found.settled) == (0, False)
    assert found.reason == "no 10 of 200 frames were as fast as the 50 after them"


@pytest.mark.parametrize("count", [0, 1, 11])
def test_too_few_frames_are_said_to_be_too_few(count):
    found = find_warm_up(steady(count))
    assert (found.frames, found.settled) == (0, False)
    assert found.reason == f"{count} frames are too few to tell warm-up from run"


def test_short_run_can_still_leave_out_its_first_frames():
    times = steady(30)
    times[:3] = 300
    assert find_warm_up(times).frames in (3, 4)


@given(st.integers(60, 200), st.integers(0, 40))
def test_more_frames_do_not_change_where_warm_up_ended(count, slow):
    """So that a run may stop as soon as it is found."""
    times = steady(300, seed=slow)
    times[:slow] *= 3
    early = find_warm_up(times[:count])
    if early.settled:
        assert find_warm_up(times).frames == early.frames
