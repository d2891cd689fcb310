"""Names of engines, and places where none may lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcnedge.build_engine.engines.engine_file import check_engine_output, write_engine, write_timing_cache
from fcnedge.runtime.errors import UserError


def test_folder_is_no_engine_file(tmp_path: Path):
    with pytest.raises(UserError, match="is a folder; -o names the engine file"):
        check_engine_output(tmp_path, force=True)


def test_sidecar_of_another_engine_is_not_overwritten_by_accident(tmp_path: Path):
    (tmp_path / "x.engine.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"x\.engine\.json exists already; add --force"):
        check_engine_output(tmp_path / "x.engine", force=False)
    check_engine_output(tmp_path / "x.engine", force=True)


def test_nothing_appears_when_the_description_fails(tmp_path: Path):
    (tmp_path / "x.engine").write_bytes(b"old")

    def fail(facts: object) -> None:
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        write_engine(b"new", tmp_path / "x.engine", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["x.engine"]
    assert (tmp_path / "x.engine").read_bytes() == b"old"


def test_timing_cache_is_replaced_whole(tmp_path: Path):
    write_timing_cache(b"one", tmp_path / "deep" / "t")
    write_timing_cache(b"two", tmp_path / "deep" / "t")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["t"]
    assert (tmp_path / "deep" / "t").read_bytes() == b"two"
