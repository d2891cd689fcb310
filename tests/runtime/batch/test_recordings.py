"""What words stand for: files, folders, patterns and lists of them, each recording once and under one name for ever."""

from __future__ import annotations

import pytest

from fcnedge.runtime.batch.recordings import Recording, find_recordings
from fcnedge.runtime.errors import UserError

pytest.importorskip("pyarrow", reason="the extra ray is not installed")


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * len(name))


def test_a_folder_is_its_pictures_and_films(tmp_path):
    write(tmp_path, "a.mp4", "b.JPG", "notes.txt", ".hidden.mp4", "below/c.mp4")
    found = find_recordings([str(tmp_path)])
    assert [each.uri for each in found.found] == [f"{tmp_path}/a.mp4", f"{tmp_path}/b.JPG"]
    assert found.passed_over == 1
    assert found.found[0].size == 5
    assert found.found[0].modified_ns == (tmp_path / "a.mp4").stat().st_mtime_ns


def test_patterns_lists_and_files_name_each_recording_once(tmp_path, monkeypatch):
    write(tmp_path, "x/a.mp4", "x/y/b.mp4", "c.dat")
    (tmp_path / "list.txt").write_text(f"# films\n\n  {tmp_path}/x/a.mp4 \nc.dat\nx/**/*.mp4\n")
    monkeypatch.chdir(tmp_path)
    found = find_recordings(["@list.txt", "x/a.mp4", "c.dat"])
    assert [each.uri for each in found.found] == [f"{tmp_path}/{name}" for name in ("x/a.mp4", "c.dat", "x/y/b.mp4")]


def test_a_uri_of_another_file_system_is_listed_too():
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/batch/recordings/a.mp4", b"1234")
    memory.pipe("/batch/recordings/notes.txt", b"1")
    found = find_recordings(["memory://batch/recordings"])
    assert [(each.uri, each.size) for each in found.found] == [("memory://batch/recordings/a.mp4", 4)]
    assert found.passed_over == 1
    assert find_recordings(["memory://batch/recordings/a.mp4"]).found == found.found


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("gone.mp4", r"gone\.mp4 does not exist; check the name\.$"),
        ("gone/*.mp4", r"^no file matches gone/\*\.mp4; check the pattern\.$"),
        ("@gone.txt", r"^the list gone\.txt cannot be read \(No such file or directory\); "),
        ("empty", r"^empty: no picture or film is there; name files or folders\.$"),
        ("demo://clip", r"^demo://clip is no recording; --ray takes pictures and films\.$"),
        ("rtsp://me:secret@camera/live", r"^rtsp://me:\*\*\*@camera/live is no recording; "),
        ("odd://x/y", r"^odd:// is no file system that is known here "),
    ],
)
def test_words_that_name_nothing_are_refused(word, complaint, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=complaint):
        find_recordings([word])


def test_keys_are_told_apart_by_the_whole_uri_and_fit_any_disk():
    one, other = (Recording(f"/{folder}/täg 1 $.mp4", 1, None).key for folder in "ab")
    assert one != other
    assert one.rpartition("-")[0] == other.rpartition("-")[0] == "täg_1"
    assert len(Recording("/" + "x" * 240 + ".mp4", 1, None).key) == 60 + 1 + 12
    assert len(Recording("/.mp4", 1, None).key) > 11
