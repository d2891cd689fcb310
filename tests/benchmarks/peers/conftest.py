"""Peers that are anything but fast or safe, in a module that child processes can import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fcnedge.benchmarks.peers.measurement import Plan
from fcnedge.calibration.voc import read_voc

_PEERS = """
import os, signal, time
import numpy as np
from fcnedge.benchmarks.peers.entry import Opened, missing_peer

TIMED = (40, 60)

def dark(frame):
    return np.zeros(frame.shape[:2], np.uint8)

def quick(threads):
    return Opened(dark, {"quick": "1.0"}, f"threads {threads}")

def slowed(threads):
    def segment(frame):
        time.sleep(0.02)
        return dark(frame)
    return Opened(segment)

def missing(threads):
    raise missing_peer("nobodys-runtime")

def broken(threads):
    raise ValueError("no such opset\\n  at line 7")

def crashing(threads):
    return Opened(lambda frame: os.kill(os.getpid(), signal.SIGKILL))

def crashing_when_timed(threads):
    from fcnedge.benchmarks.peers.bench import Bench
    before = time.process_time()
    while time.process_time() - before < 1:
        pass
    Bench.block = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
    return Opened(dark)

def crashing_on_pictures(threads):
    def segment(frame):
        if frame.shape[:2] != TIMED:
            os.kill(os.getpid(), signal.SIGKILL)
        return dark(frame)
    return Opened(segment)

def floating(threads):
    return Opened(lambda frame: dark(frame).astype(np.float32))

def interrupting_at_once(threads):
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(60)

def interrupting_on_pictures(threads):
    def segment(frame):
        if frame.shape[:2] != TIMED:
            os.kill(os.getppid(), signal.SIGINT)
            time.sleep(60)
        return dark(frame)
    return Opened(segment)
"""


@pytest.fixture
def odd_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Give a module of openers: quick, slowed by 20 ms, missing, broken, crashing, interrupting …"""
    import importlib
    import sys

    (tmp_path / "odd_peers.py").write_text(_PEERS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("odd_peers")
    del sys.modules["odd_peers"]


@pytest.fixture
def small_plan(voc_folder: Path) -> Callable[..., Plan]:
    """Give a function that makes a plan: 3 rounds of 2 frames of 60x40, three pictures to score, one thread."""

    def plan(**other: object) -> Plan:
        frame = np.full((40, 60, 3), 90, np.uint8)
        given = {"threads": 1, "rounds": 3, "frames": (frame, frame), "split": "val"}
        return Plan(**{**given, "samples": tuple(read_voc(voc_folder, "val")), **other})

    return plan


@pytest.fixture
def elsewhere(odd_peers: ModuleType, tmp_path: Path) -> Callable[..., Any]:
    """Give `elsewhere(script, *words)`: run it in a process that an interrupt may meet, and give the JSON it prints.

    Not in this one: where OpenVINO has been loaded, a signal may end the process.
    """

    def run(script: str, *words: object) -> Any:
        command = [sys.executable, "-c", script, *(str(word) for word in words)]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    return run
