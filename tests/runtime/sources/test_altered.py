"""Flips against OpenCV's own, and loops that go on counting."""

import cv2
import numpy as np
import pytest

from fcnedge.runtime import SourceError
from fcnedge.runtime.sources import InputOptions, open_source
from fcnedge.runtime.sources.input_options import FLIPS

BY_OPENCV = {
    "none": lambda image: image,
    "counterclockwise": lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
    "rotate-180": lambda image: cv2.rotate(image, cv2.ROTATE_180),
    "clockwise": lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    "horizontal": lambda image: cv2.flip(image, 1),
    "vertical": lambda image: cv2.flip(image, 0),
    "upper-left-diagonal": cv2.transpose,
    "upper-right-diagonal": lambda image: cv2.rotate(cv2.transpose(image), cv2.ROTATE_180),
}


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(5)
    for index in range(3):
        picture = random.integers(0, 256, (6, 9, 3), np.uint8)
        assert cv2.imwrite(str(tmp_path / f"p{index}.png"), picture)
    return tmp_path


@pytest.mark.parametrize("flip", FLIPS)
def test_flip_is_opencvs(folder, flip):
    plain = list(open_source(folder))
    flipped = list(open_source(folder, InputOptions(flip=flip)))
    assert len(plain) == len(flipped) == 3
    for before, after in zip(plain, flipped, strict=True):
        assert (after.image == BY_OPENCV[flip](before.image)).all()
        assert after.image.flags.c_contiguous
        assert (after.name, after.index) == (before.name, before.index)


@pytest.mark.parametrize("loop", [0, 1, 3])
def test_loop_plays_again_and_counts_on(folder, loop):
    source = open_source(folder, InputOptions(loop=loop))
    frames = list(source)
    assert source.length == len(frames) == 3 * (loop + 1)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert len({frame.name for frame in frames}) == len(frames)
    assert all((frame.image == frames[index % 3].image).all() for index, frame in enumerate(frames))


def test_endless_loop_has_no_length_and_does_not_end(folder):
    source = open_source(folder, InputOptions(loop=-1, flip="vertical"))
    assert source.length is None
    assert (source.folder, len(source.files)) == (folder, 3)
    for index, frame in enumerate(source):
        assert frame.index == index
        if index == 20:
            break


def test_looped_film_has_timestamps_that_go_on(tmp_path):
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 16))
    for _ in range(4):
        writer.write(np.zeros((16, 32, 3), np.uint8))
    writer.release()
    source = open_source(path, InputOptions(loop=1))
    assert [frame.timestamp_s for frame in source] == pytest.approx([index / 10 for index in range(8)])
    assert source.fps == pytest.approx(10)


def test_camera_is_not_played_again():
    with pytest.raises(SourceError, match="no end to begin again from"):
        open_source("http://127.0.0.1/", InputOptions(loop=1))
