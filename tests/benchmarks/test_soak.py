"""The soak's parts that need no clock, and what it says when a bar is missed."""

import json

import pytest

from fcnedge.benchmarks import soak


def test_film_part_keeps_its_bars_and_writes_its_numbers(colour_bundle, tmp_path, capsys):
    report = tmp_path / "soak.json"
    assert soak.main(["--model", str(colour_bundle), "--only", "film", "--json", str(report)]) == 0
    figures = json.loads(report.read_text())["figures"]
    assert [(each["name"], each["value"], each["kept"]) for each in figures] == [
        ("results", 2000, True),
        ("results out of order", 0, True),
    ]
    assert "2000 frames" in capsys.readouterr().out


def test_missed_bar_is_named_and_is_an_error(colour_bundle, monkeypatch, capsys):
    missed = soak.at_most("film", "age", 3.0, 2.0, "ms")
    assert not missed.kept
    monkeypatch.setattr(soak, "film", lambda bundle: iter([missed, soak.exactly("film", "results", 5, 5, "")]))
    assert soak.main(["--model", str(colour_bundle), "--only", "film"]) == 2
    said = capsys.readouterr()
    assert "1 of 2 bars missed: age" in said.err
    assert "MISSED" in said.out


@pytest.mark.parametrize(
    ("figure", "kept"),
    [
        (soak.at_most("", "", 2.0, 2.0, ""), True),
        (soak.at_most("", "", 2.001, 2.0, ""), False),
        (soak.exactly("", "", 0, 0, ""), True),
        (soak.exactly("", "", -1, 0, ""), False),
    ],
)
def test_bars(figure, kept):
    assert figure.kept is kept
