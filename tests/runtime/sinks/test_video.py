"""Films are read back by OpenCV, and by FFmpeg's own programs and GStreamer where they are installed."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys

import cv2
import pytest

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.sinks import open_sink
from fcnedge.runtime.sources import open_source


def means(path):
    capture = cv2.VideoCapture(str(path))
    found = []
    while (read := capture.read())[0]:
        found.append(float(read[1].mean()))
    return found


@pytest.mark.parametrize("name", ["out.mp4", "out.avi", "new/out.MP4"])
@pytest.mark.parametrize("size", [(64, 48), (65, 49)])
def test_film_holds_every_picture_at_the_rate_asked_for(tmp_path, result, name, size):
    width, height = size
    values = [10, 60, 110, 160, 210]
    with open_sink(tmp_path / name, fps=12) as sink:
        assert sink.shows == ("overlay",)
        for value in values:
            sink.take(*result(value=value, width=width, height=height))
    capture = cv2.VideoCapture(str(tmp_path / name))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(12)
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 5
    assert capture.get(cv2.CAP_PROP_FRAME_WIDTH) in (width, width - 1)  # colours of half size drop an odd column
    assert capture.get(cv2.CAP_PROP_FRAME_HEIGHT) in (height, height - 1)
    assert means(tmp_path / name) == pytest.approx(values, abs=6)


@pytest.mark.parametrize("name", ["out.mp4", "out.avi"])
def test_film_that_is_finished_can_be_searched(tmp_path, result, name):
    with open_sink(tmp_path / name, fps=25) as sink:
        for number in range(40):
            sink.take(*result(value=6 * number))
    capture = cv2.VideoCapture(str(tmp_path / name))
    for number in (33, 5, 39, 0):
        capture.set(cv2.CAP_PROP_POS_FRAMES, number)
        assert capture.read()[1].mean() == pytest.approx(6 * number, abs=5)


def test_film_takes_the_rate_of_its_source(tmp_path, result):
    with open_sink(tmp_path / "in.avi", fps=7) as sink:
        sink.take(*result())
    with open_source(tmp_path / "in.avi") as source, open_sink(tmp_path / "out.avi", source=source) as sink:
        sink.take(*result())
    assert cv2.VideoCapture(str(tmp_path / "out.avi")).get(cv2.CAP_PROP_FPS) == pytest.approx(7)


@pytest.mark.parametrize("name", ["out.mp4", "out.avi"])
@pytest.mark.parametrize(
    ("rate", "held"),
    [(90.123, 90.12), (29.97003, 29.97), (655.37, 655.4), (1000.0, 1000), (65.5349, 65.535), (0.001, 0.01)],
)
def test_film_takes_any_rate_that_a_source_may_have(tmp_path, result, name, rate, held):
    """FFmpeg's MPEG-4 encoder refuses 90123/1000 frames per second."""
    with open_sink(tmp_path / name, fps=rate) as sink:
        sink.take(*result())
        sink.take(*result())
    assert cv2.VideoCapture(str(tmp_path / name)).get(cv2.CAP_PROP_FPS) == pytest.approx(held, rel=1e-5)


RECORDER = """
import os, sys, time
import numpy as np
from fcnedge.runtime import Frame, Segmentation, StreamResult, open_sink
fps, height, width = 25, 240, 320
mask = np.zeros((height, width), np.uint8)
with open_sink(sys.argv[1], fps=fps) as sink:
    begun = time.monotonic()
    for index in range(10 * fps):
        time.sleep(max(0, begun + index / fps - time.monotonic()))
        frame = Frame(np.zeros((height, width, 3), np.uint8), "grey", index, 0.0)
        result = StreamResult(frame, Segmentation(mask, 0, 0, 0), "test", index, 0, 0.0, 0.0)
        sink.take(result, frame.image + 4 * (index % 60))
        print(index + 1, flush=True)
"""


@pytest.mark.parametrize("name", ["out.mp4", "out.avi"])
def test_killed_process_leaves_a_film_that_plays_to_its_last_frame(tmp_path, name):
    """Flat grey pictures make the smallest packets, which wait longest in whatever buffers there are."""
    path = tmp_path / name
    with subprocess.Popen([sys.executable, "-c", RECORDER, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(int(line) == 40 for line in process.stdout)
        os.kill(process.pid, signal.SIGKILL)
        told = [40, *map(int, process.stdout.read().split())]
    assert process.returncode == -signal.SIGKILL
    taken = told[-1]
    played = means(path)
    assert taken <= len(played) <= taken + 1  # the kill may have come before it was told
    assert played == pytest.approx([4 * (index % 60) for index in range(len(played))], abs=6)
    with open_source(path) as source:
        assert sum(1 for _ in source) == len(played)
        assert source.warning is None
        assert source.fps == pytest.approx(25)
    for other in (ffprobe_count, gstreamer_count):
        assert other(path) in (None, len(played))


@pytest.mark.parametrize("program", ["ffprobe", "gst-launch-1.0"])
@pytest.mark.parametrize("name", ["out.mp4", "out.avi"])
def test_other_programs_read_every_frame(tmp_path, result, program, name):
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed: apt-get install ffmpeg gstreamer1.0-tools gstreamer1.0-plugins-good")
    with open_sink(tmp_path / name, fps=25) as sink:
        for number in range(40):
            sink.take(*result(value=6 * number))
    count = ffprobe_count if program == "ffprobe" else gstreamer_count
    assert count(tmp_path / name) == 40


def ffprobe_count(path):
    """Frames that FFmpeg decodes; None without it. It finds no error."""
    if shutil.which("ffprobe") is None:
        return None
    words = ["-v", "error", "-count_frames", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"]
    ran = subprocess.run(["ffprobe", *words, str(path)], capture_output=True, text=True, check=True)
    assert ran.stderr == ""
    return int(ran.stdout)


def gstreamer_count(path):
    """Packets that GStreamer's demuxer, which is nobody else's, finds; None without it."""
    if shutil.which("gst-launch-1.0") is None:
        return None
    demuxer = "qtdemux" if path.suffix == ".mp4" else "avidemux"
    words = f"gst-launch-1.0 -v filesrc location={path} ! {demuxer} ! fakesink silent=false".split()
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    return ran.stdout.count("last-message = chain")


def test_film_of_two_sizes_is_refused(tmp_path, result):
    with open_sink(tmp_path / "out.avi", fps=5) as sink:
        sink.take(*result())
        with pytest.raises(UserError, match=r"64x48, but dog is 66x50.*name a folder"):
            sink.take(*result("dog", 50, 66))


def test_film_of_pictures_known_to_differ_in_size_is_refused_before_it_is_begun(tmp_path, files):
    pytest.importorskip("skimage", reason="the extra demo is not installed")
    sentence = r"out\.mp4 would have one size, but the pictures of demo:// have several; name a folder$"
    with pytest.raises(UserError, match=sentence):
        open_sink(tmp_path / "out.mp4", source=open_source("demo://"))
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["out.avi", "out.mp4"])
def test_film_whose_place_is_gone_is_one_sentence(tmp_path, result, name):
    (tmp_path / name).symlink_to(tmp_path / "nowhere" / name)
    with pytest.raises(UserError, match=rf"{name} cannot be written: No such file or directory$"):
        open_sink(tmp_path / name).take(*result())


@pytest.mark.parametrize("name", ["out.avi", "out.mp4"])
def test_full_disk_is_told_at_once_and_what_is_there_plays(tmp_path, result, noise, small_files, name):
    def fill(sink):
        for _ in range(100):
            sink.take(result()[0], noise(48, 64))

    sink = open_sink(tmp_path / name, fps=10)
    with small_files():
        with pytest.raises(UserError, match=rf"{name} cannot be written: File too large$"):
            fill(sink)
        with contextlib.suppress(UserError):  # the index may fit yet
            sink.close()
    assert 0 < sink.written < 100
    assert len(means(tmp_path / name)) == sink.written


@pytest.mark.parametrize("name", ["out.avi", "out.mp4"])
def test_film_without_frames_writes_nothing(tmp_path, files, name):
    open_sink(tmp_path / name).close()
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["out.avi", "out.mp4"])
def test_film_is_closed_once(tmp_path, result, name):
    sink = open_sink(tmp_path / name)
    sink.take(*result())
    sink.close()
    before = (tmp_path / name).read_bytes()
    sink.close()
    assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize("name", ["out.avi", "out.mp4"])
def test_pictures_larger_than_a_pipe_holds_are_taken(tmp_path, result, noise, name):
    """64 KB on Linux; a key frame of noise takes more."""
    with open_sink(tmp_path / name) as sink:
        for _ in range(3):
            sink.take(result()[0], noise(480, 640))
    assert (tmp_path / name).stat().st_size > 3 * 65536
    assert len(means(tmp_path / name)) == 3


@pytest.mark.parametrize("name", ["out.avi", "out.mp4"])
def test_film_is_as_long_as_its_frames_last(tmp_path, result, name):
    with open_sink(tmp_path / name, fps=8) as sink:
        for _ in range(20):
            sink.take(*result())
    capture = cv2.VideoCapture(str(tmp_path / name))
    times = []
    while capture.read()[0]:
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC))
    assert times == pytest.approx([number / 8 * 1000 for number in range(20)])
