"""Folders, globs and numbered patterns: which pictures, and in what order."""

import pytest

from fcnedge.runtime.errors import SourceError
from fcnedge.runtime.sources import open_source

from .conftest import names, write


def test_folder_is_naturally_sorted_and_counts_what_it_skips(tmp_path, photo):
    for name in ["img10.png", "img2.png", "img1.JPG", "b.jpeg", "._b.jpeg"]:
        path = tmp_path / "part.png"
        write(path, photo)
        path.rename(tmp_path / name)
    (tmp_path / "readme.txt").write_text("no picture")
    (tmp_path / "nested").mkdir()
    source = open_source(tmp_path)
    assert names(source) == ["b", "img1", "img2", "img10"]
    assert (source.length, source.skipped, source.is_video) == (4, 2, False)
    assert [frame.index for frame in source] == [0, 1, 2, 3]


def test_what_fcn_run_marks_its_output_with_is_not_passed_over_as_no_picture(tmp_path, photo):
    write(tmp_path / "img.png", photo)
    (tmp_path / ".fcn-run").write_text("fcn-run wrote masks/ and overlays/ here")
    source = open_source(tmp_path)
    assert (source.length, source.skipped) == (1, 0)


def test_folder_without_pictures_says_what_it_holds(tmp_path):
    with pytest.raises(SourceError, match=r"no pictures.*it has no files"):
        open_source(tmp_path)
    (tmp_path / "readme.txt").write_text("no picture")
    with pytest.raises(SourceError, match=r"no pictures.*none of its 1 files"):
        open_source(tmp_path)


def test_glob_takes_pictures_only(tmp_path, photo):
    (tmp_path / "deep").mkdir()
    for name in ["a1.png", "a10.png", "a9.png", "b.png", "deep/c.png"]:
        write(tmp_path / name, photo)
    (tmp_path / "a.txt").write_text("no picture")
    source = open_source(f"{tmp_path}/a*")
    assert names(source) == ["a1", "a9", "a10"]
    assert source.skipped == 1
    assert names(open_source(f"file://{tmp_path}/**/c.png")) == ["c"]
    with pytest.raises(SourceError, match="no file matches"):
        open_source(f"{tmp_path}/z*.png")
    with pytest.raises(SourceError, match="matches 1 files, but no picture"):
        open_source(f"{tmp_path}/*.txt")


def test_name_with_brackets_is_a_file_before_it_is_a_glob(tmp_path, photo):
    assert names(open_source(write(tmp_path / "cat[1].png", photo))) == ["cat[1]"]


def test_numbered_pictures_come_in_order_from_any_start(tmp_path, photo):
    for number in [12, 7, 9, 10]:
        write(tmp_path / f"shot_{number:04d}.png", photo)
    write(tmp_path / "shot_8.png", photo)  # not what %04d writes
    write(tmp_path / "shot_10000.png", photo)  # what %04d writes for it
    pattern = f"{tmp_path}/shot_%04d.png"
    assert names(open_source(pattern)) == ["shot_0007", "shot_0009", "shot_0010", "shot_0012", "shot_10000"]
    assert names(open_source(f"file://{pattern}"))[0] == "shot_0007"
    assert names(open_source(f"{tmp_path}/shot_%i.png")) == ["shot_8", "shot_10000"]
    with pytest.raises(SourceError, match="no file matches"):
        open_source(f"{tmp_path}/other_%04d.png")
