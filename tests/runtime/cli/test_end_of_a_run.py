"""fcn-run on sources without an end: Ctrl-C and SIGTERM end a camera's run in order, and interrupt a film's."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request

import cv2
import pytest

CAMERA = """
import itertools, signal, sys, time
import numpy as np
from fcnedge.runtime import cli
from fcnedge.runtime.run import session
from fcnedge.runtime.sources.frame import Frame, Source

class Camera(Source):
    def __iter__(self):
        for index in itertools.count():
            yield Frame(np.full((20, 30, 3), (255, 0, 0), np.uint8), f"camera_{index:06d}", index, time.monotonic())
            if signals and index >= 4 and written:
                signal.raise_signal(signals.pop())
            if self.live:
                time.sleep(0.02)

def add(tally, result, drawn_ms, add=session.Tally.add):
    add(tally, result, drawn_ms)
    written.append(result.sequence)

signals, written = [int(word) for word in sys.argv[1:2] if word != "0"], []
session.Tally.add = add
session.open_named = lambda *_: Camera("camera", live=sys.argv[2] == "live", is_video=True, fps=20.0)
code = cli.main(sys.argv[3:])
print("written", len(written), written == sorted(written), file=sys.stderr)
sys.exit(code)
"""
"""After five frames, and once a result was written, somebody ends the run; in a process of its own, which a lost signal
would never end: neither source has an end."""


def camera_run(end: signal.Signals, kind: str, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CAMERA, str(int(end)), kind, "camera", *map(str, words), "--backend", "fake"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_camera_ended_by_a_signal_reports_and_is_exit_0(tmp_path, tiny_bundle, end):
    done = camera_run(end, "live", tmp_path / "out.mp4", "--model", tiny_bundle, "--json", tmp_path / "r.json")
    assert done.returncode == 0
    result = json.loads((tmp_path / "r.json").read_text())
    frames, live = result["frames"], result["sources"][0]["live"]
    assert done.stderr == f"written {frames} True\n"
    assert cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == frames
    assert live["captured"] >= 5
    assert live["captured"] == live["dropped"] + frames
    assert (live["connections"], set(live["age"])) == (1, {"p50_ms", "p90_ms", "max_ms"})
    assert set(result["stages"]) == {"preprocess", "infer", "head", "overlay", "total"}
    assert "with tiny" in done.stdout
    assert f"camera   {live['captured']} frames, {live['dropped']} dropped, " in done.stdout


def test_camera_is_shown_on_a_live_page_until_somebody_ends_it(tiny_bundle):
    words = ["0", "live", "camera", "http://127.0.0.1:0", "--model", str(tiny_bundle), "--backend", "fake"]
    with subprocess.Popen([sys.executable, "-c", CAMERA, *words], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        address = run.stdout.readline().removeprefix("live page: ").strip()
        status = {}
        for _ in range(5_000):
            with urllib.request.urlopen(f"{address.rstrip('/')}/status.json", timeout=30) as answer:
                status = json.load(answer)
            if status["sources"] and status["sources"][0]["shares"]:  # a result was shown
                break
        run.send_signal(signal.SIGTERM)
        rest = run.communicate(timeout=60)[0]
    assert status["model"] == "tiny · fake fp32"
    assert [source["uri"] for source in status["sources"]] == ["camera"]
    assert run.returncode == 0
    assert f"shown at {words[3]}" in rest


@pytest.mark.parametrize(("end", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_film_ended_by_a_signal_is_interrupted_and_keeps_its_frames(tmp_path, tiny_bundle, end, code):
    done = camera_run(end, "film", tmp_path / "out.mp4", "--model", tiny_bundle, "--json", tmp_path / "r.json")
    assert (done.returncode, done.stdout) == (code, "")
    said, counted = done.stderr.splitlines()
    assert said == f"fcn-run: {'interrupted' if code == 130 else 'terminated'}."
    held = int(cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FRAME_COUNT))
    assert counted == f"written {held} True"
    assert not (tmp_path / "r.json").exists()
