"""Damaged pictures and films in fcn-run: one line each, and the next one goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from .conftest import in_its_own_process, one_line, refused, write


def damaged_png(path: Path) -> Path:
    """Whole at both ends, nonsense in the middle: libpng speaks to file descriptor 2 by itself."""
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    data = bytearray(write(path, noise).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(range(200))
    path.write_bytes(data)
    return path


def test_damaged_picture_is_one_line_whatever_libpng_says(tmp_path, tiny_bundle):
    path = damaged_png(tmp_path / "bad.png")
    said = subprocess.run(
        [sys.executable, "-c", f"import cv2; cv2.imread({str(path)!r})"], capture_output=True, text=True, check=True
    )
    assert "libpng" in said.stderr, "the picture is damaged in a way that libpng does not mind"
    assert f"{path} is damaged" in one_line(in_its_own_process(path, "--model", tiny_bundle))


@pytest.mark.parametrize("sink", ["out", "out.avi", "null://", None])
@pytest.mark.parametrize("bad", ["img1.png", "img2.png", "img10.png"])
def test_damaged_picture_of_a_folder_is_named_and_counted_and_the_next_goes_on(
    tmp_path, tiny_bundle, pictures, sink, bad
):
    data = (pictures / bad).read_bytes()
    (pictures / bad).write_bytes(data[: len(data) // 2])
    where = [] if sink is None else [sink if "://" in sink else tmp_path / sink]
    done = in_its_own_process(pictures, *where, "--model", tiny_bundle, "--json", tmp_path / "r.json")
    assert done.returncode == 0
    damage = f"{pictures / bad} is truncated: it lacks PNG's IEND chunk; copy it again"
    first, second = done.stderr.splitlines()
    assert first == f"fcn-run: {damage}"
    # notes.txt is the other
    assert second == "fcn-run: files passed over because they are no pictures, or damaged: 2"
    (source,) = json.loads((tmp_path / "r.json").read_text())["sources"]
    assert (source["frames"], source["skipped_files"], source["warning"]) == (2, 2, damage)
    if sink == "out":
        good = {"img1.png", "img2.png", "img10.png"} - {bad}
        assert {path.name for path in (tmp_path / "out" / "masks").iterdir()} == good
    if sink == "out.avi":
        assert cv2.VideoCapture(str(tmp_path / "out.avi")).get(cv2.CAP_PROP_FRAME_COUNT) == 2


def test_words_of_libpng_about_a_damaged_picture_are_not_said_of_the_next(tmp_path, tiny_bundle, pictures):
    damaged_png(pictures / "img2.png")
    done = in_its_own_process(pictures, tmp_path / "out", "--model", tiny_bundle)
    first, _ = done.stderr.splitlines()
    assert (
        first == f"fcn-run: {pictures / 'img2.png'} is damaged: it begins like a picture, but OpenCV cannot decode it"
    )


def test_folder_of_nothing_but_damaged_pictures_is_one_line_beside_the_log(tmp_path, tiny_bundle, pictures):
    for path in pictures.glob("*.png"):
        path.write_bytes(path.read_bytes()[:60])
    done = in_its_own_process(pictures, tmp_path / "out", "--model", tiny_bundle)
    assert (done.returncode, done.stdout) == (2, "")
    said = f"fcn-run: none of the 3 pictures of {pictures} can be read, the first being that {pictures / 'img1.png'} is"
    assert done.stderr.splitlines()[-1].startswith(said)
    assert list((tmp_path / "out" / "masks").iterdir()) == []


@pytest.mark.parametrize(("odd", "before"), [("img2", "1 frame before it was"), ("img10", "2 frames before it were")])
def test_pictures_of_two_sizes_in_one_film_say_how_much_of_it_there_is(
    tmp_path, tiny_bundle, pictures, capsys, odd, before
):
    write(pictures / f"{odd}.png", np.zeros((40, 40, 3), np.uint8))
    film = tmp_path / "out.avi"
    assert refused(capsys, pictures, film, "--model", tiny_bundle) == (
        f"{film} is 30x20, but {odd} is 40x40; a video has one size: name a folder instead; {before} written to {film}"
    )


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("notes.png", b"buy milk\n" * 100, "is not a picture that OpenCV can read"),
        ("notes.txt", b"buy milk\n" * 100, "it looks like text"),
        ("half.jpg", b"\xff\xd8\xff\xe0" + bytes(100), "is truncated"),
        ("empty.mp4", b"", "is empty: it has 0 bytes"),
        ("noise.mp4", bytes(range(256)) * 50, "neither a picture nor a video"),
        ("head.mp4", b"\0hello" * 1000, "neither a picture nor a video"),
    ],
)
def test_file_that_is_no_picture_or_video_is_one_line(tmp_path, tiny_bundle, name, data, reason):
    (tmp_path / name).write_bytes(data)
    assert reason in one_line(in_its_own_process(tmp_path / name, "--model", tiny_bundle))


def test_libraries_may_speak_when_asked_to(tmp_path, tiny_bundle):
    """What the user sets is left as it is: FFmpeg says more about the file than we can."""
    (tmp_path / "head.mp4").write_bytes(b"\0hello" * 1000)
    loud = in_its_own_process(tmp_path / "head.mp4", "--model", tiny_bundle, OPENCV_FFMPEG_LOGLEVEL="16")
    assert loud.returncode == 2
    assert "moov atom not found" in loud.stdout  # where OpenCV lets FFmpeg speak


def test_video_that_breaks_off_gives_its_frames_a_warning_and_exit_0(tmp_path, tiny_bundle, clip):
    whole = clip.read_bytes()
    clip.write_bytes(whole[: len(whole) * 6 // 10])
    done = in_its_own_process(clip, tmp_path / "out", "--model", tiny_bundle, "--json", tmp_path / "r.json")
    assert done.returncode == 0
    result = json.loads((tmp_path / "r.json").read_text())
    assert 3 < result["frames"] < 11
    assert len(list((tmp_path / "out" / "masks").iterdir())) == result["frames"]
    warning = result["sources"][0]["warning"]
    assert warning == f"clip.avi promised 12 frames but ended after {result['frames']}"
    assert done.stderr == f"fcn-run: {warning}\n"
    assert f"{result['frames']} frames with tiny" in done.stdout


def test_picture_that_libjpeg_could_still_decode_is_named(tmp_path, tiny_bundle):
    """libjpeg does not say which of a thousand files it speaks of."""
    noise = np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.jpg", noise)
    data = write(tmp_path / "in" / "b.jpg", noise).read_bytes()
    (tmp_path / "in" / "b.jpg").write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    done = in_its_own_process(tmp_path / "in", tmp_path / "out", "--model", tiny_bundle)
    assert done.returncode == 0
    assert done.stderr.startswith("fcn-run: b: ")
    assert done.stderr.count("\n") == 1
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 2
