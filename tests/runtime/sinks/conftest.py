"""Results as a stream gives them, and what several sinks are tested with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest

from fcnedge.runtime import Frame, Segmentation, StreamResult

MakeResult = Callable[..., tuple[StreamResult, np.ndarray]]


@pytest.fixture
def result() -> MakeResult:
    """Give the function that makes a result and its picture, which differ from those of another `value`."""

    def make(name: str = "cat", height: int = 48, width: int = 64, value: int = 8) -> tuple[StreamResult, np.ndarray]:
        mask = np.zeros((height, width), np.uint8)
        mask[: height // 2] = value
        frame = Frame(np.zeros((height, width, 3), np.uint8), name, 0, 0.0)
        picture = np.full((height, width, 3), value, np.uint8)
        return StreamResult(frame, Segmentation(mask, 0, 0, 0), "test", 0, 0, 0.0, 0.0), picture

    return make


@pytest.fixture
def noise() -> Callable[[int, int], np.ndarray]:
    """Give the function that makes a picture no codec makes small: (height, width) → (H, W, 3) uint8."""
    random = np.random.default_rng(0)
    return lambda height, width: random.integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def files() -> Callable[[Path], list[str]]:
    """Give the function that lists the files below a folder."""
    return lambda folder: sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def small_files() -> Callable[[], AbstractContextManager[None]]:
    """Give the context in which no file may grow past 16 KiB: the nearest to a full disk that a test can have."""
    if sys.platform == "win32":
        pytest.skip("resource limits are Unix's")
    import resource

    @contextmanager
    def limited() -> Iterator[None]:
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (16 * 1024, old[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)

    return limited
