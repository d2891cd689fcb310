"""Every kind of source on real files: written by OpenCV and Pillow, cut short by the byte."""

import logging
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fcnedge.runtime.errors import SourceError, UserError
from fcnedge.runtime.sources import Frame, InputOptions, Source, open_source
from fcnedge.runtime.sources.opencv_build import opencv_has
from fcnedge.runtime.sources.rtsp import FFMPEG_OPTIONS


@pytest.fixture
def photo():
    """(60, 80, 3) uint8 BGR, smooth, so that JPEG keeps it close."""
    rows, columns = np.mgrid[0:60, 0:80]
    return np.stack([rows * 4, columns * 3, 255 - rows * 2], axis=-1).astype(np.uint8)


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip.avi", frames=100)


def write_clip(path, frames, codec="MJPG", fps=20.0):
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (64, 48))
    assert writer.isOpened()
    for shift in range(frames):
        writer.write(np.roll(noise, shift, axis=1))
    writer.release()
    return path


def write(path, image):
    assert cv2.imwrite(str(path), image)
    return path


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def names(source):
    return [frame.name for frame in source]


# One picture


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp", ".jpg", ".JPG", ".ppm"])
def test_picture_is_one_frame(tmp_path, photo, suffix):
    source = open_source(write(tmp_path / f"a b{suffix}", photo))
    assert isinstance(source, Source)
    assert (source.live, source.is_video, source.length, source.fps, source.skipped) == (False, False, 1, None, 0)
    [frame] = source
    assert isinstance(frame, Frame)
    assert (frame.name, frame.index, frame.timestamp_s) == ("a b", 0, 0.0)
    assert frame.image.shape == photo.shape
    assert frame.image.dtype == np.uint8
    tolerance = 40 if suffix in (".webp", ".jpg", ".JPG") else 0
    assert np.abs(frame.image.astype(int) - photo).max() <= tolerance
    assert [again.name for again in source] == ["a b"]  # a file can be read again


def test_picture_without_an_ending_is_known_by_its_bytes(tmp_path, photo):
    path = write(tmp_path / "a.png", photo).rename(tmp_path / "a")
    assert (next(iter(open_source(path))).image == photo).all()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA"])
def test_grey_rgba_and_palette_pictures_become_bgr(tmp_path, photo, mode):
    original = Image.fromarray(np.ascontiguousarray(photo[..., ::-1])).convert(mode)
    original.save(tmp_path / "a.png")
    [frame] = open_source(tmp_path / "a.png")
    assert (frame.image[..., ::-1] == np.asarray(original.convert("RGB"))).all()


def test_sixteen_bits_become_eight(tmp_path, photo):
    [frame] = open_source(write(tmp_path / "a.png", photo.astype(np.uint16) * 257))
    assert frame.image.dtype == np.uint8
    assert np.abs(frame.image.astype(int) - photo).max() <= 1


def test_exif_orientation_is_applied(tmp_path, photo):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    Image.fromarray(photo).save(tmp_path / "a.jpg", exif=exif)
    [frame] = open_source(tmp_path / "a.jpg")
    assert frame.image.shape == (80, 60, 3)


# Pictures that are none


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_text_renamed_is_named_as_no_picture(tmp_path, suffix):
    path = tmp_path / f"notes{suffix}"
    path.write_text("buy milk\n" * 1000)
    with pytest.raises(SourceError, match=rf"notes\{suffix} is not a picture"):
        open_source(path)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95, 0.999])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_truncated_picture_is_refused(tmp_path, photo, suffix, share):
    path = cut(write(tmp_path / f"half{suffix}", photo), share)
    with pytest.raises(SourceError, match=rf"half\{suffix} is truncated"):
        open_source(path)


@pytest.mark.parametrize("make", ["progressive", "thumbnail", "comment"])
def test_whole_jpegs_of_every_make_are_read_and_their_halves_refused(tmp_path, photo, make):
    # A thumbnail is a whole JPEG, with its end marker, before the picture's own scan.
    thumbnail = cv2.imencode(".jpg", photo[::4, ::4])[1].tobytes()
    options: dict[str, Any] = {
        "progressive": {"progressive": True},
        "thumbnail": {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + thumbnail},
        "comment": {"comment": b"\xff\xd9\xff\xda"},
    }
    whole, half = tmp_path / "whole.jpg", tmp_path / "half.jpg"
    Image.fromarray(photo).save(whole, **options[make])
    assert next(iter(open_source(whole))).image.shape == photo.shape
    half.write_bytes(whole.read_bytes())
    with pytest.raises(SourceError, match=r"half\.jpg is truncated"):
        open_source(cut(half, 0.95))


def test_jpeg_with_bytes_after_its_end_is_read(tmp_path, photo):
    path = write(tmp_path / "phone.jpg", photo)
    path.write_bytes(path.read_bytes() + b"SEFT" * 50_000)  # phones append films and depth maps
    assert next(iter(open_source(path))).image.shape == photo.shape


@settings(deadline=None)  # a corrupted size can ask for a large picture
@given(st.integers(0, 2**32 - 1), st.sampled_from([".jpg", ".png", ".bmp", ".webp", ".tif", ".ppm"]))
def test_corrupted_pictures_give_a_frame_or_a_source_error(seed, suffix):
    chance = random.Random(seed)
    data = bytearray(cv2.imencode(suffix, np.full((9, 7, 3), seed % 256, np.uint8))[1].tobytes())
    for _ in range(3):
        data[chance.randrange(min(len(data), 64))] = chance.randrange(256)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a{suffix}")
        path.write_bytes(data)
        try:
            frames = list(open_source(path))
        except SourceError as error:
            message = str(error)
            assert "\n" not in message
        else:
            assert frames[0].image.dtype == np.uint8
            assert frames[0].image.shape[2:] == (3,)


@pytest.mark.parametrize("name", ["a.jpg", "a.avi", "a"])
def test_empty_file_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(SourceError, match="0 bytes"):
        open_source(tmp_path / name)


@pytest.mark.parametrize("name", ["cat.jpg", "clip.avi", "folder/", "file://cat.jpg"])
def test_missing_file_is_named(tmp_path, name):
    with pytest.raises(SourceError, match="does not exist"):
        open_source(name if "://" in name else str(tmp_path / name))


# Many pictures


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


def test_damaged_picture_in_a_folder_is_named_when_its_turn_comes(tmp_path, photo):
    for name in ["1.jpg", "2.jpg", "3.jpg"]:
        write(tmp_path / name, photo)
    cut(tmp_path / "2.jpg", 0.5)
    frames = iter(open_source(tmp_path))
    assert next(frames).name == "1"
    with pytest.raises(SourceError, match=r"2\.jpg is truncated"):
        next(frames)


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


@pytest.mark.parametrize("form", ["file://{0}/a b.png", "file://localhost{0}/a b.png", "file://{0}/a%20b.png"])
def test_file_uris(tmp_path, photo, form):
    write(tmp_path / "a b.png", photo)
    source = open_source(form.format(tmp_path))
    assert names(source) == ["a b"]
    assert source.uri == form.format(tmp_path)


def test_relative_file_uri_and_percent_in_a_name(tmp_path, photo, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "100%done.png", photo)
    assert names(open_source("file://100%done.png")) == ["100%done"]
    assert names(open_source("100%done.png")) == ["100%done"]


# Video files


@pytest.mark.parametrize(("name", "codec"), [("clip.avi", "MJPG"), ("clip.mp4", "mp4v")])
def test_video_gives_every_frame(tmp_path, name, codec):
    path = write_clip(tmp_path / name, frames=12, codec=codec)
    with open_source(path) as source:
        assert (source.live, source.is_video, source.length, source.fps) == (False, True, 12, 20.0)
        frames = list(source)
        assert [frame.index for frame in frames] == list(range(12))
        assert [frame.name for frame in frames][:2] == ["clip_000000", "clip_000001"]
        assert frames[5].timestamp_s == pytest.approx(0.25)
        assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
        assert not (frames[0].image == frames[1].image).all()  # no buffer is used twice
        assert source.warning is None
        assert len(list(source)) == 12  # a second time, from the start


def test_truncated_video_gives_what_decodes_and_a_warning(clip, caplog):
    source = open_source(cut(clip, 0.6))
    with caplog.at_level(logging.WARNING):
        delivered = len(list(source))
    assert 40 < delivered < 70
    assert source.warning == f"clip.avi promised 100 frames but ended after {delivered}"
    assert source.warning in caplog.text


def test_video_without_a_single_frame_is_refused(clip):
    headers = clip.read_bytes().index(b"movi")
    clip.write_bytes(clip.read_bytes()[:headers])
    with pytest.raises(SourceError, match=r"clip\.avi"):
        list(open_source(clip))


def test_mp4_without_its_index_is_refused(tmp_path):
    path = cut(write_clip(tmp_path / "clip.mp4", frames=30, codec="mp4v"), 0.6)
    with pytest.raises(SourceError, match=r"clip\.mp4 is neither a picture nor a video that OpenCV can open"):
        open_source(path)


@pytest.mark.parametrize("name", ["notes.txt", "notes.mp4", "notes"])
def test_text_is_no_video(tmp_path, name):
    (tmp_path / name).write_text("FFmpeg would play this as a film of a terminal\n" * 200)
    with pytest.raises(SourceError, match="looks like text"):
        open_source(tmp_path / name)


def test_closing_twice_and_leaving_early_do_no_harm(clip):
    with open_source(clip) as source:
        assert next(iter(source)).index == 0
    source.close()
    source.close()
    assert next(iter(source)).index == 0


# Cameras, the demonstration, and what is not read


@pytest.mark.parametrize("uri", ["97", "/dev/video97", "v4l2:///dev/video97", "v4l2://97", "/dev/v4l/by-id/none"])
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="device paths are Linux's")
def test_absent_camera_is_named(uri):
    with pytest.raises(SourceError, match=r"there is no camera /dev/v(ideo97|4l/by-id/none); this machine"):
        open_source(uri)


def test_folder_named_like_a_number_comes_before_the_camera(tmp_path, photo, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2024").mkdir()
    write(tmp_path / "2024" / "cat.png", photo)
    with open_source("2024") as source:
        assert not source.live
        assert names(source) == ["cat"]
    with pytest.raises(SourceError, match="there is no camera /dev/video2024"):
        open_source("v4l2://2024")


def test_camera_uri_without_a_camera_is_refused():
    with pytest.raises(SourceError, match="names no camera"):
        open_source("v4l2://")


@pytest.mark.parametrize("uri", ["rtp://@:1234", "webrtc://me:secret@camera:8554/live", "rtmp://x/y"])
def test_unsupported_schemes_say_what_is_read_and_repeat_no_password(uri):
    with pytest.raises(SourceError, match=f"this version does not read {uri.split(':')[0]}:// .*demo://") as caught:
        open_source(uri)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "uri", ["csi://0", "videotestsrc ! videoconvert", "multifilesrc location=a[1]%04d.png ! pngdec"]
)
def test_what_needs_gstreamer_is_refused_with_reason_and_mend_where_opencv_has_none(uri):
    if opencv_has("GStreamer"):
        pytest.skip("this OpenCV has GStreamer")
    with pytest.raises(
        SourceError, match=r"needs an OpenCV with GStreamer.*pip's never has it.*--system-site-packages"
    ):
        open_source(uri)


@pytest.mark.parametrize("uri", ["csi://", "csi://front", "csi://0/1"])
def test_csi_camera_has_a_number(uri):
    with pytest.raises(SourceError, match="names no CSI camera"):
        open_source(uri)


def test_network_camera_is_not_connected_before_it_is_iterated():
    with open_source("rtsp://me:secret@127.0.0.1:1/live") as source:
        assert (source.live, source.is_video) == (True, True)
        assert source.uri == "rtsp://me:***@127.0.0.1:1/live"
        assert "secret" not in repr(source)


def test_rtsp_asks_ffmpeg_for_tcp_once_and_leaves_a_users_own_wish(monkeypatch):
    monkeypatch.delenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", raising=False)
    open_source("rtsp://camera/live")
    assert "rtsp_transport;tcp" in os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"]
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;udp")
    open_source("rtsp://camera/live")
    assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] == "rtsp_transport;udp"


def test_film_plays_alike_under_the_options_for_rtsp(clip, monkeypatch):
    plain = [frame.timestamp_s for frame in open_source(clip)]
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", FFMPEG_OPTIONS)
    assert [frame.timestamp_s for frame in open_source(clip)] == plain


@pytest.mark.parametrize("form", ["{0}/cat.png", "file://{0}/cat.png", "{0}/*.png", "{0}/%d.png", "{0}/deep/er"])
def test_forbidden_path_is_one_sentence(forbidden_folder, form):
    with pytest.raises(SourceError, match=r"Permission denied|no file matches"):
        open_source(form.format(forbidden_folder))


@pytest.mark.parametrize("form", ["{0}", "file:///{0}", "{0}*", "/{0}/%d.png"])
def test_name_that_is_too_long_is_one_sentence(form):
    with pytest.raises(SourceError, match=r"File name too long|no file matches"):
        open_source(form.format("n" * 300))


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


def test_no_source_at_all_is_refused():
    with pytest.raises(SourceError, match="no source was given"):
        open_source("")


def test_camera_wishes_are_refused_by_files(tmp_path, photo):
    with pytest.raises(SourceError, match="cannot be asked for a size or frame rate"):
        open_source(write(tmp_path / "a.png", photo), InputOptions(width=640, height=480))
    with pytest.raises(SourceError, match=r"rtsp://me:\*\*\*@camera/ cannot be asked for a size or frame rate"):
        open_source("rtsp://me:secret@camera/", InputOptions(rate=5))


def test_demo_photographs():
    pytest.importorskip("skimage", reason="the extra demo is not installed")
    source = open_source("demo://")
    frames = list(source)
    assert (source.is_video, source.live, source.length) == (False, False, len(frames))
    assert {"astronaut", "chelsea"} <= {frame.name for frame in frames}


def test_demo_clip():
    pytest.importorskip("skimage", reason="the extra demo is not installed")
    source = open_source("demo://clip")
    frames = list(source)
    assert (source.is_video, source.live, source.length, source.fps) == (True, False, len(frames), 15.0)
    assert frames[15].timestamp_s == pytest.approx(1.0)


def test_demo_camera_is_the_clip_in_real_time_without_end():
    pytest.importorskip("skimage", reason="the extra demo is not installed")
    clip = [frame.image for frame in open_source("demo://clip")]
    source = open_source("demo://camera")
    assert (source.live, source.is_video, source.length, source.fps) == (True, True, None, 15.0)
    frames = []
    for frame in source:
        frames.append(frame)
        if frame.index == 3:
            source.close()  # for good, and at once
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert all(any((frame.image == image).all() for image in clip) for frame in frames)
    stamps = [frame.timestamp_s for frame in frames]
    assert stamps == sorted(stamps)


def test_unknown_demo_names_the_known_ones():
    with pytest.raises(SourceError, match="demo://clip"):
        open_source("demo://cats")


def test_missing_opencv_names_the_extra(tmp_path, photo, monkeypatch):
    path = write(tmp_path / "a.png", photo)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match=r"fcnedge\[gui\]"):
        open_source(path)


def test_importing_does_not_load_opencv():
    code = "import sys, fcnedge.runtime.sinks, fcnedge.runtime.overlay; assert 'cv2' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
