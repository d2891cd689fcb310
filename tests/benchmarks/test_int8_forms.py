"""The comparison of INT8 forms: real graphs of the shipped model in both backends."""

from __future__ import annotations

import json

import pytest

from fcnedge.benchmarks.int8_forms import BACKENDS, main


@pytest.mark.slow
def test_every_form_runs_in_every_backend(shipped_bundle, voc_folder, tmp_path, capsys):
    result = tmp_path / "forms.json"
    words = [shipped_bundle, "--data", voc_folder, "--images", "2", "--threads", "1", "--json", result]
    assert main([str(word) for word in words]) == 0
    report = json.loads(result.read_text())
    assert (report["model"], report["pictures"], report["threads"]) == ("fcn8s-lite0-voc", 2, 1)
    rows = report["rows"]
    assert [row["backend"] for row in rows] == [backend for backend in BACKENDS for _ in range(5)]
    for fp32, *forms in (rows[:5], rows[5:]):
        assert (fp32["form"], fp32["share"], fp32["ratio"], fp32["drop_points"]) == ("FP32", 1, 1, 0)
        sizes = {form["form"]: form["share"] for form in forms}
        assert sizes["U8S8, depthwise INT8"] < sizes["U8S8, depthwise float"] < 0.35
        assert all(0.9 < form["labels_equal"] < 1 for form in forms)
    assert "of mIoU-7" in capsys.readouterr().out


def test_bundle_without_ranges_is_refused(colour_bundle, voc_folder, capsys):
    assert main([str(colour_bundle), "--data", str(voc_folder)]) == 2
    assert "ranges.json" in capsys.readouterr().err
