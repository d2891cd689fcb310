"""Pictures and films written by OpenCV, and what is cut short by the byte."""

import cv2
import numpy as np
import pytest

from ..streams.conftest import rtsp_server_installed

__all__ = ["clip", "photo", "rtsp_server_installed", "write_clip"]


@pytest.fixture
def photo():
    """(60, 80, 3) uint8 BGR, smooth, so that JPEG keeps it close."""
    rows, columns = np.mgrid[0:60, 0:80]
    return np.stack([rows * 4, columns * 3, 255 - rows * 2], axis=-1).astype(np.uint8)


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip.avi", frames=100)


def write_clip(path, frames, codec="MJPG", fps=20.0):
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (64, 48))
    assert writer.isOpened()
    for shift in range(frames):
        writer.write(np.roll(noise, shift, axis=1))
    writer.release()
    return path


def write(path, image):
    assert cv2.imwrite(str(path), image)
    return path


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def names(source):
    return [frame.name for frame in source]
