"""Pipelines as text: element by element, and every string that a user could smuggle an element in with."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnedge.runtime import SourceError
from fcnedge.runtime.sources import InputOptions
from fcnedge.runtime.sources.address import split_address
from fcnedge.runtime.sources.gstreamer import (
    csi_pipeline,
    is_live_pipeline,
    quoted,
    rtsp_pipeline,
    user_pipeline,
    v4l2_pipeline,
)

RTSP_SERVER = Path(__file__).parents[1] / "streams" / "rtsp_server.py"
BGR = "videoconvert ! video/x-raw, format=(string)BGR"
LIVE = f"{BGR} ! appsink drop=true max-buffers=1 sync=false"


def test_csi_camera():
    assert csi_pipeline(0, InputOptions()) == (
        "nvarguscamerasrc sensor-id=0 ! video/x-raw(memory:NVMM), width=(int)1280, height=(int)720, "
        "framerate=(fraction)30/1, format=(string)NV12 ! nvvidconv flip-method=0 ! "
        f"video/x-raw, format=(string)BGRx ! {LIVE}"
    )


def test_csi_camera_with_wishes():
    pipeline = csi_pipeline(1, InputOptions(width=1920, height=1080, rate=29.97, flip="rotate-180"))
    assert "sensor-id=1 " in pipeline
    assert "width=(int)1920, height=(int)1080, framerate=(fraction)2997/100" in pipeline
    assert "nvvidconv flip-method=2 " in pipeline


@pytest.mark.parametrize(
    ("options", "middle"),
    [
        (InputOptions(), ""),
        (InputOptions(width=640, height=480), "video/x-raw, width=(int)640, height=(int)480 ! "),
        (InputOptions(rate=60, codec="raw"), "video/x-raw, framerate=(fraction)60/1 ! "),
        (InputOptions(codec="mjpeg"), "image/jpeg ! jpegdec ! "),
        (
            InputOptions(width=1280, height=720, rate=30, codec="mjpeg"),
            "image/jpeg, width=(int)1280, height=(int)720, framerate=(fraction)30/1 ! jpegdec ! ",
        ),
    ],
)
def test_webcam(options, middle):
    assert v4l2_pipeline("/dev/video0", options) == f'v4l2src device="/dev/video0" ! {middle}{LIVE}'


def test_webcam_sends_no_film():
    with pytest.raises(SourceError, match="mjpeg or raw"):
        v4l2_pipeline("/dev/video0", InputOptions(codec="h265"))


def test_rtsp_camera_on_a_jetson_is_decoded_in_hardware():
    address = split_address("rtsp://me:p%40ss@10.0.0.5:8554/live?stream=1")
    pipeline = rtsp_pipeline(address, InputOptions(latency_ms=200, codec="h265"), jetson=True)
    assert pipeline == (
        'rtspsrc location="rtsp://10.0.0.5:8554/live?stream=1" protocols=tcp latency=200 timeout=5000000 '
        'tcp-timeout=5000000 user-id="me" user-pw="p@ss" ! rtph265depay ! h265parse ! nvv4l2decoder ! nvvidconv ! '
        f"video/x-raw, format=(string)BGRx ! {LIVE}"
    )


def test_rtsp_camera_elsewhere_is_decoded_by_what_is_there():
    address = split_address("rtsp://[fe80::1]/live")
    pipeline = rtsp_pipeline(address, InputOptions(timeout_s=0.5), jetson=False)
    assert pipeline == (
        'rtspsrc location="rtsp://[fe80::1]/live" protocols=tcp latency=10 timeout=500000 tcp-timeout=500000 ! '
        f"decodebin ! {LIVE}"
    )


@pytest.mark.parametrize("jetson", [True, False])
def test_rtsp_camera_sends_nothing_raw(jetson):
    with pytest.raises(SourceError, match="not raw"):
        rtsp_pipeline(split_address("rtsp://cam/"), InputOptions(codec="raw"), jetson=jetson)


@given(st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"])))
def test_no_value_ends_its_quotes(value):
    text = quoted(value)
    assert re.fullmatch(r'"(?:\\.|[^"\\])*"', text, re.DOTALL)
    assert re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL) == value


@pytest.mark.parametrize(
    ("typed", "made"),
    [
        ("videotestsrc ! videoconvert", f"videotestsrc ! videoconvert ! {LIVE}"),
        ("videotestsrc !", f"videotestsrc ! {LIVE}"),
        ("videotestsrc ! appsink", "videotestsrc ! appsink drop=true max-buffers=1 sync=false"),
        ("videotestsrc ! appsink drop=false", "videotestsrc ! appsink drop=false max-buffers=1 sync=false"),
        (
            "videotestsrc ! appsink sync=true name=a max-buffers = 7",
            "videotestsrc ! appsink sync=true name=a max-buffers = 7 drop=true",
        ),
        (
            "filesrc location=a.mp4 ! decodebin",
            f"filesrc location=a.mp4 ! decodebin ! {BGR} ! appsink drop=false max-buffers=4 sync=false",
        ),
        (
            "filesrc location=a.mp4 ! decodebin ! appsink",
            "filesrc location=a.mp4 ! decodebin ! appsink drop=false max-buffers=4 sync=false",
        ),
    ],
)
def test_typed_pipelines_get_the_sink_that_suits_them(typed, made):
    assert user_pipeline(typed) == made
    assert user_pipeline(made) == made


@pytest.mark.parametrize(
    ("pipeline", "live"),
    [
        ("v4l2src ! videoconvert", True),
        ("rtspsrc location=rtsp://cam/filesrc ! decodebin", True),
        ("videotestsrc is-live=true ! appsink", True),
        ("filesrc location=a.mp4 ! decodebin", False),
        ("  multifilesrc location=a%04d.png ! pngdec", False),
        ("uridecodebin uri=file:///a.mp4 ! videoconvert", False),
        ('uridecodebin uri="file:///a.mp4" ! videoconvert', False),
        ("uridecodebin uri=rtsp://cam/1 ! videoconvert", True),
    ],
)
def test_files_are_told_from_cameras(pipeline, live):
    assert is_live_pipeline(pipeline) is live


SYSTEM_PROGRAM = """
import itertools, sys
import cv2
from fcnedge.runtime import SourceError
from fcnedge.runtime.sources import InputOptions, open_source
from fcnedge.runtime.sources.opencv_build import opencv_has
if not opencv_has("GStreamer"):
    sys.exit(77)
uri = "videotestsrc is-live=true pattern=white ! video/x-raw,width=64,height=48,framerate=30/1"
with open_source(uri, InputOptions(flip="clockwise")) as source:
    frames = list(itertools.islice(source, 5))
assert source.live and [frame.index for frame in frames] == [0, 1, 2, 3, 4]
assert all(frame.image.shape == (64, 48, 3) and frame.image.min() > 200 for frame in frames)
with open_source(f"filesrc location={sys.argv[1]} ! decodebin") as source:
    assert not source.live and [frame.index for frame in source] == list(range(12))
for wrong in sys.argv[2:]:
    try:
        next(iter(open_source(wrong)))
    except SourceError as error:
        print(error)
"""
WRONG = {
    "filesrc location=/none ! decodebin": "",
    "videotestsrcx ! videoconvert": ': no element "videotestsrcx"',  # OpenCV 4.6 waits for this one for good
    "videotestsrc ! videoconvertx": ': no element "videoconvertx"',
    "videotestsrc patern=1 ! videoconvert": ': no property "patern" in element "videotestsrc"',  # and for this one
    "filesrc location=/none ! pngdecx": ': no element "pngdecx"',
}


SILENT_PROGRAM = """
import os, sys, threading
from fcnedge.runtime import SourceError
from fcnedge.runtime.sources import InputOptions, open_source
from fcnedge.runtime.sources.opencv_build import opencv_has
if not opencv_has("GStreamer"):
    sys.exit(77)

def pipeline():
    reading, writing = os.pipe()
    return f"fdsrc fd={reading} ! rawvideoparse width=8 height=6 format=bgr framerate=30/1", writing

uri, writing = pipeline()
with open_source(uri, InputOptions(timeout_s=0.2)) as source:
    for attempt in range(3):
        try:
            next(iter(source))
        except SourceError as error:
            assert str(error) == f"{uri} has sent nothing for 0.2 seconds", error
    assert threading.active_count() <= 2, "each attempt waits for the first one's call"
    os.write(writing, bytes([9]) * (8 * 6 * 3 * 4))
    frame = None
    while frame is None:
        try:
            frame = next(iter(source))
        except SourceError:
            pass
assert frame.image.shape == (6, 8, 3) and (frame.image == 9).all()

source, frames = open_source(pipeline()[0], InputOptions(timeout_s=3000)), []
reading = threading.Thread(target=lambda: frames.extend(source))
reading.start()
while source._opening is None:
    pass
source.close()
reading.join()
assert frames == []
print("ended")
"""


def test_pipelines_run_in_an_opencv_that_has_gstreamer(tmp_path):
    import cv2
    import numpy as np

    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for _ in range(12):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    assert run_by_the_system(SYSTEM_PROGRAM, str(tmp_path / "a.avi"), *WRONG) == [
        f"GStreamer cannot run {pipeline}{reason}; try it with gst-launch-1.0 first."
        for pipeline, reason in WRONG.items()
    ]


def test_silent_pipeline_is_given_up_in_time_closed_at_once_and_live_when_it_speaks():
    assert run_by_the_system(SILENT_PROGRAM) == ["ended"]


FROZEN_PROGRAM = """
import os, signal, subprocess, sys, threading, time
from fcnedge.runtime.sources import InputOptions, rtsp
from fcnedge.runtime.sources.opencv_build import opencv_has
from fcnedge.runtime import SourceError
if not opencv_has("GStreamer"):
    sys.exit(77)
rtsp.opencv_has = lambda name: name == "GStreamer"  # as on a Jetson, with whatever decoder is here

def started(port):
    server = subprocess.Popen(["/usr/bin/python3", sys.argv[1], str(port)], stdout=subprocess.PIPE, text=True)
    return server, int(server.stdout.readline().split()[1])

def live(source):
    while True:
        try:
            frames = iter(source)
            return next(frames), frames
        except SourceError:
            time.sleep(0.1)

server, port = started(0)
with rtsp.RtspSource(f"rtsp://127.0.0.1:{port}/clip", InputOptions(timeout_s=2)) as source:
    _, frames = live(source)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        for frame in frames:
            pass
    except SourceError as error:
        print(error)
    left = [each.name for each in threading.enumerate() if "reading" in each.name]
    server.kill()
    server.wait()
    server, port = started(port)
    frame, frames = live(source)
    assert frame.image.ndim == 3
    frames.close()
server.kill()
while any("reading" in each.name for each in threading.enumerate()):
    time.sleep(0.1)  # the read that was left has returned, its server being gone
print(len(left), "reading while the server was frozen")
print(port)
"""


def test_frozen_rtsp_server_is_given_up_through_gstreamer_too(rtsp_server_installed):
    lost, left, port = run_by_the_system(FROZEN_PROGRAM, str(RTSP_SERVER))
    assert lost == f"rtsp://127.0.0.1:{port}/clip ended, or sent nothing for 2 seconds"
    assert left == "1 reading while the server was frozen"


def run_by_the_system(program, *words):
    """What the program prints in the system's Python, with the system's OpenCV, Debian's or JetPack's."""
    python = shutil.which("/usr/bin/python3")
    if python is None or subprocess.run([python, "-c", "import cv2"], capture_output=True, check=False).returncode:
        pytest.skip("no OpenCV with GStreamer: apt-get install python3-opencv gstreamer1.0-plugins-base")
    root = Path(__file__).resolve().parents[3]
    ran = subprocess.run(
        [python, "-c", program, *words],
        env={**os.environ, "PYTHONPATH": str(root / ".typing"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if ran.returncode == 77 or "requires a different Python" in ran.stderr:
        pytest.skip("the system's OpenCV was built without GStreamer")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()
