"""An RTSP camera before it is connected; streams/test_rtsp.py has a real server."""

import os

import pytest

from fcnedge.runtime.errors import SourceError
from fcnedge.runtime.sources import InputOptions, open_source, rtsp
from fcnedge.runtime.sources.rtsp import FFMPEG_OPTIONS


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


def test_codec_that_rtsp_has_not_is_refused_at_once_and_not_tried_for_ever(monkeypatch):
    monkeypatch.setattr(rtsp, "opencv_has", lambda library: library == "GStreamer")
    with pytest.raises(SourceError, match="not raw"):
        open_source("rtsp://camera/live", InputOptions(codec="raw"))
