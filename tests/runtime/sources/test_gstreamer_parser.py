"""A pipeline's text without GStreamer in OpenCV; with it, test_gstreamer.py asks the system's."""

from __future__ import annotations

import pytest

from fcnedge.runtime import SourceError
from fcnedge.runtime.sources import gstreamer_parser
from fcnedge.runtime.sources.gstreamer_parser import check_pipeline, why_no_pipeline
from fcnedge.runtime.sources.opencv_build import opencv_has


def test_without_gstreamer_nothing_is_said():
    if opencv_has("GStreamer"):
        pytest.skip("this OpenCV has GStreamer")
    assert why_no_pipeline("no-such-element ! appsink") is None
    check_pipeline("no-such-element ! appsink", "a pipeline", "look at it")


def test_reason_is_one_sentence_without_a_password(monkeypatch):
    said = 'could not set property "location" in element "x" to "rtsp://me:secret@cam/1"'
    monkeypatch.setattr(gstreamer_parser, "why_no_pipeline", lambda text: said)
    with pytest.raises(SourceError) as refusal:
        check_pipeline("x location=rtsp://me:secret@cam/1", "rtsp://me:***@cam/1", "look at it")
    assert str(refusal.value) == (
        'GStreamer cannot run rtsp://me:***@cam/1: could not set property "location" in element "x" to '
        '"rtsp://me:***@cam/1"; look at it'
    )
