"""A run ends when its window is closed, and its page tells which backend goes on."""

from __future__ import annotations

import itertools
import json
import threading
import urllib.request

import numpy as np
import pytest

from fcnedge.runtime import BackendError, Bundle, FakeBackend, Segmenter
from fcnedge.runtime.errors import SourceError
from fcnedge.runtime.look import Look
from fcnedge.runtime.run import outputs, read_command_line, run, session
from fcnedge.runtime.sinks import Sink, SinkClosed
from fcnedge.runtime.sources import Frame, Source


class Window(Sink):
    """A window that a person closes at the third picture."""

    shows = ("overlay",)

    def __init__(self, *_, **__):
        super().__init__("display://")
        self.closed = 0

    def take(self, result, picture):
        assert picture.shape == result.frame.image.shape
        if self.written == 2:
            raise SinkClosed
        self.written += 1

    def close(self):
        self.closed += 1


@pytest.mark.parametrize("count", [1, 2])
def test_run_whose_window_is_closed_is_done(tiny_bundle, film, monkeypatch, count):
    windows = []
    monkeypatch.setattr(outputs, "open_sink", lambda *_, **__: windows.append(Window()) or windows[-1])
    films = [str(film("blue", 30, f"film{number}")) for number in range(count)]
    options = read_command_line([*films, "display://", "--model", str(tiny_bundle), "--backend", "fake"])
    result = run(options, print)
    assert (len(windows), [window.closed for window in windows]) == (count, [1] * count)
    assert result.frames == sum(window.written for window in windows)
    assert max(window.written for window in windows) == 2
    assert all(source.warning is None for source in result.sources)


def test_page_names_the_backend_that_took_over(tiny_bundle, monkeypatch):
    pytest.importorskip("onnxruntime", reason="the extra cpu is not installed")
    lost, looked, seen = threading.Event(), threading.Event(), []

    class Gpu(FakeBackend):
        def infer(self, image):
            if lost.is_set():
                raise BackendError("the GPU has fallen off the bus.")
            return super().infer(image)

    class Camera(Source):
        def __init__(self):
            super().__init__("camera", live=True, is_video=True)

        def __iter__(self):
            for index in itertools.takewhile(lambda _: not looked.is_set(), itertools.count()):
                yield Frame(np.zeros((20, 30, 3), np.uint8), f"camera_{index}", index, 0.0)

    def open_segmenter(model, backend, precision, threads, fallback, filter_mode):
        bundle = Bundle.load(model)
        return Segmenter(bundle, Gpu(bundle.manifest), precision, threads, fallback, filter_mode)

    def look(line):
        def watch():
            address = line.removeprefix("live page: ")
            try:
                for _ in range(5_000):
                    with urllib.request.urlopen(f"{address}status.json", timeout=30) as answer:
                        status = json.load(answer)
                    if status["sources"][0]["shares"] and status["model"] not in seen:
                        seen.append(status["model"])
                        lost.set()
                    if len(seen) == 2:
                        break
            finally:
                looked.set()

        threading.Thread(target=watch, daemon=True).start()

    monkeypatch.setattr(session, "Segmenter", open_segmenter)
    monkeypatch.setattr(session, "open_named", lambda *_: Camera())
    options = read_command_line(["camera", "http://127.0.0.1:0", "--model", str(tiny_bundle), "--fallback", "cpu"])
    result = run(options, look)
    assert seen == ["tiny · fake fp32", f"tiny · {result.backend} fp32"]
    assert result.backend in ("onnxruntime", "openvino")


@pytest.mark.parametrize("sink", ["display://", "out/"])
def test_error_tells_of_frames_that_stay_and_of_no_others(tiny_bundle, monkeypatch, tmp_path, sink):
    class Film(Source):
        def __iter__(self):
            for index in range(2):
                yield Frame(np.zeros((20, 30, 3), np.uint8), f"film_{index}", index, 0.0)
            raise SourceError("the disk was pulled out")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "open_named", lambda *_: Film("film"))
    if sink == "display://":
        monkeypatch.setattr(outputs, "open_sink", Window)
    with pytest.raises(SourceError, match="the disk was pulled out") as caught:
        run(read_command_line(["film", sink, "--model", str(tiny_bundle), "--backend", "fake"]), str)
    assert ("; 2 frames before it were written to" in str(caught.value)) == (sink == "out/")


@pytest.mark.parametrize("cores", [1, 1000])
def test_overlay_is_drawn_by_the_models_thread_where_that_takes_all_cores(
    tiny_bundle, film, monkeypatch, tmp_path, cores
):
    threads, draw = [], Look.draw

    def drawn(*words):
        threads.append(threading.get_ident())
        return draw(*words)

    monkeypatch.setattr(session, "usable_cores", lambda: cores)
    monkeypatch.setattr(Look, "draw", drawn)
    words = [str(film("red", 3)), f"{tmp_path}/out/", "--model", str(tiny_bundle), "--backend", "fake"]
    result = run(read_command_line([*words, "--threads", "2"]), print)
    assert result.stages["overlay"].max_ms > 0
    assert [each == threading.get_ident() for each in threads] == [cores == 1] * 3
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 3
