"""What is sent of a result: JPEGs that other programs read, layers with the very class ids."""

import json
import zlib

import cv2
import numpy as np
import pytest

from fcnedge.runtime.look import Look
from fcnedge.runtime.palette import voc_palette
from fcnedge.runtime.web.board import Published
from fcnedge.runtime.web.pictures import KINDS, PictureEncoder, hex_colours, multipart

PALETTE = voc_palette(3)
ENCODER = PictureEncoder(Look(PALETTE, ("background", "road", "person"), alpha=0.25))
GREY = 40
# Quality 80 quantises the DC of luminance in steps of 6 and of chrominance in steps of 7 (ITU T.81, annex K, scaled by
# 0.4), an eighth of that per pixel, times 1.8 at most from chrominance to blue: 1 unit each after rounding.
JPEG_ERROR = 3


def decoded(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def middles(picture):
    """BGR in the middle of the left half (class 1), the third quarter (0) and the fourth (2)."""
    height, width = picture.shape[:2]
    return np.array([picture[height // 2, int(width * part)] for part in (0.25, 0.625, 0.875)], int)


def record(data):
    line, _, rest = data.partition(b"\n")
    words = json.loads(line)
    assert len(rest) == words["jpeg"] + words["ids"]
    ids = np.frombuffer(zlib.decompress(rest[words["jpeg"] :]), np.uint8).reshape(words["height"], words["width"])
    return words, decoded(rest[: words["jpeg"]]), ids


@pytest.fixture
def published(result):
    return Published(5, result(sequence=0, size=(96, 128), age_s=0.03), None)


def test_each_kind_shows_what_its_name_says(published):
    colours = PALETTE[:, ::-1].astype(float)
    tint = 0.75 * GREY + 0.25 * colours
    expected = {
        "raw": [[GREY] * 3] * 3,
        "mask": colours[[1, 0, 2]],
        "overlay": [tint[1], [GREY] * 3, tint[2]],
    }
    for kind, values in expected.items():
        picture = decoded(ENCODER.encoded(published, kind))
        assert picture.shape == (96, 128, 3)
        assert np.abs(middles(picture) - np.array(values)).max() <= JPEG_ERROR, kind


def test_layers_hold_the_very_ids_and_the_picture_of_one_frame(published):
    words, picture, ids = record(ENCODER.encoded(published, "layers"))
    assert (ids == published.result.segmentation.mask).all()
    assert np.abs(picture.astype(int) - GREY).max() <= JPEG_ERROR
    assert (words["number"], words["sequence"], words["age_ms"]) == (5, 0, 30.0)


def test_overlay_that_is_given_is_shown(published, result):
    given = np.full((96, 128, 3), 200, np.uint8)
    picture = decoded(ENCODER.encoded(Published(1, published.result, given), "overlay"))
    assert np.abs(picture.astype(int) - 200).max() <= JPEG_ERROR


def test_larger_pictures_are_shrunk_and_keep_their_ids(result):
    small = PictureEncoder(ENCODER.look, longest_side_px=64)
    large = Published(1, result(size=(96, 128)), None)
    words, picture, ids = record(small.encoded(large, "layers"))
    assert (words["height"], words["width"]) == (48, 64) == ids.shape == picture.shape[:2]
    assert (ids == large.result.segmentation.mask[::2, ::2]).all()
    assert decoded(small.encoded(large, "overlay")).shape == (48, 64, 3)
    assert decoded(small.encoded(large, "mask")).shape == (48, 64, 3)


def test_class_past_the_palette_and_void_are_shown(result):
    odd = result()
    odd.segmentation.mask[:] = 200
    odd.segmentation.mask[0] = 255
    for kind in KINDS:
        assert ENCODER.encoded(Published(1, odd, None), kind)


def test_picture_is_encoded_once_for_all_streams(monkeypatch, published):
    calls, encode = [], cv2.imencode
    monkeypatch.setattr(cv2, "imencode", lambda *args: calls.append(args[0]) or encode(*args))
    for _ in range(3):
        for kind in ("raw", "layers"):
            ENCODER.encoded(published, kind)
    assert calls == [".jpg"]


def test_part_of_a_stream_ends_in_the_boundary():
    assert multipart(b"123") == b"Content-Type: image/jpeg\r\nContent-Length: 3\r\n\r\n123\r\n--frame\r\n"


def test_colours_are_written_as_browsers_read_them():
    assert hex_colours(np.array([[0, 0, 0], [1, 171, 255]], np.uint8), ("a", "b", "past the palette")) == [
        "#000000",
        "#01abff",
        "#008000",  # VOC's third colour
    ]
