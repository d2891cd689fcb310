"""Films and folders of one colour each, and fcn-run in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

COLOURS = {"blue": (255, 0, 0), "green": (0, 255, 0), "red": (0, 0, 255)}
"""BGR; the tiny bundle has them as classes 1, 2 and 4."""


@dataclass(frozen=True)
class Run:
    """A finished fcn-run. result: its JSON, None where it wrote none."""

    code: int
    out: str
    errors: list[str]
    result: dict[str, Any] | None


@pytest.fixture
def film(tmp_path: Path) -> Callable[..., Path]:
    """Give the function that writes a film of one colour: film("blue", frames)."""

    def write(colour: str, frames: int, name: str = "", size: tuple[int, int] = (64, 48)) -> Path:
        path = tmp_path / f"{name or colour}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, size)
        assert writer.isOpened()
        for _ in range(frames):
            writer.write(np.full((size[1], size[0], 3), COLOURS[colour], np.uint8))
        writer.release()
        return path

    return write


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., Path]:
    """Give the function that makes a folder of pictures of one colour: pictures("shots", "red", 3)."""

    def write(name: str, colour: str, count: int) -> Path:
        (tmp_path / name).mkdir(parents=True)
        for number in range(count):
            image = np.full((20, 30, 3), COLOURS[colour], np.uint8)
            assert cv2.imwrite(str(tmp_path / name / f"{number}.png"), image)
        return tmp_path / name

    return write


@pytest.fixture
def command(tiny_bundle: Path) -> Callable[..., list[str]]:
    """Give the function that makes fcn-run's command line, with the tiny bundle and the fake backend."""

    def make(*words: object) -> list[str]:
        options = ["--model", str(tiny_bundle), "--backend", "fake"]
        return [sys.executable, "-m", "fcnedge.runtime.cli", *map(str, words), *options]

    return make


@pytest.fixture
def fcn_run(command: Callable[..., list[str]], tmp_path: Path) -> Callable[..., Run]:
    """Give the function that runs fcn-run to its end."""

    def run(*words: object) -> Run:
        report = tmp_path / "result.json"
        report.unlink(missing_ok=True)
        done = subprocess.run(
            command(*words, "--json", report), capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path
        )
        result = json.loads(report.read_text()) if report.exists() else None
        return Run(done.returncode, done.stdout, done.stderr.splitlines(), result)

    return run


@pytest.fixture
def masks() -> Callable[[Path], dict[str, set[int]]]:
    """Give the function that reads a folder of masks: name → classes in it; hidden files are left out."""

    def read(folder: Path) -> dict[str, set[int]]:
        found = {}
        for path in sorted((folder / "masks").glob("[!.]*")):
            with Image.open(path) as mask:
                found[path.stem] = set(np.unique(np.asarray(mask)).tolist())
        return found

    return read
