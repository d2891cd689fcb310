"""Times of stages: the first frame left out, the maximum of all, percentiles of the last, memory that stays."""

import numpy as np
import pytest

from fcnedge.runtime import stage_times
from fcnedge.runtime.stage_times import StageClock, StageTimes


def clock_of(times_ms):
    clock = StageClock(["head", "total"])
    for value in times_ms:
        clock.add([value, 2 * value])
    return clock


def test_no_frame_has_no_times():
    assert clock_of([]).summary() == {}


def test_single_frame_stands_for_itself():
    assert clock_of([7]).summary() == {"head": StageTimes(7, 7, 7), "total": StageTimes(14, 14, 14)}


@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 34])
def test_first_frame_is_left_out_and_the_maximum_is_of_all_others(monkeypatch, count):
    monkeypatch.setattr(stage_times, "WINDOW", 10)
    times = np.random.default_rng(count).permutation(100)[:count].astype(float)
    summary = clock_of([1000.0, *times]).summary()
    last = times[-10:]
    expected = (np.median(last), np.percentile(last, 90), times.max())
    assert summary["head"] == StageTimes(*expected)
    assert summary["total"] == StageTimes(*(2 * value for value in expected))


def test_memory_does_not_grow_with_the_stream(monkeypatch):
    import tracemalloc

    monkeypatch.setattr(stage_times, "WINDOW", 10)
    clock = clock_of(range(100))
    tracemalloc.start()
    try:
        for value in range(20_000):
            clock.add([value, value])
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 10_000  # a list of two floats per frame keeps 1.3 MB
