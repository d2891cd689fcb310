"""Rows that are slow, missing, crash or are interrupted: each says so in its own place, the others go on."""

from __future__ import annotations

import multiprocessing

import pytest

from fcnedge.benchmarks.peers.comparison import RULE_WITHOUT_MIOU, CompareReport
from fcnedge.benchmarks.peers.entry import Entry
from fcnedge.benchmarks.peers.line_up import Ingredients, line_up
from fcnedge.benchmarks.peers.measurement import measure
from fcnedge.benchmarks.report.reading import restored
from fcnedge.runtime import Bundle
from fcnedge.runtime.command import Progress, jsonable

OURS = "ours onnxruntime fp32"


@pytest.fixture
def run(colour_bundle, tmp_path):
    """Give a function that measures our own row of ONNX Runtime, and the peers that it is given."""
    bundle = Bundle.load(colour_bundle)
    ours = line_up(Ingredients(bundle, "nobody knows", ()), tmp_path, lambda name: name == OURS, lambda text: None)

    def measured(plan, *openers, progress=None) -> CompareReport:
        peers = [Entry(opener.__name__, opener) for opener in openers]
        return measure(bundle, [*ours, *peers], plan, progress or Progress())

    return measured


def rows_of(report: CompareReport) -> dict:
    return {row.name: row for row in report.rows}


def test_a_slowed_row_shows_in_its_own_ratio(run, odd_peers, small_plan):
    rows = rows_of(run(small_plan(), odd_peers.quick, odd_peers.slowed))
    assert rows["slowed"].p50_ms >= 20
    assert rows["slowed"].ratio > 10 * rows["quick"].ratio
    assert rows["slowed"].ratio_low > rows["quick"].ratio_high
    assert rows["slowed"].cores < 0.9  # it sleeps


def test_the_reference_is_measured_against_itself(run, small_plan):
    report = run(small_plan())
    row = rows_of(report)[OURS]
    assert report.reference == OURS
    assert (row.ratio, row.ratio_low, row.ratio_high) == (1, 1, 1)
    assert row.frames == 6
    assert row.miou7 > 0.5  # it reads colours, and so do the pictures
    assert row.reason is None


def test_a_named_reference_divides(run, odd_peers, small_plan):
    report = run(small_plan(reference="slowed"), odd_peers.slowed)
    assert rows_of(report)["slowed"].ratio == 1
    assert rows_of(report)[OURS].ratio < 1


def test_rows_that_cannot_be_opened_say_why_and_the_rest_goes_on(run, odd_peers, small_plan):
    report = run(small_plan(), odd_peers.missing, odd_peers.crashing, odd_peers.quick)
    rows = rows_of(report)
    assert rows["missing"].reason.endswith("pip install 'fcnedge[peers]'")
    assert "signal 9" in rows["crashing"].reason
    for name in ("missing", "crashing"):
        assert (rows[name].p50_ms, rows[name].ratio, rows[name].miou7, rows[name].frames) == (None, None, None, 0)
    assert rows["quick"].ratio > 0
    assert report.partial is None
    assert "missing: nobodys-runtime is not installed" in report.text()


def test_a_row_that_dies_later_keeps_its_times(run, odd_peers, small_plan):
    row = rows_of(run(small_plan(), odd_peers.crashing_on_pictures))["crashing_on_pictures"]
    assert row.frames == 6
    assert row.ratio > 0
    assert row.miou7 is None
    assert row.reason.startswith("mIoU not measured: its process was ended by signal 9")


def test_the_cpu_time_of_a_row_that_dies_while_timed_stays_our_own(run, odd_peers, small_plan):
    report = run(small_plan(), odd_peers.crashing_when_timed)
    assert "signal 9" in rows_of(report)["crashing_when_timed"].reason
    assert report.conditions is not None
    assert report.conditions.own_load > 0  # what it took before it died was more than all rows took after it


def test_few_rounds_are_said_to_give_narrow_intervals(run, small_plan):
    assert "3 rounds: with fewer than 8 intervals are too narrow" in run(small_plan()).notes
    assert not any("too narrow" in note for note in run(small_plan(rounds=8)).notes)


class InterruptedProgress(Progress):
    def __call__(self, text, done=None, total=None):
        if text == "timing in turns" and done == 2:
            raise KeyboardInterrupt


def test_interrupted_while_timing_what_was_measured_is_reported(run, odd_peers, small_plan):
    report = run(small_plan(), odd_peers.quick, progress=InterruptedProgress())
    assert (report.partial, report.interrupted) == ("interrupted while timing", True)
    assert report.reference_rule == RULE_WITHOUT_MIOU
    assert "at most 3 rounds" in report.text()
    assert "mIoU-4 on" not in report.text()  # nothing was scored
    for row in report.rows:
        assert (row.frames, row.miou7) == (4, None)
        assert row.ratio > 0
    assert not multiprocessing.active_children()


_MEASURED = """
import json, multiprocessing, sys
from pathlib import Path
import numpy as np, odd_peers
from fcnedge.benchmarks.peers.entry import Entry
from fcnedge.benchmarks.peers.line_up import Ingredients, line_up
from fcnedge.benchmarks.peers.measurement import Plan, measure
from fcnedge.calibration.voc import read_voc
from fcnedge.runtime import Bundle
from fcnedge.runtime.command import Progress, jsonable

bundle, voc, folder, ours, opener = Bundle.load(sys.argv[1]), *sys.argv[2:]
frame = np.full((40, 60, 3), 90, np.uint8)
entries = line_up(Ingredients(bundle, "nobody knows", ()), Path(folder), lambda name: name == ours, lambda text: None)
entries += [Entry(opener, getattr(odd_peers, opener))]
plan = Plan(threads=1, rounds=3, frames=(frame, frame), split="val", samples=tuple(read_voc(Path(voc), "val")))
try:
    report = jsonable(measure(bundle, entries, plan, Progress()))
except KeyboardInterrupt:
    report = None
print(json.dumps([report, len(multiprocessing.active_children())]))
"""


@pytest.fixture
def run_elsewhere(elsewhere, colour_bundle, voc_folder, tmp_path):
    """Give `run_elsewhere(opener's name)`: the report as JSON data (None after an interrupt), processes left over."""
    return lambda opener: elsewhere(_MEASURED, colour_bundle.resolve(), voc_folder, tmp_path, OURS, opener)


def test_interrupted_while_scoring_times_are_reported(run_elsewhere):
    report, left_over = run_elsewhere("interrupting_on_pictures")
    rows = {row["name"]: row for row in report["rows"]}
    assert report["partial"] == "interrupted while scoring"
    assert rows[OURS]["miou7"] > 0.5  # it came first
    assert rows["interrupting_on_pictures"]["miou7"] is None
    assert rows["interrupting_on_pictures"]["frames"] == 6
    assert left_over == 0


def test_interrupted_before_anything_was_timed_is_an_interrupt(run_elsewhere):
    assert run_elsewhere("interrupting_at_once") == [None, 0]


def test_report_survives_json(run, odd_peers, small_plan):
    report = run(small_plan(), odd_peers.missing)
    assert restored(CompareReport, jsonable(report)) == report
