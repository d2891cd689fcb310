"""Files appear whole or not at all, and never replace what the run reads."""

import cv2
import numpy as np
import pytest

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.sinks import open_sink
from fcnedge.runtime.sinks.files import encode_picture
from fcnedge.runtime.sources import open_source


@pytest.mark.parametrize("form", ["{0}", "file://{0}"])
def test_source_is_not_overwritten(tmp_path, form):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UserError, match="is the source itself"):
        open_sink(form.format(path), source=open_source(form.format(path)))


@pytest.mark.parametrize("form", ["file://{0}/my%20clip.avi", "file://localhost{0}/my%20clip.avi", "{0}/./my clip.avi"])
def test_film_in_any_spelling_is_not_overwritten(tmp_path, result, form):
    path = tmp_path / "my clip.avi"
    with open_sink(path, fps=5) as sink:
        sink.take(*result())
    before = path.read_bytes()
    with open_source(form.format(tmp_path)) as source, pytest.raises(UserError, match="is the source itself"):
        open_sink(path, source=source).take(*result())
    assert path.read_bytes() == before


def test_link_to_the_source_is_not_written_through(tmp_path, result):
    path = tmp_path / "a.avi"
    with open_sink(path, fps=5) as sink:
        sink.take(*result())
    (tmp_path / "b.avi").symlink_to(path)
    with open_source(path) as source, pytest.raises(UserError, match="is the source itself"):
        open_sink(tmp_path / "b.avi", source=source)


def test_interrupt_while_writing_leaves_no_part_behind(tmp_path, result, files, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_sink(tmp_path / "out.png").take(*result())
    assert files(tmp_path) == []


@pytest.mark.parametrize("uri", ["{0}/" + "n" * 300, "{0}/" + "n" * 300 + ".png", "{0}/" + "n" * 300 + "/out.avi"])
def test_name_that_is_too_long_is_one_sentence(tmp_path, result, uri):
    with pytest.raises(UserError, match=r"cannot be (made|written): File name too long"):
        open_sink(uri.format(tmp_path)).take(*result())


@pytest.mark.parametrize("name", ["out/", "out", "deep/out.png", "out.png", "out.mp4", "out.avi"])
def test_folder_that_is_forbidden_is_one_sentence(forbidden_folder, result, name):
    with pytest.raises(UserError, match=r"cannot be (made|written|read): Permission denied"):
        open_sink(f"{forbidden_folder}/{name}").take(*result())


@pytest.mark.parametrize("name", ["x", "x/", "x.png", "x.mp4", "x.avi"])
def test_place_where_nobody_can_write_is_one_sentence(name, result, tmp_path):
    """Not even root, whom permissions do not stop: below a file there is no folder."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"file(/\S*)? cannot be (made|written): (Not a directory|File exists)$"):
        open_sink(f"{tmp_path}/file/{name}").take(*result())


def test_full_disk_is_one_sentence_and_leaves_the_old_picture(tmp_path, result, noise, files, small_files):
    path = tmp_path / "out.png"
    with open_sink(path) as sink:
        sink.take(*result(value=3))
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"out\.png cannot be written: File too large$"), small_files():
        open_sink(path).take(result()[0], noise(200, 200))
    assert files(tmp_path) == ["out.png"]
    assert path.read_bytes() == before


def test_quality_decides_how_large_a_jpeg_is(noise):
    picture = noise(100, 100)
    assert len(encode_picture(".JPG", picture, 50)) < len(encode_picture(".jpg", picture)) / 2
