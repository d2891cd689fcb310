"""Reports read back are the reports that were written, and nothing else is taken for one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest

from fcnedge.benchmarks.report.reading import NotThatError, read_json, restored
from fcnedge.runtime.command import jsonable, write_json
from fcnedge.runtime.errors import UserError


@dataclass(frozen=True)
class Inner:
    name: str
    share: float
    sides: tuple[int, int] = (1, 2)


@dataclass(frozen=True)
class Outer:
    rows: tuple[Inner, ...]
    by_name: dict[str, Inner | None]
    note: str | None
    good: bool
    later: tuple[str, ...] = field(default=("none",))


WHOLE = Outer((Inner("a", 0.5), Inner("b", 2.0, (3, 4))), {"x": None, "y": Inner("c", 1.0)}, None, True, ("p", "q"))


def test_what_was_written_is_read_back(tmp_path):
    write_json(WHOLE, tmp_path / "r.json")
    assert restored(Outer, read_json(tmp_path / "r.json")) == WHOLE


def test_a_number_that_json_cannot_hold_comes_back_as_nan():
    assert math.isnan(restored(Inner, jsonable(Inner("a", math.inf))).share)


def test_keys_of_another_version_do_no_harm():
    data = jsonable(WHOLE) | {"new": 1}
    del data["later"]
    assert restored(Outer, data).later == ("none",)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"rows": "all"}, r"^the report\.rows is not what it should be$"),
        ({"rows": [{"name": "a"}]}, r"^the report\.rows has no share$"),
        ({"rows": [{"name": "a", "share": True}]}, r"^the report\.rows\.share is not"),
        ({"rows": [{"name": "a", "share": 1, "sides": [1, 2, 3]}]}, r"^the report\.rows\.sides is not"),
        ({"by_name": {"x": []}}, r"^the report\.by_name\.x is not"),
        ({"good": 1}, r"^the report\.good is not"),
        ({"note": 3}, r"^the report\.note is not"),
    ],
)
def test_anything_else_is_refused_by_its_place(change, complaint):
    with pytest.raises(NotThatError, match=complaint):
        restored(Outer, jsonable(WHOLE) | change)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"{", r"is no JSON file \("), (b"[]", r"holds no report; "), (b"\xff", r"is no JSON file \(")],
)
def test_file_that_is_no_report_is_one_sentence(tmp_path, content, complaint):
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(UserError, match=complaint):
        read_json(tmp_path / "r.json")


def test_file_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"gone\.json cannot be read \(No such file or directory\); name a file that"):
        read_json(tmp_path / "gone.json")
