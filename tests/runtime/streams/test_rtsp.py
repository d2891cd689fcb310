"""A real RTSP server on loopback: killed, restarted, frozen, behind a password."""

import itertools
import json
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest

from fcnedge.runtime import SourceError
from fcnedge.runtime.sources import InputOptions, open_source
from fcnedge.runtime.streams import SourceState, Stream

from .conftest import RtspServer


@pytest.mark.slow
def test_stream_lives_through_two_restarts_of_its_server_and_leaks_nothing(
    make_rtsp_server, segmenter, until, background, held
):
    server: RtspServer = make_rtsp_server()
    with Stream(server.address, segmenter) as stream:  # FFmpeg and OpenCV start what they keep
        next(stream)
    before = held()
    results = []
    with Stream(server.address, segmenter) as stream:
        loop = background(lambda: stream.run(results.append))
        until(stream, lambda: stream.status.processed > 3)
        for restart in range(2):
            server.kill()
            until(stream, lambda: stream.status.state is SourceState.LOST)
            assert "127.0.0.1" in (stream.status.reason or "")
            captured = stream.status.captured
            server.start()
            until(stream, lambda captured=captured: stream.status.captured > captured + 3)
            assert stream.status.state is SourceState.LIVE
            assert stream.status.connections == restart + 2
        stream.close()
        loop.join()
    status = stream.status
    assert status.captured == status.processed + status.dropped
    assert status.processed == len(results)
    sequences = [result.sequence for result in results]
    assert sequences == sorted(set(sequences))
    assert {result.frame.image.shape for result in results} == {(240, 320, 3)}
    assert results[-1].frame.image.max() > 100  # the ball is white
    assert held(before) == before


@pytest.mark.slow
def test_frozen_server_is_stalled_and_then_lost(make_rtsp_server, segmenter, until, background):
    server: RtspServer = make_rtsp_server()
    states = []
    with Stream(server.address, segmenter, stall_timeout_s=1.0) as stream:
        loop = background(lambda: list(stream))
        until(stream, lambda: stream.status.processed > 1)
        server.freeze()

        def lost():
            states.append(stream.status.state)
            return states[-1] is SourceState.LOST

        until(stream, lost)
        server.kill()
        server.start()
        until(stream, lambda: stream.status.state is SourceState.LIVE)
        assert stream.status.connections == 2
        stream.close()
        loop.join()
    # The read gives up when the stall timeout is over: whether anybody sees it stalled before is chance.
    assert [state for state, _ in itertools.groupby(states) if state is not SourceState.STALLED] == [
        SourceState.LIVE,
        SourceState.LOST,
    ]


@pytest.mark.slow
def test_password_opens_the_stream_and_appears_nowhere(make_rtsp_server, segmenter, capfd, caplog):
    server: RtspServer = make_rtsp_server("me:secret")
    caplog.set_level("DEBUG")
    with Stream(server.address, segmenter) as stream:
        result = next(stream)
        assert result.source == stream.status.uri == f"rtsp://me:***@127.0.0.1:{server.port}/clip"
    wrong = server.address.replace("secret", "wrongsecret")
    with Stream(wrong, segmenter, reconnect=False) as stream:
        with pytest.raises(SourceError, match="check path, user, password") as caught:
            next(stream)
        said = [str(caught.value), repr(stream.source), repr(stream.status), repr(result), caplog.text]
    written = capfd.readouterr()
    assert not [text for text in [*said, written.out, written.err] if "secret" in text]


def test_port_where_nothing_listens_is_named(segmenter, unused_port):
    with (
        Stream(f"rtsp://127.0.0.1:{unused_port}/clip", segmenter, reconnect=False) as stream,
        pytest.raises(SourceError, match=f"nothing listens on port {unused_port} of 127.0.0.1"),
    ):
        next(stream)


def test_server_that_never_answers_is_given_up_after_the_timeout(silent_port):
    source = open_source(f"rtsp://127.0.0.1:{silent_port}/clip", InputOptions(timeout_s=0.5))
    with source, pytest.raises(SourceError, match=r"gives no film within 0\.5 seconds"):
        next(iter(source))


@pytest.mark.slow
def test_command_line_reads_a_film_and_a_camera_that_comes_back_and_ends_in_order(
    make_rtsp_server, tiny_bundle, tmp_path
):
    server: RtspServer = make_rtsp_server("user:secret")
    film = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, (64, 48))
    for _ in range(30):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    out, report = tmp_path / "out", tmp_path / "r.json"
    command = [sys.executable, "-m", "fcnedge.runtime.cli", server.address, str(film), str(out), "--json", str(report)]
    command += ["--model", str(tiny_bundle), "--backend", "fake"]
    camera = out / f"127.0.0.1_{server.port}_clip" / "masks"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:

        def wait_for_masks(count):
            while process.poll() is None and len(list(camera.glob("*.png"))) < count:
                pass

        wait_for_masks(5)
        server.kill()
        assert process.stderr is not None
        lost = process.stderr.readline()
        written = len(list(camera.glob("*.png")))
        server.start()
        wait_for_masks(written + 5)
        process.send_signal(signal.SIGINT)
        shown, rest = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "trying again" in lost
    assert "is live again" in rest
    assert "secret" not in shown + lost + rest
    first, second = json.loads(report.read_text())["sources"]
    assert (second["frames"], second["warning"], second["live"]) == (30, None, None)
    assert first["frames"] == len(list(camera.glob("*.png")))
    assert first["live"]["captured"] == first["frames"] + first["live"]["dropped"]
    assert first["live"]["connections"] == 2
