"""What the node's diagnostics say, by a clock that the test sets."""

from __future__ import annotations

import pytest

from fcnedge.runtime.ros2.health import Health, Level


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock) -> Health:
    return Health(clock)


def test_masks_that_come_are_all_right_and_their_times_are_told(health, clock) -> None:
    for total, age in ((10.0, 30.0), (20.0, 90.0), (30.0, None)):
        health.segmented(total, age)
    clock.now += 2.0
    report = health.report(received=5, dropped=2)
    assert (report.level, report.message) == (Level.OK, "1.5 masks per second")
    assert dict(report.values) == {
        "images received": "5",
        "images segmented": "3",
        "images dropped": "2",
        "images refused": "0",
        "images failed": "0",
        "masks per second": "1.5",
        "segmentation ms (mean)": "20.0",
        "age ms (stamp to mask, oldest)": "90.0",
    }


def test_each_report_begins_anew_but_for_the_counts(health, clock) -> None:
    health.segmented(10.0, 5.0)
    clock.now += 1
    health.report(1, 0)
    clock.now += 3
    report = health.report(1, 0)
    assert (report.level, report.message) == (Level.WARN, "no image for 4 s")
    values = dict(report.values)
    assert values["images segmented"] == "1"
    assert values["masks per second"] == "0.0"
    assert not [key for key in values if " ms " in key]


def test_silence_from_the_start_is_told_apart(health, clock) -> None:
    clock.now += 1
    report = health.report(0, 0)
    assert (report.level, report.message) == (Level.WARN, "no image has come yet")


@pytest.mark.parametrize(
    ("happened", "level", "count"),
    [("refused", Level.WARN, "images refused"), ("failed", Level.ERROR, "images failed")],
)
def test_problem_is_told_even_between_masks(health, clock, happened, level, count) -> None:
    health.segmented(10.0, 5.0)
    getattr(health, happened)("the sentence")
    health.segmented(10.0, 5.0)
    clock.now += 1
    report = health.report(3, 0)
    assert (report.level, report.message) == (level, "the sentence")
    assert dict(report.values)[count] == "1"
    health.segmented(10.0, 5.0)
    clock.now += 1
    assert health.report(4, 0).level == Level.OK
