"""Launches recorded in a CUDA graph: the same masks, replayed, and everything that a driver may refuse."""

from __future__ import annotations

import ctypes

import pytest

from fcnedge.runtime import BackendError
from fcnedge.runtime.cuda.captured_network import CapturedNetwork
from fcnedge.runtime.cuda.device import Device
from fcnedge.runtime.cuda.pipeline import FramePipeline

from .conftest import ColourNetwork, frame_of, opened


class RecordingDriver:
    """libcuda's six calls for graphs. refuses: the call that gives an error."""

    def __init__(self, cuda, refuses=""):
        self.cuda, self.refuses, self.calls, self.capturing = cuda, refuses, [], None

    def _answer(self, name):
        self.calls.append(name)
        return 900 if name == self.refuses else 0

    def cuStreamBeginCapture_v2(self, stream, mode):  # noqa: N802 - CUDA's own names
        assert mode == 1
        self.stream, self.before = stream.value, len(self.cuda.streams[stream.value])
        return self._answer("begin")

    def cuStreamEndCapture(self, stream, graph):  # noqa: N802
        work = self.cuda.streams[stream.value]
        self.captured = work[self.before :]
        del work[self.before :]  # captured work does not run
        if self.refuses != "end":
            graph._obj.value = 0x61
        return self._answer("end")

    def cuGraphInstantiateWithFlags(self, replay, graph, flags):  # noqa: N802
        assert (graph.value, flags.value) == (0x61, 0)
        replay._obj.value = 0x62
        return self._answer("instantiate")

    def cuGraphLaunch(self, replay, stream):  # noqa: N802
        assert isinstance(replay, ctypes.c_void_p)
        assert replay.value == 0x62
        self.cuda.streams[stream.value].extend(self.captured)
        return self._answer("launch")

    def cuGraphDestroy(self, graph):  # noqa: N802
        return self._answer("destroy graph")

    def cuGraphExecDestroy(self, replay):  # noqa: N802
        return self._answer("destroy replay")


def captured(cuda, bundle, driver) -> tuple[FramePipeline, CapturedNetwork]:
    network = CapturedNetwork(ColourNetwork(cuda, bundle.manifest), driver)
    return FramePipeline(Device(), network, bundle.manifest), network


def test_second_frame_is_recorded_and_later_ones_are_replayed(cuda, bundle):
    driver, expected = RecordingDriver(cuda), opened(cuda, bundle)
    pipeline, network = captured(cuda, bundle, driver)
    for index in range(5):
        frame = frame_of(40 + index % 2, 50)  # other sizes too: the network's addresses are the same
        assert (pipeline.segment(frame).mask == expected.segment(frame).mask).all()
    assert driver.calls == ["begin", "end", "instantiate", "destroy graph", *["launch"] * 4]
    del cuda.calls[:]
    pipeline.segment(frame_of(40, 50))
    assert "network" not in cuda.names()
    assert network.captured
    pipeline.close()
    assert driver.calls[-1] == "destroy replay"


@pytest.mark.parametrize("refuses", ["begin", "end", "instantiate"])
def test_network_that_cannot_be_recorded_runs_as_it_is(cuda, bundle, refuses, caplog):
    driver = RecordingDriver(cuda, refuses)
    (pipeline, network), expected = captured(cuda, bundle, driver), opened(cuda, bundle)
    with caplog.at_level("INFO"):
        for _ in range(4):
            frame = frame_of(40, 50)
            assert (pipeline.segment(frame).mask == expected.segment(frame).mask).all()
    assert driver.calls.count("begin") == 1
    assert "launch" not in driver.calls
    assert "not recorded in a CUDA graph" in caplog.text
    assert not network.captured
    pipeline.close()


def test_network_that_fails_while_recorded_ends_the_capture(cuda, bundle):
    driver = RecordingDriver(cuda)
    network = ColourNetwork(cuda, bundle.manifest)
    pipeline = FramePipeline(Device(), CapturedNetwork(network, driver), bundle.manifest)
    pipeline.segment(frame_of(40, 50))
    network.enqueue = lambda: (_ for _ in ()).throw(BackendError("not capturable"))
    with pytest.raises(BackendError, match="not capturable"):
        pipeline.segment(frame_of(40, 50))
    assert driver.calls == ["begin", "end", "destroy graph"]
    del network.enqueue
    pipeline.segment(frame_of(40, 50))


def test_replay_that_fails_is_one_error(cuda, bundle):
    driver = RecordingDriver(cuda)
    pipeline, _ = captured(cuda, bundle, driver)
    pipeline.segment(frame_of(40, 50))
    driver.refuses = "launch"
    with pytest.raises(BackendError, match="cuGraphLaunch gives error 900; use the CPU"):
        pipeline.segment(frame_of(40, 50))


def test_machine_without_libcuda_records_nothing(cuda, bundle, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError(f"{name}: not found")))
    pipeline, network = captured(cuda, bundle, None)
    for _ in range(3):
        pipeline.segment(frame_of(40, 50))
    assert not network.captured
