from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from fcnedge.build_engine.exporters.folder import check_export, export_folder, exported_files, safe_name
from fcnedge.runtime.errors import UserError


def write_export(output: Path, text: str = "one") -> None:
    with export_folder(output, "kind") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file.txt").write_text(text, encoding="utf-8")


def test_listing_has_kind_and_hash_of_every_file(tmp_path: Path):
    write_export(tmp_path / "out")
    listing = json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8"))
    assert listing == {"format": 1, "kind": "kind", "files": {"inner/file.txt": hashlib.sha256(b"one").hexdigest()}}
    assert exported_files(tmp_path / "out") == ("inner/file.txt",)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_export_that_fails_leaves_what_was_there(tmp_path: Path):
    write_export(tmp_path / "out")

    def fail() -> None:
        with export_folder(tmp_path / "out", "kind") as folder:
            (folder / "half").write_text("", encoding="utf-8")
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail()
    assert exported_files(tmp_path / "out") == ("inner/file.txt",)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_force_replaces_an_export_as_a_whole(tmp_path: Path):
    write_export(tmp_path / "out")
    with pytest.raises(UserError, match="add --force"):
        check_export(tmp_path / "out", force=False)
    check_export(tmp_path / "out", force=True)
    write_export(tmp_path / "out", "two")
    assert (tmp_path / "out" / "inner" / "file.txt").read_text(encoding="utf-8") == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_force_replaces_nothing_else(tmp_path: Path):
    write_export(tmp_path / "out")
    (tmp_path / "out" / "mine.txt").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"mine\.txt, which is not part of the export"):
        check_export(tmp_path / "out", force=True)
    (tmp_path / "holiday").mkdir()
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "export.json").write_text('{"files": ["a"]}', encoding="utf-8")
    for name in ("holiday", "file", "list"):
        with pytest.raises(UserError, match="is not an export"):
            check_export(tmp_path / name, force=True)
    with pytest.raises(UserError, match="is a file, so no folder can lie in it"):
        check_export(tmp_path / "file" / "out", force=True)


@pytest.mark.parametrize(("name", "expected"), [("a b/ü", "a_b__"), ("..", "model"), ("fcn8s-lite0", "fcn8s-lite0")])
def test_names_are_made_fit_for_folders(name, expected):
    assert safe_name(name) == expected
