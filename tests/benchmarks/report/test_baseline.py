"""Two reports compared: what counts as slower, what may not be compared, and files that are no reports."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fcnedge.benchmarks.report.baseline import compare_reports, differences, read_baseline
from fcnedge.runtime.errors import UserError

PATH = Path("old.json")


def report(times_ms: np.ndarray, **stages: np.ndarray) -> dict[str, Any]:
    """The parts of a report that a comparison reads."""
    samples = {"frame_to_mask": times_ms, "end_to_end": times_ms + 2, **stages}
    machine: dict[str, Any] = {
        **{"cpu": "Xeon", "board": None, "architecture": "x86_64", "cores": 2, "usable_cores": 2},
        **{"container_cores": None, "gpus": [], "power_mode": None, "packages": {"numpy": "2.4.6"}},
    }
    model = {
        "name": "m",
        "input": "96x96",
        "backend": "openvino",
        "precision": "fp32",
        "threads": 2,
        "sha256": {"a": "1"},
    }
    return {
        **{"tool": "fcn-bench latency", "format": 1, "machine": machine, "model": model},
        "source": {"uri": "demo://clip", "frame_sizes": ["480x360"]},
        "samples": {"stages_ms": {name: list(values) for name, values in samples.items()} | {"h2d": None}},
    }


def times(middle_ms: float, seed: int, count: int = 300) -> np.ndarray:
    return np.random.default_rng(seed).normal(middle_ms, 1, count)


@pytest.mark.parametrize(
    ("then", "now", "verdict", "regression"),
    [(20, 23, "slower", True), (23, 20, "faster", False), (20, 20.4, "same", False), (20.4, 20, "same", False)],
)
def test_change_counts_beyond_the_margin_with_its_whole_interval(then, now, verdict, regression):
    found = compare_reports(report(times(then, 1)), report(times(now, 2)), PATH)
    row = found.rows[0]
    assert (row.stage, row.verdict, found.regression) == ("frame_to_mask", verdict, regression)
    assert row.ratio == pytest.approx(now / then, rel=0.02)
    assert row.ratio_low <= row.ratio <= row.ratio_high


def test_change_whose_interval_reaches_into_the_margin_does_not_count():
    """A few frames that vary much are no proof, whatever their medians say."""
    random = np.random.default_rng(3)
    noisy = [random.gamma(2, 10, 12) for _ in range(2)]
    noisy[1] *= 1.2 * np.median(noisy[0]) / np.median(noisy[1])
    found = compare_reports(report(noisy[0]), report(noisy[1]), PATH)
    assert (found.rows[0].verdict, found.regression) == ("same", False)
    assert found.rows[0].ratio == pytest.approx(1.2)


def test_small_stage_that_doubles_is_shown_and_is_no_regression():
    base = times(20, 4)
    found = compare_reports(report(base, head=times(5, 5)), report(base, head=times(10, 6)), PATH)
    assert {row.stage: row.verdict for row in found.rows} == {
        "head": "slower",
        "frame_to_mask": "same",
        "end_to_end": "same",
    }
    assert not found.regression


def test_report_is_no_regression_of_itself():
    data = report(times(20, 7))
    found = compare_reports(data, data, PATH)
    assert [row.ratio for row in found.rows] == [1.0, 1.0]
    assert (found.regression, found.differences, found.versions) == (False, (), ())


def test_new_versions_are_told_and_are_no_difference():
    old, new = report(times(20, 8)), report(times(20, 8))
    new["machine"]["packages"] = {"numpy": "2.5.0", "openvino": "2026.4"}
    found = compare_reports(old, new, PATH)
    assert found.versions == ("numpy 2.4.6, now 2.5.0", "openvino none, now 2026.4")
    assert found.differences == ()


@pytest.mark.parametrize(
    ("part", "key", "value", "words"),
    [
        ("machine", "cpu", "Cortex-A78AE", "machine cpu: Xeon, now Cortex-A78AE"),
        ("machine", "gpus", ["Orin"], "machine gpus: none, now Orin"),
        ("model", "sha256", {"a": "2"}, "model hash: a 1, now a 2"),
        ("model", "threads", None, "model threads: 2, now None"),
        ("source", "uri", "file.mp4", "source uri: demo://clip, now file.mp4"),
    ],
)
def test_what_makes_reports_incomparable_is_named(part, key, value, words):
    old = report(times(20, 9))
    new = copy.deepcopy(old)
    new[part][key] = value
    assert differences(old, new) == (words,)


def test_parts_that_are_not_known_yet_are_no_difference():
    assert differences(report(times(20, 10)), {"source": {"uri": "demo://clip"}}) == ()


def _without(part: str, key: str) -> dict[str, Any]:
    data = report(times(20, 11))
    del data[part][key]
    return data


def _with_stages(stages: Any) -> dict[str, Any]:
    data = report(times(20, 11))
    data["samples"]["stages_ms"] = stages
    return data


def test_too_few_frames_are_no_all_clear():
    found = compare_reports(report(times(20, 10)), report(times(40, 11, count=9)), Path("old.json"))
    assert not found.rows
    assert "no regression" not in found.text()
    assert "too few frames to tell a regression" in found.verdict


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is not JSON; take a file that --json wrote"),
        ("{", "is not JSON; take a file that --json wrote"),
        ("[]", "is no report of fcn-bench latency in format 1"),
        ('{"tool": "fcn-bench accuracy", "format": 1}', "is no report of fcn-bench latency in format 1"),
        ('{"tool": "fcn-bench latency", "format": 2}', "is no report of fcn-bench latency in format 1"),
        ('{"tool": "fcn-bench latency", "format": 1}', "lacks what a report holds; it was edited: measure it anew"),
        (json.dumps(_without("model", "sha256")), "lacks what a report holds"),
        (json.dumps(_without("samples", "stages_ms")), "lacks what a report holds"),
        (json.dumps(_with_stages(None)), "lacks what a report holds"),
        (json.dumps(_with_stages([1.0])), "lacks what a report holds"),
        (json.dumps(report(np.array([]))), "holds 0 frames; a comparison needs 10"),
        (json.dumps(report(times(20, 13, count=9))), "holds 9 frames; a comparison needs 10"),
    ],
)
def test_file_that_is_no_report_is_refused(tmp_path, text, complaint):
    path = tmp_path / "old.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=complaint):
        read_baseline(path)


def test_report_is_read_back(tmp_path):
    path = tmp_path / "old.json"
    data = report(times(20, 12, count=20))
    path.write_text(json.dumps(data), encoding="utf-8")
    assert read_baseline(path) == data
