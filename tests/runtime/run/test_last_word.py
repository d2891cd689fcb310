"""A source in the place of the output is named; an output is none, whatever it is called."""

import cv2
import numpy as np
import pytest

from fcnedge.runtime import UserError
from fcnedge.runtime.run.last_word import refuse_source_as_sink


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("0", "a camera"),
        ("/dev/video1", "a camera"),
        ("/dev/v4l/by-id/usb-cam", "a camera"),
        ("v4l2:///dev/video0", "a camera"),
        ("csi://1", "a camera"),
        ("demo://", "a demonstration"),
        ("demo://camera", "a demonstration"),
        ("https://cam/video", "a camera"),
        ("http://cam/video", "a camera"),
        ("http://user:secret@cam", "a camera"),
        ("videotestsrc ! videoconvert", "a GStreamer pipeline"),
        ("shots/*.jpg", "a pattern of pictures"),
    ],
)
@pytest.mark.parametrize("sources", [1, 3])
def test_source_at_the_end_is_named(text, what, sources):
    with pytest.raises(
        UserError, match=f"is {what}, and the last word names the output.* null:// writes nothing"
    ) as caught:
        refuse_source_as_sink(text, sources)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("sources", [1, 2])
def test_film_at_the_end_is_named(tmp_path, film, sources):
    path = film("blue", 2)
    with pytest.raises(UserError, match=r"is a film that is there, and the last word names.* delete it first"):
        refuse_source_as_sink(str(path), sources)
    with pytest.raises(UserError, match="is a film that is there"):
        refuse_source_as_sink(f"file://{path}", sources)
    (tmp_path / "empty.mp4").touch()
    refuse_source_as_sink(str(tmp_path / "empty.mp4"), sources)


def test_film_that_opencv_cannot_read_is_kept_too(tmp_path, film):
    path = tmp_path / "recording.mp4"
    path.write_bytes(film("blue", 2).read_bytes()[:100])
    with pytest.raises(UserError, match="is a film that is there"):
        refuse_source_as_sink(str(path), 1)


@pytest.mark.parametrize("name", ["out.mp4", "out.avi"])
def test_film_that_fcn_run_wrote_is_replaced_as_the_output_of_one_source(tmp_path, fcn_run, film, name):
    path, longer = film("blue", 2), film("red", 5)
    assert fcn_run(path, tmp_path / name).code == 0
    assert fcn_run(longer, tmp_path / name).result["frames"] == 5
    assert fcn_run(path, longer, tmp_path / name).code == 2


@pytest.mark.parametrize(
    "text",
    [
        "null://",
        "out",
        "out/",
        "file:///tmp/none/out.mp4",
        "new.mp4",
        "photo.jpg",
        "display://0",
        "http://127.0.0.1:8080",
        "http://127.0.0.1:8080/",
        "http://[::1",
        "rtp://10.0.0.2:5004",
        "rtsp://server:8554/masked",
        "image_%04d.jpg",
    ],
)
@pytest.mark.parametrize("sources", [1, 2])
def test_output_is_no_source(tmp_path, monkeypatch, text, sources):
    monkeypatch.chdir(tmp_path)
    refuse_source_as_sink(text, sources)


def test_folder_of_digits_is_an_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2024").mkdir()
    refuse_source_as_sink("2024", 1)


def test_command_line_says_so_before_a_model_is_loaded(tmp_path, fcn_run, film):
    done = fcn_run(film("blue", 1), "/dev/video1", "--model", tmp_path / "no-such-bundle")
    assert done.code == 2
    assert "put the output after it: null:// writes nothing" in done.errors[0]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif"])
def test_picture_of_somebody_else_is_kept_and_our_own_is_replaced(tmp_path, fcn_run, suffix):
    photo, other = tmp_path / "a.png", tmp_path / f"b{suffix}"
    cv2.imwrite(str(photo), np.full((48, 64, 3), 90, np.uint8))
    cv2.imwrite(str(other), np.full((48, 64, 3), 200, np.uint8))
    before = other.read_bytes()
    refused = fcn_run(photo, other)
    assert (refused.code, other.read_bytes()) == (2, before)
    (error,) = refused.errors
    assert "is a picture that is there, and the last word names the output" in error
    assert error.endswith("to replace it, delete it first")
    for _ in range(2):
        assert fcn_run(photo, tmp_path / f"out{suffix}").code == 0
    assert cv2.imread(str(tmp_path / f"out{suffix}")).shape == (48, 64, 3)
