"""Sinks write what other programs read: Pillow for pictures, cv2.VideoCapture for films."""

import logging
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.palette import voc_palette
from fcnedge.runtime.sinks import open_sink
from fcnedge.runtime.sources import Frame, open_source


def result(name="cat", height=48, width=64, value=8):
    """A frame, a mask and an overlay that differ from those of another `value`."""
    mask = np.zeros((height, width), np.uint8)
    mask[: height // 2] = value
    overlay = np.full((height, width, 3), value, np.uint8)
    return Frame(np.zeros((height, width, 3), np.uint8), name, 0, 0.0), mask, overlay


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("uri", [None, "null://"])
def test_null_sink_counts(uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_sink(uri) as sink:
        sink.write(*result())
        sink.write(*result())
    assert sink.written == 2
    assert files(tmp_path) == []


# Folders


@pytest.mark.parametrize("form", ["{0}/out", "{0}/out/", "{0}/deep/er/out/", "file://{0}/out", "{0}/v1.2/"])
def test_folder_takes_masks_with_palette_and_overlays(tmp_path, form):
    uri = form.format(tmp_path)
    frame, mask, overlay = result()
    with open_sink(uri) as sink:
        sink.write(frame, mask, overlay)
    folder = tmp_path / uri.removeprefix("file://").removeprefix(f"{tmp_path}/")
    assert files(folder) == [".fcn-run", "masks/cat.png", "overlays/cat.jpg"]
    with Image.open(folder / "masks/cat.png") as picture:
        assert picture.mode == "P"
        assert (np.asarray(picture) == mask).all()
        assert picture.getpalette() == voc_palette().ravel().tolist()
    with Image.open(folder / "overlays/cat.jpg") as picture:
        assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - overlay).max() <= 3


def test_folder_uses_the_models_own_palette(tmp_path):
    with open_sink(tmp_path, palette=np.array([[9, 8, 7], [6, 5, 4]], np.uint8)) as sink:
        sink.write(*result(value=1))
    with Image.open(tmp_path / "masks/cat.png") as picture:
        assert (picture.getpalette() or [])[:6] == [9, 8, 7, 6, 5, 4]


def test_same_stem_twice_is_kept_twice_and_said(tmp_path, caplog):
    with caplog.at_level(logging.WARNING), open_sink(tmp_path) as sink:
        for value, name in enumerate(["cat", "cat_2", "cat", "CAT", "dog"]):
            sink.write(*result(name, value=value))
    masks = {path.stem: int(np.asarray(Image.open(path)).max()) for path in (tmp_path / "masks").iterdir()}
    assert masks == {"cat": 0, "cat_2": 1, "cat_3": 2, "CAT_4": 3, "dog": 4}
    assert "cat came twice; this one is written as cat_3" in caplog.text


def test_second_run_replaces_the_first(tmp_path):
    for value in (1, 2):
        with open_sink(tmp_path) as sink:
            sink.write(*result(value=value))
    assert files(tmp_path) == [".fcn-run", "masks/cat.png", "overlays/cat.jpg"]
    assert np.asarray(Image.open(tmp_path / "masks/cat.png")).max() == 2


@pytest.mark.parametrize("part", ["masks", "overlays"])
def test_files_that_no_run_wrote_are_not_replaced(tmp_path, part):
    """`fcn-run dataset/images dataset`, where somebody drew dataset/masks by hand."""
    drawn = tmp_path / part / "cat.png"
    drawn.parent.mkdir()
    drawn.write_bytes(b"by hand")
    with pytest.raises(UserError, match=f"{part} holds files that fcn-run did not write; name another folder"):
        open_sink(tmp_path)
    assert files(tmp_path) == [f"{part}/cat.png"]
    assert drawn.read_bytes() == b"by hand"


def test_empty_masks_and_other_files_beside_them_are_no_hindrance(tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "notes.txt").write_text("other")
    with open_sink(tmp_path) as sink:
        sink.write(*result())
    assert files(tmp_path) == [".fcn-run", "masks/cat.png", "notes.txt", "overlays/cat.jpg"]


@pytest.mark.parametrize("part", ["masks", "overlays"])
@pytest.mark.parametrize("link", [False, True], ids=["named", "through a link"])
def test_folder_does_not_overwrite_the_pictures_it_reads(tmp_path, part, link):
    """`fcn-run out/overlays out`."""
    with open_sink(tmp_path / "out") as sink:
        sink.write(*result())
    folder = tmp_path / "out" / part
    before = next(folder.iterdir()).read_bytes()
    if link:
        (tmp_path / "shots").symlink_to(folder, target_is_directory=True)
    source = open_source(tmp_path / "shots" if link else folder)
    with pytest.raises(UserError, match=f"{part} holds the source's own files"):
        open_sink(tmp_path / "out", source=source)
    assert next(folder.iterdir()).read_bytes() == before


@pytest.mark.parametrize("form", ["{0}", "{0}/", "file://{0}", "{0}/../shots", "{0}/../link"])
def test_folder_that_is_the_source_is_refused_and_nothing_written_there(tmp_path, form):
    """`fcn-run shots shots`."""
    folder = tmp_path / "shots"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    cv2.imwrite(str(folder / "a.png"), np.zeros((4, 4, 3), np.uint8))
    sentence = r"is the source itself; write into a folder of its own, such as .*/out$"
    with pytest.raises(UserError, match=sentence):
        open_sink(form.format(folder), source=open_source(folder))
    assert files(folder) == ["a.png"]
    assert [path.name for path in folder.iterdir()] == ["a.png"]
    with open_sink(folder / "out", source=open_source(folder)) as sink:  # as the message says
        sink.write(*result())
    assert files(folder / "out") == [".fcn-run", "masks/cat.png", "overlays/cat.jpg"]


def test_folder_where_a_file_lies_is_refused(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match="cannot be made"):
        open_sink(f"{tmp_path}/taken/out")


# One picture


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".bmp", ".webp", ".tif"])
def test_picture_takes_the_overlay(tmp_path, suffix):
    with open_sink(tmp_path / f"new/out{suffix}") as sink:
        sink.write(*result(value=100))
    assert files(tmp_path) == [f"new/out{suffix}"]
    with Image.open(tmp_path / f"new/out{suffix}") as picture:
        assert picture.size == (64, 48)
        assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - 100).max() <= 3


def test_second_picture_is_refused(tmp_path):
    with open_sink(tmp_path / "out.png") as sink:
        sink.write(*result(value=1))
        with pytest.raises(UserError, match="holds one picture"):
            sink.write(*result(value=2))
    assert np.asarray(Image.open(tmp_path / "out.png")).max() == 1


def test_many_pictures_into_one_are_refused_before_any_work(tmp_path):
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UserError, match="holds one picture"):
        open_sink(tmp_path / "out.png", source=open_source(f"{tmp_path}/*.png"))


@pytest.mark.parametrize("form", ["{0}", "file://{0}"])
def test_source_is_not_overwritten(tmp_path, form):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UserError, match="is the source itself"):
        open_sink(form.format(path), source=open_source(form.format(path)))


@pytest.mark.parametrize("form", ["file://{0}/my%20clip.avi", "file://localhost{0}/my%20clip.avi", "{0}/./my clip.avi"])
def test_film_in_any_spelling_is_not_overwritten(tmp_path, form):
    path = tmp_path / "my clip.avi"
    with open_sink(path, fps=5) as sink:
        sink.write(*result())
    before = path.read_bytes()
    with open_source(form.format(tmp_path)) as source, pytest.raises(UserError, match="is the source itself"):
        open_sink(path, source=source).write(*result())
    assert path.read_bytes() == before


@pytest.mark.parametrize("form", ["{0}", "{0}/*.png", "{0}/a%d.png"])
def test_single_picture_of_a_folder_is_not_overwritten(tmp_path, form):
    path = tmp_path / "a1.png"
    cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UserError, match="is the source itself"):
        open_sink(path, source=open_source(form.format(tmp_path)))


def test_link_to_the_source_is_not_written_through(tmp_path):
    path = tmp_path / "a.avi"
    with open_sink(path, fps=5) as sink:
        sink.write(*result())
    (tmp_path / "b.avi").symlink_to(path)
    with open_source(path) as source, pytest.raises(UserError, match="is the source itself"):
        open_sink(tmp_path / "b.avi", source=source)


def test_interrupt_while_writing_leaves_no_part_behind(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_sink(tmp_path / "out.png").write(*result())
    assert files(tmp_path) == []


@pytest.mark.parametrize("uri", ["{0}/" + "n" * 300, "{0}/" + "n" * 300 + ".png", "{0}/" + "n" * 300 + "/out.avi"])
def test_name_that_is_too_long_is_one_sentence(tmp_path, uri):
    with pytest.raises(UserError, match=r"cannot be (made|written): File name too long"):
        open_sink(uri.format(tmp_path)).write(*result())


@pytest.mark.parametrize("name", ["out/", "out", "deep/out.png", "out.png"])
def test_folder_that_is_forbidden_is_one_sentence(forbidden_folder, name):
    with pytest.raises(UserError, match=r"cannot be (made|written|read): Permission denied"):
        open_sink(f"{forbidden_folder}/{name}").write(*result())


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are Unix's")
def test_full_disk_is_one_sentence_and_leaves_the_old_picture(tmp_path):
    path = tmp_path / "out.png"
    with open_sink(path) as sink:
        sink.write(*result(value=3))
    before = path.read_bytes()
    frame, mask, _ = result()
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    with pytest.raises(UserError, match=r"out\.png cannot be written: File too large$"), small_files():
        open_sink(path).write(frame, mask, noise)
    assert files(tmp_path) == ["out.png"]
    assert path.read_bytes() == before


class small_files:  # noqa: N801 - a context manager
    """No file may grow past 16 KiB: the nearest to a full disk that a test can have."""

    def __enter__(self):
        import resource

        self._old = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (16 * 1024, self._old[1]))

    def __exit__(self, *_):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, self._old)


# Films


@pytest.mark.parametrize("name", ["out.mp4", "out.avi", "new/out.MP4"])
@pytest.mark.parametrize("size", [(64, 48), (65, 49)])
def test_film_holds_every_overlay_at_the_rate_asked_for(tmp_path, name, size):
    width, height = size
    values = [10, 60, 110, 160, 210]
    with open_sink(tmp_path / name, fps=12) as sink:
        for value in values:
            sink.write(*result(value=value, width=width, height=height))
    capture = cv2.VideoCapture(str(tmp_path / name))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(12)
    means = []
    while (read := capture.read())[0]:
        assert read[1].shape[0] in (height, height - 1)  # codecs of half-size colour drop an odd row
        means.append(read[1].mean())
    assert means == pytest.approx(values, abs=6)


def test_film_takes_the_rate_of_its_source(tmp_path):
    with open_sink(tmp_path / "in.avi", fps=7) as sink:
        sink.write(*result())
    with open_source(tmp_path / "in.avi") as source, open_sink(tmp_path / "out.avi", source=source) as sink:
        sink.write(*result())
    assert cv2.VideoCapture(str(tmp_path / "out.avi")).get(cv2.CAP_PROP_FPS) == pytest.approx(7)


@pytest.mark.parametrize(
    ("rate", "held"),
    [(90.123, 90.12), (29.97003, 29.97), (655.37, 655.4), (1000.0, 1000), (65.5349, 65.535), (0.001, 0.01)],
)
def test_film_takes_any_rate_that_a_source_may_have(tmp_path, rate, held):
    """FFmpeg's MPEG-4 encoder refuses 90123/1000 frames per second."""
    with open_sink(tmp_path / "out.mp4", fps=rate) as sink:
        sink.write(*result())
        sink.write(*result())
    assert cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FPS) == pytest.approx(held, rel=1e-5)


def test_avi_outlives_a_killed_process(tmp_path):
    """What the README promises; an .mp4 has its index at the end, which never came."""
    program = f"""
import os, signal
import numpy as np
from fcnedge.runtime.sinks import open_sink
from fcnedge.runtime.sources import Frame
noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
sink = open_sink({str(tmp_path / "out.avi")!r}, fps=20)
for index in range(50):
    sink.write(Frame(noise, "noise", index, 0.0), noise[..., 0], np.roll(noise, index, axis=1))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    with open_source(tmp_path / "out.avi") as source:
        assert 45 <= sum(1 for _ in source) <= 50


def test_film_of_two_sizes_is_refused(tmp_path):
    with open_sink(tmp_path / "out.avi", fps=5) as sink:
        sink.write(*result())
        with pytest.raises(UserError, match=r"64x48, but dog is 66x50.*name a folder"):
            sink.write(*result("dog", 50, 66))


def test_film_of_pictures_known_to_differ_in_size_is_refused_before_it_is_begun(tmp_path):
    pytest.importorskip("skimage", reason="the extra demo is not installed")
    sentence = r"out\.mp4 would have one size, but the pictures of demo:// have several; name a folder$"
    with pytest.raises(UserError, match=sentence):
        open_sink(tmp_path / "out.mp4", source=open_source("demo://"))
    assert files(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no /proc here")
@pytest.mark.parametrize("name", ["x", "x/", "x.png", "x.mp4"])
def test_place_where_nobody_can_write_is_one_sentence(name):
    """Not even root, whom permissions do not stop."""
    with pytest.raises(UserError, match=r"^(the folder )?/proc/x\S* cannot be (made|written)"):
        open_sink(f"/proc/{name}").write(*result())


def test_writer_that_does_not_open_names_its_codec(tmp_path):
    (tmp_path / "out.avi").symlink_to(tmp_path / "nowhere" / "out.avi")
    with pytest.raises(UserError, match="codec MJPG"):
        open_sink(tmp_path / "out.avi").write(*result())


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are Unix's")
@pytest.mark.parametrize("name", ["out.avi", "out.mp4"])
def test_film_cut_by_a_full_disk_is_told(tmp_path, name):
    sink = open_sink(tmp_path / name, fps=10)
    frame, mask, _ = result(height=240, width=320)
    random = np.random.default_rng(0)
    with small_files():
        for _ in range(20):
            sink.write(frame, mask, random.integers(0, 256, (240, 320, 3), np.uint8))
        with pytest.raises(UserError, match=r"holds \d+ of 20 frames; is the disk full"):
            sink.close()
    sink.close()


def test_error_in_the_loop_is_not_hidden_by_closing(tmp_path):
    def loop_that_fails():
        with open_sink(tmp_path / "out.avi") as sink:
            sink.write(*result())
            (tmp_path / "out.avi").unlink()  # closing would complain
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop_that_fails()


def test_film_without_frames_writes_nothing(tmp_path):
    open_sink(tmp_path / "out.avi").close()
    assert files(tmp_path) == []


# What is not written


@pytest.mark.parametrize("uri", ["display://0", "http://127.0.0.1:8080", "rtp://10.0.0.1:1234"])
def test_unsupported_schemes_say_what_is_written(uri):
    with pytest.raises(UserError, match=f"does not write to {uri.split(':')[0]}://.*null://"):
        open_sink(uri)


@pytest.mark.parametrize("uri", ["out.txt", "out.webm", "", "file://"])
def test_unknown_endings_say_what_is_written(uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="fcnedge writes a folder"):
        open_sink(uri)
