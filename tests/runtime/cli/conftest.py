"""Pictures and films for fcn-run, and fcn-run in this process or one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from fcnedge.runtime.cli import main

BLUE, RED = (255, 0, 0), (0, 0, 255)


@pytest.fixture
def picture(tmp_path) -> Path:
    """(60, 80) pixels: the upper half blue, the lower half red."""
    image = np.full((60, 80, 3), BLUE, np.uint8)
    image[30:] = RED
    return write(tmp_path / "ball.png", image)


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "shots"
    folder.mkdir()
    for number, colour in ((2, BLUE), (10, RED), (1, (0, 0, 0))):
        write(folder / f"img{number}.png", np.full((20, 30, 3), colour, np.uint8))
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def clip(tmp_path) -> Path:
    return write_clip(tmp_path / "clip.avi", 12)


def write(path: Path, image: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), image)
    return path


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None, f"{path} was not written"
    return image


def write_clip(path: Path, frames: int) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, (64, 48))
    assert writer.isOpened()
    for shift in range(frames):
        writer.write(np.roll(noise, shift, axis=1))
    writer.release()
    return path


def fcn_run(*words: object, backend: str = "fake") -> int:
    return main(["--backend", backend, *map(str, words)])  # the last of two counts


def in_its_own_process(*words: object, backend: str = "fake", **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fcnedge.runtime.cli", *map(str, words), "--backend", backend]
    settings: dict[str, Any] = {"cwd": Path(__file__).parent, "env": {**os.environ, **environment}}
    return subprocess.run(command, capture_output=True, text=True, check=False, **settings)


def mask_of(path: Path) -> np.ndarray:
    with Image.open(path) as mask:
        assert mask.mode == "P"
        return np.asarray(mask)


def one_line(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 2, process.stderr
    assert process.stdout == ""
    (line,) = process.stderr.splitlines()
    assert line.startswith("fcn-run: ")
    return line


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """As `one_line`, in this process: for what is refused before any library can speak past sys.stderr."""
    try:
        code = fcn_run(*words)
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    shown, errors = capsys.readouterr()
    assert shown == ""
    (line,) = errors.splitlines()
    return line.removeprefix("fcn-run: ")
