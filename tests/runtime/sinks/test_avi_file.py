"""An .avi of several RIFFs, read back by OpenCV; a real one begins its second after a gigabyte."""

from fractions import Fraction

import cv2
import numpy as np
import pytest

from fcnedge.runtime.sinks.avi_file import AviFile
from fcnedge.runtime.sinks.files import encode_picture


def written(path, count, riff_bytes):
    file = AviFile(path, (64, 48), Fraction(25), riff_bytes)
    for number in range(count):
        file.add(encode_picture(".jpg", np.full((48, 64, 3), number % 250, np.uint8)))
    return file


def means(path):
    capture, found = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        found.append(read[1].mean())
    return found


@pytest.mark.parametrize(("riff_bytes", "riffs"), [(1 << 30, 1), (3000, 10)])
def test_every_frame_is_found_and_can_be_searched_for(tmp_path, riff_bytes, riffs):
    path = tmp_path / "a.avi"
    written(path, 50, riff_bytes).finish()
    assert path.read_bytes().count(b"RIFF") == pytest.approx(riffs, abs=1)
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 50
    for number in (33, 5, 49, 0):
        capture.set(cv2.CAP_PROP_POS_FRAMES, number)
        assert capture.read()[1].mean() == pytest.approx(number, abs=2)
    assert means(path) == pytest.approx(range(50), abs=2)


@pytest.mark.parametrize("riff_bytes", [1 << 30, 3000])
def test_file_that_grows_plays(tmp_path, riff_bytes):
    path = tmp_path / "a.avi"
    for count in (1, 7, 50):
        file = written(path, count, riff_bytes)
        assert len(means(path)) == file.frames == count
        file.finish()


def test_list_of_indexes_that_is_full_is_no_end(tmp_path):
    path = tmp_path / "a.avi"
    written(path, 300, 1).finish()
    assert path.read_bytes().count(b"AVIX") == 255
    assert len(means(path)) == 300


def test_sizes_of_lists_are_those_of_their_contents(tmp_path):
    """A reader that trusts them arrives at the file's end."""
    path = tmp_path / "a.avi"
    written(path, 20, 3000).finish()
    data, at = path.read_bytes(), 0
    while at < len(data):
        assert data[at : at + 4] == b"RIFF"
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        at += 12
        while at < end:
            size = int.from_bytes(data[at + 4 : at + 8], "little")
            assert data[at : at + 4] in (b"LIST", b"idx1")
            at += 8 + size + size % 2
        assert at == end


def test_finishing_twice_does_nothing_more(tmp_path):
    file = written(tmp_path / "a.avi", 3, 3000)
    file.finish()
    before = (tmp_path / "a.avi").read_bytes()
    file.finish()
    assert (tmp_path / "a.avi").read_bytes() == before
