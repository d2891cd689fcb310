"""ROS image messages to pictures and back, on records with their fields: sizes, row padding, encodings, refusals."""

from __future__ import annotations

import array
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnedge.runtime import SourceError
from fcnedge.runtime.ros2.messages import frame_from_compressed, frame_from_image, write_picture

# Which channel of the message each of blue, green and red is.
BGR_OF = {"bgr8": (0, 1, 2), "rgb8": (2, 1, 0), "mono8": (0, 0, 0), "bgra8": (0, 1, 2), "rgba8": (2, 1, 0)}
CHANNELS = {"bgr8": 3, "rgb8": 3, "mono8": 1, "bgra8": 4, "rgba8": 4}


@dataclass
class Image:
    """The fields of sensor_msgs/Image, empty as ROS makes one."""

    header: Any = None
    height: int = 0
    width: int = 0
    encoding: str = ""
    is_bigendian: int = 0
    step: int = 0
    data: Any = field(default_factory=lambda: array.array("B"))


@dataclass
class CompressedImage:
    """The fields of sensor_msgs/CompressedImage."""

    header: Any = None
    format: str = ""
    data: Any = field(default_factory=lambda: array.array("B"))


def message(pixels: np.ndarray, encoding: str, padding: int = 0, bigendian: int = 0) -> Image:
    """pixels: (H, W, channels) uint8."""
    rows = np.pad(pixels.reshape(len(pixels), -1), ((0, 0), (0, padding)), constant_values=199)
    data = array.array("B", rows.tobytes())
    height, width = pixels.shape[:2]
    return Image(None, height, width, encoding, bigendian, rows.shape[1], data)


def compressed(data: bytes, kind: str = "jpeg") -> CompressedImage:
    return CompressedImage(None, kind, array.array("B", data))


@given(
    encoding=st.sampled_from(sorted(CHANNELS)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    padding=st.integers(0, 9),
    bigendian=st.sampled_from((0, 1)),
    seed=st.integers(0, 99),
)
def test_frame_has_the_pixels_of_the_message(encoding, size, padding, bigendian, seed) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, CHANNELS[encoding]), np.uint8)
    frame = frame_from_image(message(pixels, encoding, padding, bigendian))
    assert frame.flags.c_contiguous
    np.testing.assert_array_equal(frame, pixels[:, :, BGR_OF[encoding]])


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    colour=st.booleans(),
    turned=st.booleans(),
    seed=st.integers(0, 9),
)
def test_written_picture_is_read_again_and_its_fields_describe_it(size, colour, turned, seed) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (*size, 3) if colour else size, np.uint8)
    picture = picture[::-1, ::-1] if turned else picture  # not contiguous
    written = write_picture(Image(), "header", picture)
    assert (written.height, written.width, written.header) == (*picture.shape[:2], "header")
    assert (written.encoding, written.step) == (("bgr8", 3 * size[1]) if colour else ("mono8", size[1]))
    assert isinstance(written.data, array.array)
    assert written.data.typecode == "B"
    assert written.data.tobytes() == picture.tobytes()
    np.testing.assert_array_equal(frame_from_image(written), picture if colour else cv2.merge([picture.copy()] * 3))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoding": "bayer_rggb8"}, "encoding 'bayer_rggb8'; fcnedge takes bgr8, rgb8, mono8, bgra8, rgba8"),
        ({"encoding": ""}, "encoding ''"),
        ({"encoding": "mono16"}, "encoding 'mono16'"),
        ({"width": 0}, "no pixels: its width is 0 and its height 4"),
        ({"height": 0}, "no pixels: its width is 5 and its height 0"),
        ({"step": 14}, "a step of 14 bytes, but a row of 5 pixels in bgr8 needs 15"),
        ({"step": 0}, "a step of 0 bytes"),
        ({"step": 16}, "holds 60 bytes, but 4 rows with a step of 16 are 64"),
        ({"height": 3}, "holds 60 bytes, but 3 rows with a step of 15 are 45"),
        ({"height": 2**32 - 1, "width": 2**32 - 1, "step": 2**32 - 1}, "but a row of 4294967295 pixels"),
        ({"height": 2**32 - 1}, "holds 60 bytes"),
        ({"data": array.array("B")}, "holds 0 bytes, but 4 rows with a step of 15 are 60"),
    ],
)
def test_image_whose_fields_do_not_agree_is_refused_in_one_sentence(changes, words) -> None:
    good = message(np.zeros((4, 5, 3), np.uint8), "bgr8")
    frame_from_image(good)
    for name, value in changes.items():
        setattr(good, name, value)
    with pytest.raises(SourceError, match=r"^the image ") as refusal:
        frame_from_image(good)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@given(data=st.data())
def test_any_fields_give_a_frame_or_a_refusal(data) -> None:
    numbers = st.integers(0, 6) | st.integers(0, 2**32 - 1)
    height, width, step = (data.draw(numbers) for _ in range(3))
    encoding = data.draw(st.sampled_from((*CHANNELS, "mono16", "")))
    length = data.draw(st.sampled_from((0, 1, 12, 24, 72)) | st.just(min(height * step, 1000)))
    image = Image(None, height, width, encoding, 0, step, array.array("B", bytes(length)))
    try:
        frame = frame_from_image(image)
    except SourceError:
        return
    assert frame.shape == (height, width, 3)


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """(60, 80, 3): a gradient with a ball, so that JPEG and PNG have something to do."""
    picture = np.zeros((60, 80, 3), np.uint8)
    picture[:] = np.linspace(0, 255, 80, dtype=np.uint8)[None, :, None]
    return cv2.circle(picture, (40, 30), 20, (30, 200, 90), cv2.FILLED)


def encoded(ending: str, picture: np.ndarray) -> bytes:
    return cv2.imencode(ending, picture)[1].tobytes()


def test_png_comes_back_bit_exact_in_colour_and_in_grey(photograph) -> None:
    np.testing.assert_array_equal(frame_from_compressed(compressed(encoded(".png", photograph), "png")), photograph)
    grey = photograph[:, :, 1].copy()
    frame = frame_from_compressed(compressed(encoded(".png", grey), "mono8; png compressed "))
    np.testing.assert_array_equal(frame, np.repeat(grey[:, :, None], 3, axis=2))


def test_jpeg_comes_back_as_pillow_decodes_it(photograph) -> None:
    import io

    from PIL import Image as Pillow

    data = encoded(".jpg", photograph)
    frame = frame_from_compressed(compressed(data, "rgb8; jpeg compressed bgr8"))
    reference = np.asarray(Pillow.open(io.BytesIO(data)))[:, :, ::-1]
    # libjpeg-turbo twice, in two builds, whose chroma upsampling may differ by a step
    assert np.abs(frame.astype(int) - reference).max() <= 2


def test_exif_orientation_is_left_alone_as_other_nodes_leave_it(photograph) -> None:
    data = encoded(".jpg", photograph)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # one entry: orientation 6
    turned = data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (80, 60, 3), "OpenCV would turn it"
    frame = frame_from_compressed(compressed(turned))
    np.testing.assert_array_equal(frame, cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))


@pytest.mark.parametrize("padding", [b"", bytes(70_000), b"\xff" * 9])
@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_bytes_behind_the_picture_do_no_harm(photograph, ending, padding) -> None:
    data = encoded(ending, photograph)
    frame = frame_from_compressed(compressed(data + padding))
    np.testing.assert_array_equal(frame, cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))


@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_picture_cut_short_anywhere_is_refused(photograph, ending) -> None:
    data = encoded(ending, photograph)
    for length in {1, 2, 10, len(data) // 2, len(data) - 2}:
        with pytest.raises(SourceError, match=r"truncated|damaged") as refusal:
            frame_from_compressed(compressed(data[:length]))
        assert "\n" not in str(refusal.value)


def test_thumbnails_end_is_not_taken_for_the_pictures(photograph) -> None:
    data, thumbnail = encoded(".jpg", photograph), encoded(".jpg", photograph[::4, ::4])
    with_thumbnail = data[:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + data[2:]
    assert frame_from_compressed(compressed(with_thumbnail)).shape == photograph.shape
    with pytest.raises(SourceError, match="truncated"):
        frame_from_compressed(compressed(with_thumbnail[: -len(data) // 2]))


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"", "jpeg", "is empty: it has 0 bytes"),
        (b"no picture at all", "jpeg", "('jpeg', 17 bytes) is damaged, or no format that OpenCV reads"),
        (b"\0" * 12 + b"\x89PNG", "16UC1; compressedDepth png", "holds depth"),
        (b"\0" * 12 + b"\x89PNG", "32FC1; compressed_depth", "holds depth"),
        # a header of 60,000 x 60,000 pixels
        (b"P6\n60000 60000\n255\n" + bytes(50), "ppm", "damaged"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_sentence(data, kind, words) -> None:
    with pytest.raises(SourceError, match=r"^the compressed image ") as refusal:
        frame_from_compressed(compressed(data, kind))
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@given(st.binary(max_size=200), st.sampled_from((b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF89a")))
def test_any_bytes_give_a_frame_or_a_refusal(rest, magic) -> None:
    try:
        frame = frame_from_compressed(compressed(magic + rest))
    except SourceError:
        return
    assert frame.dtype == np.uint8
    assert frame.ndim == 3
