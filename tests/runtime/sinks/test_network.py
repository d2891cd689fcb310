"""Streams over loopback to real receivers: a GStreamer pipeline for RTP, GStreamer's RTSP server in record mode."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.sinks import open_sink
from fcnedge.runtime.sinks.gstreamer_output import h264_encoder

WATCHDOG_S = 30.0
CODEC = 6
"""Grey levels that two conversions between 0..255 and a film's 16..235, and the encoder between them, may take."""
HERE = Path(__file__).resolve().parent
INSTALL = "apt-get install gstreamer1.0-tools gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly gstreamer1.0-libav"


class Film:
    uri, fps, live, is_video = "film.mp4", 25.0, False, True


class Camera(Film):
    live = True


@pytest.fixture
def gstreamer():
    try:
        h264_encoder("the test")
    except UserError as error:
        pytest.skip(str(error))
    if subprocess.run(["gst-inspect-1.0", "--exists", "avdec_h264"], check=False).returncode:
        pytest.skip(f"nothing decodes H.264: {INSTALL}")


@pytest.fixture
def receiver(gstreamer, tmp_path):
    """Give a function that ends a receiver of RTP and gives its pictures, and the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    caps = "application/x-rtp,media=video,clock-rate=90000,encoding-name=H264,payload=96"
    words = f"gst-launch-1.0 -e udpsrc address=127.0.0.1 port={port} caps={caps} ! rtph264depay ! avdec_h264 ! "
    words += f"videoconvert ! video/x-raw,format=BGR ! filesink location={tmp_path / 'pictures'}"
    process = subprocess.Popen(words.split(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert any("PLAYING" in line for line in process.stdout)

    def received(height, width):
        process.send_signal(2)
        process.communicate(timeout=WATCHDOG_S)
        return np.frombuffer((tmp_path / "pictures").read_bytes(), np.uint8).reshape(-1, height, width, 3)

    yield port, received
    process.kill()
    process.communicate()


def test_film_over_rtp_arrives_whole_and_in_order(receiver, result):
    port, received = receiver
    values = range(20, 220, 5)
    threads = threading.active_count()
    with open_sink(f"rtp://127.0.0.1:{port}", source=Film) as sink:
        assert sink.shows == ("overlay",)
        for value in values:
            sink.take(*result(value=value, height=97, width=129))  # H.264 has even sizes here
        assert sink.written == len(values)
    assert threading.active_count() == threads
    pictures = received(96, 128)
    kept = [float(picture.mean()) for picture in pictures]
    assert kept[0] == pytest.approx(20, abs=CODEC)
    assert kept[-1] == pytest.approx(215, abs=CODEC)
    assert sorted(kept) == kept
    assert len(kept) >= len(values)


@pytest.fixture
def recorder(gstreamer):
    """Give an RTSP server that takes streams: its port and the lines that it says."""
    probe = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    python = shutil.which("/usr/bin/python3")
    exists = ["gst-inspect-1.0", "--exists", "rtspclientsink"]
    if python is None or any(
        subprocess.run(each, capture_output=True, check=False).returncode for each in ([python, "-c", probe], exists)
    ):
        pytest.skip("no RTSP server: apt-get install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-rtsp")
    process = subprocess.Popen([python, str(HERE / "rtsp_recorder.py"), 'me:p w!"x'], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield int(process.stdout.readline().split()[1]), process.stdout
    process.kill()
    process.communicate()


def test_camera_that_pauses_goes_on_with_its_last_picture(recorder, result):
    port, lines = recorder
    sink = open_sink(f"rtsp://me:p%20w%21%22x@127.0.0.1:{port}/live", source=Camera)
    assert sink.uri == f"rtsp://me:***@127.0.0.1:{port}/live"
    with sink:
        sink.take(*result(value=120, height=96, width=128))
        for _ in range(10):
            width, height, mean = map(int, lines.readline().split())
            assert (width, height) == (128, 96)
            assert mean == pytest.approx(120, abs=CODEC)


def test_camera_of_another_size_begins_a_new_stream(recorder, result):
    port, lines = recorder
    with open_sink(f"rtsp://me:p%20w%21%22x@127.0.0.1:{port}/live", source=Camera) as sink:
        for height, width in ((96, 128), (48, 64)):
            sink.take(*result(height=height, width=width))
            assert any(line.startswith(f"{width} {height} ") for line in lines)
        assert sink.written == 2


@pytest.mark.parametrize(
    ("login", "path", "words"), [("me:wrong", "live", "Not authorized"), ("me:p%20w%21%22x", "other", "not found")]
)
def test_server_that_refuses_is_quoted_without_the_password(recorder, result, login, path, words):
    port, _ = recorder
    sink = open_sink(f"rtsp://{login}@127.0.0.1:{port}/{path}", source=Film)

    def run():
        with sink:
            while True:
                sink.take(*result())

    with pytest.raises(
        UserError, match=rf"^rtsp://me:\*\*\*@127.0.0.1:{port}/{path} is lost: GStreamer says .*{words}"
    ):
        run()


@pytest.fixture
def stand_in(gstreamer, tmp_path, monkeypatch):
    """Give a function that puts a shell script in gst-launch-1.0's place."""
    if sys.platform == "win32":
        pytest.skip("the stand-in is a shell script")

    def put(script):
        program = tmp_path / "gst-launch-1.0"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    return put


def test_gstreamer_that_reads_no_more_does_not_hold_up_the_end(stand_in, result):
    stand_in("exec sleep 120")
    threads = threading.active_count()
    sink = open_sink("rtp://127.0.0.1:5000", source=Camera)
    sink.take(*result(height=480, width=640))  # more than a pipe holds
    closing = threading.Thread(target=sink.close, daemon=True)
    closing.start()
    closing.join(WATCHDOG_S)
    assert not closing.is_alive()
    assert threading.active_count() == threads


def test_first_of_gstreamers_errors_is_quoted_for_the_others_follow_from_it(stand_in, result):
    stand_in("for each in 'Not authorized' 'Could not write'; do echo ERROR: from element a: $each >&2; done")

    def run():
        with open_sink("rtp://127.0.0.1:5000", source=Film) as sink:
            while True:
                sink.take(*result())

    with pytest.raises(UserError, match=r"^rtp://127.0.0.1:5000 is lost: GStreamer says 'Not authorized'$"):
        run()


def test_address_where_nothing_listens_is_one_sentence(gstreamer):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UserError, match=rf"^rtsp://me:\*\*\*@127.0.0.1:{port}/x: nothing listens on port {port} of"):
        open_sink(f"rtsp://me:secret@127.0.0.1:{port}/x")


@pytest.mark.skipif(sys.platform == "win32", reason="the path is Unix's")
def test_machine_without_gstreamer_is_told_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"^rtp://10.0.0.1:5000 needs GStreamer's gst-launch-1.0, .*apt-get install"):
        open_sink("rtp://10.0.0.1:5000")
