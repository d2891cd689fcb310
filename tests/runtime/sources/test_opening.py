"""What a word names, and one sentence for what it does not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fcnedge.runtime.errors import SourceError
from fcnedge.runtime.sources import InputOptions, open_source
from fcnedge.runtime.sources.opencv_build import opencv_has

from .conftest import names, write


@pytest.mark.parametrize("name", ["cat.jpg", "clip.avi", "folder/", "file://cat.jpg"])
def test_missing_file_is_named(tmp_path, name):
    with pytest.raises(SourceError, match="does not exist"):
        open_source(name if "://" in name else str(tmp_path / name))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="devices and named pipes are Unix's")
def test_what_is_no_file_is_neither_opened_nor_waited_for(tmp_path):
    os.mkfifo(tmp_path / "film.mp4")
    with pytest.raises(SourceError, match=r"film\.mp4 is neither a file nor a folder"):
        open_source(tmp_path / "film.mp4")
    with pytest.raises(
        SourceError, match="/dev/null is a device and no file; if it is a camera, write v4l2:///dev/null"
    ):
        open_source("/dev/null")


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


@pytest.mark.parametrize("form", ["{0}/cat.png", "file://{0}/cat.png", "{0}/*.png", "{0}/%d.png", "{0}/deep/er"])
def test_forbidden_path_is_one_sentence(forbidden_folder, form):
    with pytest.raises(SourceError, match=r"Permission denied|no file matches"):
        open_source(form.format(forbidden_folder))


@pytest.mark.parametrize("form", ["{0}", "file:///{0}", "{0}*", "/{0}/%d.png"])
def test_name_that_is_too_long_is_one_sentence(form):
    with pytest.raises(SourceError, match=r"File name too long|no file matches"):
        open_source(form.format("n" * 300))


def test_no_source_at_all_is_refused():
    with pytest.raises(SourceError, match="no source was given"):
        open_source("")


def test_camera_wishes_are_refused_by_files(tmp_path, photo):
    with pytest.raises(SourceError, match="cannot be asked for a size or frame rate"):
        open_source(write(tmp_path / "a.png", photo), InputOptions(width=640, height=480))
    with pytest.raises(SourceError, match=r"rtsp://me:\*\*\*@camera/ cannot be asked for a size or frame rate"):
        open_source("rtsp://me:secret@camera/", InputOptions(rate=5))


def test_importing_does_not_load_opencv():
    code = "import sys, fcnedge.runtime.sinks, fcnedge.runtime.overlay; assert 'cv2' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
