"""Windows on a real X server, by an OpenCV that has windows: this Python's or the system's."""

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.sinks import open_sink

HERE = Path(__file__).resolve().parent
WATCHDOG_S = 30.0

PROGRAM = """
import os, signal, sys, threading
import numpy as np
from fcnedge.runtime import Frame, Segmentation, StreamResult, UserError, open_sink
from fcnedge.runtime.sinks import SinkClosed

class Picture:
    uri, fps, live, is_video = "cat.jpg", None, False, False

def result(colour):
    frame = Frame(np.full((120, 160, 3), colour, np.uint8), "frame", 0, 0.0)
    return StreamResult(frame, Segmentation(frame.image[..., 0], 0, 0, 0), "test", 0, 0, 0.0, 0.0), frame.image

def show(title, colour):
    try:
        with open_sink("display://0", title=title) as sink:
            while True:
                sink.take(*result(colour))
                if sink.written == 3:
                    print("shows", title, flush=True)
    except SinkClosed:
        print("closed", title, flush=True)
    except UserError as error:
        print("refused", error, flush=True)

threads = [threading.Thread(target=show, args=each) for each in (("red", (0, 0, 255)), ("blue", (255, 0, 0)))]
if sys.argv[1] == "two":
    for thread in threads: thread.start()
    for thread in threads: thread.join()
elif sys.argv[1] == "one":
    show("red", (0, 0, 255))
elif sys.argv[1] == "frozen":
    sink = open_sink("display://", title="red")
    sink.take(*result((0, 0, 255)))
    os.kill(sink._window.pid, signal.SIGSTOP)
    def take():
        try:
            sink.take(*result((0, 0, 255)))
        except UserError as error:
            print(error, flush=True)
    thread = threading.Thread(target=take)
    thread.start()
    while sink._taking.acquire(blocking=False):
        sink._taking.release()
    sink.close()
    thread.join()
    print("closed", sink.written, flush=True)
else:
    with open_sink("display://", source=Picture) as sink:
        sink.take(*result((0, 255, 0)))
        print("shows cat.jpg", flush=True)
        if sys.argv[1] == "failing picture":
            raise ZeroDivisionError
        sink.close()
        print("closed cat.jpg", flush=True)
"""


@functools.cache
def python_with_windows():
    """A Python whose OpenCV has windows; None where there is none."""
    code = r"import cv2, re, sys; sys.exit(bool(re.search(r'GUI:\s*NONE', cv2.getBuildInformation())))"
    for python in (sys.executable, "/usr/bin/python3"):
        if (
            shutil.which(python)
            and not subprocess.run([python, "-c", code], capture_output=True, check=False).returncode
        ):
            return python
    return None


@pytest.fixture
def start():
    """Give the function that starts PROGRAM on a display."""
    if python_with_windows() is None:
        pytest.skip("no OpenCV with windows: apt-get install python3-opencv, or opencv-python instead of -headless")
    started = []

    def run(display, mode):
        environment = {**os.environ, "DISPLAY": display, "PYTHONDONTWRITEBYTECODE": "1"}
        environment["PYTHONPATH"] = str(HERE.parents[2] / ".typing")
        command = [python_with_windows(), "-c", PROGRAM, mode]
        started.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def screen(tmp_path):
    if not shutil.which("Xvfb") or not shutil.which("xdotool"):
        pytest.skip("no X server and hands for it: apt-get install xvfb xdotool")
    spec = importlib.util.spec_from_file_location("screen", HERE / "screen.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    screen = module.Screen(tmp_path)
    yield screen
    screen.kill()


def eventually(condition):
    until = time.monotonic() + WATCHDOG_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_two_windows_of_one_program_are_closed_each_for_itself(screen, start):
    process = start(screen.display, "two")
    assert {process.stdout.readline(), process.stdout.readline()} == {"shows red\n", "shows blue\n"}
    screen.place("red", 0, 0, 160, 120)
    screen.place("blue", 300, 200, 160, 120)
    eventually(lambda: screen.pixels((0, 0, 255)) > 15_000 and screen.pixels((255, 0, 0)) > 15_000)
    screen.press("red", "q")
    assert process.stdout.readline() == "closed red\n"
    eventually(lambda: screen.pixels((0, 0, 255)) == 0)
    assert screen.pixels((255, 0, 0)) > 15_000
    screen.press("blue", "Escape")
    assert process.stdout.readline() == "closed blue\n"
    assert process.wait(WATCHDOG_S) == 0
    assert process.stderr.read() == ""


def test_cross_in_the_title_bar_closes(screen, start):
    process = start(screen.display, "one")
    assert process.stdout.readline() == "shows red\n"
    screen.close("red")
    assert process.stdout.readline() == "closed red\n"


def test_other_keys_close_nothing(screen, start):
    process = start(screen.display, "one")
    assert process.stdout.readline() == "shows red\n"
    screen.press("red", "x")
    screen.press("red", "q")
    assert process.stdout.readline() == "closed red\n"
    assert process.wait(WATCHDOG_S) == 0


def test_display_that_is_lost_is_one_sentence(screen, start):
    process = start(screen.display, "one")
    assert process.stdout.readline() == "shows red\n"
    screen.destroy("red")
    assert process.stdout.readline() == "refused the window of display://0 was lost; is the display still there?\n"


def test_single_picture_stays_until_it_is_closed(screen, start):
    process = start(screen.display, "picture")
    assert process.stdout.readline() == "shows cat.jpg\n"
    eventually(lambda: screen.pixels((0, 255, 0)) > 15_000)
    screen.press("cat.jpg", "q")
    assert process.stdout.readline() == "closed cat.jpg\n"
    assert process.wait(WATCHDOG_S) == 0


def test_window_of_a_run_that_fails_is_closed_at_once(screen, start):
    process = start(screen.display, "failing picture")
    output, errors = process.communicate(timeout=WATCHDOG_S)
    assert output == "shows cat.jpg\n"
    assert errors.splitlines()[-1] == "ZeroDivisionError"


def test_window_that_has_frozen_in_mid_picture_is_closed_all_the_same(screen, start):
    process = start(screen.display, "frozen")
    output, errors = process.communicate(timeout=WATCHDOG_S)
    lost = "the window of display:// was lost; is the display still there?"
    assert (process.returncode, output.splitlines(), errors) == (0, [lost, "closed 1"], "")


def test_window_ends_with_a_program_that_is_killed(screen, start):
    process = start(screen.display, "one")
    assert process.stdout.readline() == "shows red\n"
    screen.place("red", 0, 0, 160, 120)
    eventually(lambda: screen.pixels((0, 0, 255)) > 15_000)
    process.kill()
    eventually(lambda: screen.pixels((0, 0, 255)) == 0)


@pytest.mark.skipif(sys.platform != "linux", reason="X is Linux's here")
def test_display_that_does_not_answer_is_one_sentence(start):
    output, _ = start(":12345", "one").communicate(timeout=WATCHDOG_S)
    sentence = "no window can be opened on display :12345; set DISPLAY, or to look from another machine, name http://"
    assert output.startswith(f"refused display://0: {sentence}")
    assert output.count("\n") == 1


def test_opencv_without_windows_says_which_has_them(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:                           NONE\n")
    with pytest.raises(UserError, match=r"built without .*pip install 'fcnedge\[gui\]'; .* name http://127.0.0.1:8080"):
        open_sink("display://0")


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has its display without a variable")
def test_machine_without_display_is_told(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:                           QT5\n")
    with pytest.raises(UserError, match=r"neither DISPLAY nor WAYLAND_DISPLAY is set; .* set DISPLAY=:0; .* http://"):
        open_sink("display://0")
