"""Several pictures as one source, good and bad ones mixed."""

import pytest

from fcnedge.runtime.errors import SourceError
from fcnedge.runtime.sources import InputOptions, open_source

from .conftest import cut, write


@pytest.mark.parametrize("damaged", [["1"], ["2"], ["3"], ["1", "2"], ["2", "3"]])
@pytest.mark.parametrize("form", ["{0}", "{0}/*.jpg", "{0}/%d.jpg"])
def test_damaged_pictures_are_named_counted_and_passed_over(tmp_path, photo, caplog, form, damaged):
    folder = three(tmp_path / "shots", photo, damaged)
    source = open_source(form.format(folder))
    assert (source.length, source.skipped) == (3, 0)
    for _ in range(2):  # again: counted anew
        caplog.clear()
        frames = list(source)
        assert [(frame.name, frame.index) for frame in frames] == [
            (name, index) for index, name in enumerate(sorted({"1", "2", "3"} - set(damaged)))
        ]
        assert [record.message for record in caplog.records] == [
            f"{folder / name}.jpg is truncated: it lacks JPEG's end-of-image marker; copy it again" for name in damaged
        ]
        assert source.skipped == len(damaged)
        several = f"{len(damaged)} pictures cannot be read, the first being that " if len(damaged) > 1 else ""
        assert source.warning == several + caplog.records[0].message


def test_damaged_pictures_and_files_that_are_none_are_counted_together(tmp_path, photo):
    folder = three(tmp_path / "shots", photo, ["2"])
    (folder / "notes.txt").write_text("no picture")
    for options in (InputOptions(), InputOptions(flip="vertical"), InputOptions(loop=2)):
        source = open_source(folder, options)
        assert source.skipped == 1
        assert {frame.name[0] for frame in source} == {"1", "3"}
        assert source.skipped == 2
        assert "2.jpg is truncated" in (source.warning or "")


def test_pictures_of_which_none_can_be_read_are_an_error_and_one_alone_is_refused_at_once(tmp_path, photo):
    folder = three(tmp_path / "shots", photo, ["1", "2", "3"])
    with pytest.raises(SourceError, match=r"none of the 3 pictures of .*shots can be read, .*1\.jpg is truncated"):
        list(open_source(folder))
    (folder / "2.jpg").unlink()
    (folder / "3.jpg").unlink()
    with pytest.raises(SourceError, match=r"1\.jpg is truncated"):
        open_source(folder)


def test_picture_that_goes_away_after_it_was_listed_is_passed_over(tmp_path, photo):
    source = open_source(three(tmp_path / "shots", photo))
    (tmp_path / "shots" / "3.jpg").unlink()
    assert [frame.name for frame in source] == ["1", "2"]
    assert source.warning == f"{tmp_path / 'shots' / '3.jpg'} cannot be read: No such file or directory"


def three(folder, photo, damaged=()):
    """A folder of 1.jpg, 2.jpg and 3.jpg, of which some are half there."""
    folder.mkdir()
    for name in "123":
        write(folder / f"{name}.jpg", photo)
    for name in damaged:
        cut(folder / f"{name}.jpg", 0.5)
    return folder


def test_sources_carry_their_files(tmp_path, photo, clip):
    one, two = write(tmp_path / "1.png", photo), write(tmp_path / "2.png", photo)
    assert open_source(tmp_path / "%d.png").files == (one, two)
    assert open_source(f"file://{one}").files == (one,)
    assert open_source(clip).files == (clip,)


def test_only_a_folder_as_a_whole_is_a_sources_folder(tmp_path, photo, clip):
    write(tmp_path / "1.png", photo)
    assert open_source(tmp_path).folder == open_source(f"file://{tmp_path}").folder == tmp_path
    for part in ("1.png", "*.png", "%d.png", "clip.avi"):
        assert open_source(tmp_path / part).folder is None
