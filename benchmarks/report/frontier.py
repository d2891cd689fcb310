"""Which of several choices are worth having: the Pareto frontier of time against quality."""

from __future__ import annotations

from collections.abc import Sequence


def on_frontier(points: Sequence[tuple[float, float]]) -> tuple[bool, ...]:
    """Per point (cost, quality): whether no other is as good and cheaper, or better and as cheap; of equals, all."""
    return tuple(
        not any(
            (other_cost <= cost and other_quality > quality) or (other_cost < cost and other_quality >= quality)
            for other_cost, other_quality in points
        )
        for cost, quality in points
    )
