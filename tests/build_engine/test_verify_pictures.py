"""Which pictures a bundle is verified on."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from fcnedge.build_engine import verify_pictures
from fcnedge.build_engine.verify_pictures import read_verify_pictures
from fcnedge.runtime import Frame, Source
from fcnedge.runtime.errors import SourceError, UserError


def write_pictures(folder: Path, count: int) -> None:
    """Pictures whose colour is their number."""
    folder.mkdir()
    for index in range(count):
        assert cv2.imwrite(str(folder / f"p{index}.png"), np.full((4, 6, 3), index, np.uint8))


@pytest.mark.parametrize("count", [1, 2, 31, 32])
def test_up_to_32_pictures_are_all_used(tmp_path, count):
    write_pictures(tmp_path / "pictures", count)
    pictures = read_verify_pictures(tmp_path / "pictures")
    assert [name for name, _ in pictures] == [f"p{index}" for index in range(count)]
    for index, (_, image) in enumerate(pictures):
        np.testing.assert_array_equal(image, np.full((4, 6, 3), index, np.uint8))


@pytest.mark.parametrize("count", [33, 64, 100])
def test_many_pictures_are_thinned_out_evenly(tmp_path, count):
    write_pictures(tmp_path / "pictures", count)
    used = [int(image[0, 0, 0]) for _, image in read_verify_pictures(tmp_path / "pictures")]
    assert 16 < len(used) <= 32
    assert used[0] == 0
    assert len(set(np.diff(used))) == 1
    assert count - used[-1] <= used[1]


def test_one_picture_will_do(tmp_path):
    write_pictures(tmp_path / "pictures", 3)
    assert [name for name, _ in read_verify_pictures(tmp_path / "pictures" / "p1.png")] == ["p1"]


def test_demo_photographs_are_the_default():
    pytest.importorskip("skimage")
    pictures = read_verify_pictures(None)
    assert [name for name, _ in pictures] == ["astronaut", "chelsea", "camera", "grace_hopper"]
    assert all(image.dtype == np.uint8 and image.shape[2] == 3 for _, image in pictures)


def test_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(SourceError, match="holds no pictures"):
        read_verify_pictures(tmp_path)


def test_damaged_picture_is_passed_over_and_named(tmp_path, caplog):
    write_pictures(tmp_path / "pictures", 2)
    damaged = tmp_path / "pictures" / "p1.png"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    assert [name for name, _ in read_verify_pictures(tmp_path / "pictures")] == ["p0"]
    assert "p1.png is truncated" in caplog.text
    with pytest.raises(SourceError, match=r"p1\.png is truncated"):
        read_verify_pictures(damaged)


class Camera(Source):
    """Frames without end (or none at all), of unknown number."""

    def __init__(self, frames: int | None = None) -> None:
        super().__init__("camera", live=True, is_video=True)
        self._frames = frames

    def __iter__(self):
        index = 0
        while index != self._frames:
            yield Frame(np.zeros((2, 2, 3), np.uint8), f"frame{index}", index, 0.0)
            index += 1


def test_camera_gives_32_frames_and_no_more(monkeypatch):
    monkeypatch.setattr(verify_pictures, "open_source", lambda uri: Camera())
    assert len(read_verify_pictures(Path("0"))) == 32


def test_film_without_frames_is_refused(monkeypatch):
    monkeypatch.setattr(verify_pictures, "open_source", lambda uri: Camera(frames=0))
    with pytest.raises(UserError, match=r"empty\.mp4 gives no picture to compare on"):
        read_verify_pictures(Path("empty.mp4"))
