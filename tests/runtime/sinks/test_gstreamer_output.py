"""The command lines of streams, as text; test_network.py runs them."""

from urllib.parse import urlsplit

import pytest

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.sinks import gstreamer_output
from fcnedge.runtime.sinks.gstreamer_output import h264_encoder, launch_command, stream_output


def test_pictures_are_read_encoded_and_sent():
    command = launch_command((640, 480), 29.97, "x264enc", stream_output(urlsplit("rtp://10.0.0.1:5000")))
    assert command[:2] == ["gst-launch-1.0", "-q"]
    pipeline = " ".join(command[2:])
    assert pipeline.startswith("fdsrc fd=0 blocksize=921600 ! rawvideoparse format=bgr width=640 height=480 framerate=")
    assert "framerate=2997/100 ! videoconvert ! video/x-raw,format=I420 ! x264enc tune=zerolatency" in pipeline
    assert "key-int-max=30 ! h264parse ! rtph264pay config-interval=1 pt=96 ! udpsink" in pipeline
    assert pipeline.endswith("host=10.0.0.1 port=5000")


def test_jetsons_encoder_gets_its_memory_and_bits():
    pipeline = " ".join(launch_command((640, 480), 25, "nvv4l2h264enc", []))
    assert (
        "nvvidconv ! video/x-raw(memory:NVMM),format=NV12 ! nvv4l2h264enc bitrate=1536000 iframeinterval=25" in pipeline
    )


def test_login_is_decoded_and_leaves_the_address():
    output = stream_output(urlsplit("rtsp://me:a%2Fb%22c@[::1]:8554/live?x=1"))
    assert 'location="rtsp://[::1]:8554/live?x=1"' in output
    assert 'user-id="me"' in output
    assert 'user-pw="a/b\\"c"' in output


def test_encoder_that_does_not_work_is_passed_over(monkeypatch):
    """On a Jetson Orin Nano NVIDIA's is installed, and there is no such hardware."""
    monkeypatch.setattr(gstreamer_output.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(gstreamer_output, "_works", lambda name: name == "openh264enc")
    assert h264_encoder("it") == "openh264enc"
    monkeypatch.setattr(gstreamer_output, "_works", lambda name: False)
    with pytest.raises(
        UserError, match=r"^it needs an H\.264 encoder of GStreamer's, and .*x264enc, .* do not work here"
    ):
        h264_encoder("it")
