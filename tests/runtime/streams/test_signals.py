"""How programs end: Ctrl-C, SIGTERM, and with a stream left open, in processes of their own."""

import signal
import subprocess
import sys

import cv2
import pytest

PROGRAM = """
import sys
from fcnedge.runtime import Bundle, FakeBackend, Segmenter, open_sink
from fcnedge.runtime.command import run_command
from fcnedge.runtime.streams import Pipeline

def run():
    bundle = Bundle.load(sys.argv[1])
    with Segmenter(bundle, FakeBackend(bundle.manifest)) as segmenter, open_sink(sys.argv[2], fps=15) as sink:
        def write(result):
            sink.take(result, result.frame.image)
            print(sink.written, flush=True)

        with Pipeline(["demo://camera"], segmenter, [write]) as pipeline:
            pipeline.run()

sys.exit(run_command(run, "program"))
"""


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_signal_ends_the_program_and_its_film_is_whole(tiny_bundle, tmp_path, number, code, word):
    pytest.importorskip("skimage", reason="the extra demo is not installed")
    film = tmp_path / "film.avi"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tiny_bundle), str(film)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        for _ in range(5):
            process.stdout.readline()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, f"program: {word}.\n")
    written = int(out.split()[-1]) if out.split() else 5
    capture = cv2.VideoCapture(str(film))
    played = 0
    while capture.read()[0]:
        played += 1
    capture.release()
    assert played == written >= 5


LEFT_OPEN = """
import socket, sys, threading
from fcnedge.runtime import Bundle, FakeBackend, Segmenter
from fcnedge.runtime.streams import Stream

bundle = Bundle.load(sys.argv[1])
# It takes the connection and says nothing, and is closed when Python is taken down: then FFmpeg's call returns.
silent = socket.create_server(("127.0.0.1", 0))
address = f"rtsp://127.0.0.1:{silent.getsockname()[1]}/clip"
stream = Stream(address, Segmenter(bundle, FakeBackend(bundle.manifest)), stall_timeout_s=4)
threading.Thread(target=lambda: list(stream), daemon=True).start()
silent.accept()[0].close()  # of the question whether anything listens
connection = silent.accept()[0]  # of FFmpeg
if sys.argv[2] == "closed":
    stream.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["closed", "left open"])
def test_program_ends_in_order_while_a_call_to_a_camera_is_under_way(tiny_bundle, how):
    ran = subprocess.run(
        [sys.executable, "-c", LEFT_OPEN, str(tiny_bundle), how],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
