"""The Pareto frontier against its definition, spelled out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fcnedge.benchmarks.report.frontier import on_frontier

_POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


def test_cheaper_and_better_ones_are_on_it():
    assert on_frontier([(10, 80.5), (5, 80.4), (12, 80.3), (5, 79.0)]) == (True, True, False, False)


def test_equals_are_all_on_it():
    assert on_frontier([(5, 80.0), (5, 80.0)]) == (True, True)


@given(_POINTS)
def test_whoever_is_off_it_is_beaten_by_one_on_it(points):
    best = on_frontier(points)
    front = [point for point, on in zip(points, best, strict=True) if on]
    assert front
    for (cost, quality), on in zip(points, best, strict=True):
        beaten = any(other[0] <= cost and other[1] >= quality and other != (cost, quality) for other in front)
        assert beaten != on
