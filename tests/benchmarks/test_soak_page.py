"""benchmarks/soak_page.py: viewers look at a running pipeline, and nothing that was made stays unpublished."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fcnedge.benchmarks import soak_page
from fcnedge.benchmarks.soak_page import PageSoak, SoakPageOptions, measure_page
from fcnedge.runtime.errors import UserError

SHORT = SoakPageOptions(fake=True, viewers=4, seconds=0.2, rounds=2)
RESULT = PageSoak("a machine", "fake", "640x480", 1, 50, [100.0], [95.0], 0.05, 0.10, 0.1, 20.0, 0)


def test_each_round_is_measured_and_all_results_are_published(colour_bundle: Path) -> None:
    soak = measure_page(replace(SHORT, model=colour_bundle))
    assert len(soak.alone) == len(soak.watched) == 2
    assert min(*soak.alone, *soak.watched, soak.shown_per_second, soak.page_cores) > 0
    assert (soak.viewers, soak.gaps) == (4, 0)


@pytest.mark.parametrize(
    ("changed", "passed"), [({}, True), ({"fall": 0.1}, False), ({"fall": -0.2}, True), ({"gaps": 1}, False)]
)
def test_bar_is_held_below_a_tenth_with_every_result_published(changed: dict[str, float], passed: bool) -> None:
    assert replace(RESULT, **changed).passed is passed


@pytest.mark.parametrize("wrong", [{"viewers": 1}, {"seconds": 0.0}, {"rounds": 0}])
def test_rounds_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match="2 viewers or more"):
        measure_page(replace(SHORT, **wrong))


def test_command_prints_the_figure_beside_its_bar_and_writes_json(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(soak_page, "measure_page", lambda options: replace(RESULT, viewers=options.viewers))
    assert soak_page.main(["--viewers", "6", "--json", str(tmp_path / "soak.json")]) == 0
    assert "6 viewers, half not reading: rate falls by 5.0%, bar 10%: held" in capsys.readouterr().out
    assert json.loads((tmp_path / "soak.json").read_text())["viewers"] == 6
