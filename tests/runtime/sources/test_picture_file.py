"""One picture file: every format, depth and make, and what only looks like one."""

import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fcnedge.runtime.errors import SourceError, UserError
from fcnedge.runtime.sources import Frame, Source, open_source

from .conftest import cut, write


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp", ".jpg", ".JPG", ".ppm"])
def test_picture_is_one_frame(tmp_path, photo, suffix):
    source = open_source(write(tmp_path / f"a b{suffix}", photo))
    assert isinstance(source, Source)
    assert (source.live, source.is_video, source.length, source.fps, source.skipped) == (False, False, 1, None, 0)
    [frame] = source
    assert isinstance(frame, Frame)
    assert (frame.name, frame.index, frame.timestamp_s) == ("a b", 0, 0.0)
    assert frame.image.shape == photo.shape
    assert frame.image.dtype == np.uint8
    tolerance = 40 if suffix in (".webp", ".jpg", ".JPG") else 0
    assert np.abs(frame.image.astype(int) - photo).max() <= tolerance
    assert [again.name for again in source] == ["a b"]  # a file can be read again


def test_picture_without_an_ending_is_known_by_its_bytes(tmp_path, photo):
    path = write(tmp_path / "a.png", photo).rename(tmp_path / "a")
    assert (next(iter(open_source(path))).image == photo).all()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA"])
def test_grey_rgba_and_palette_pictures_become_bgr(tmp_path, photo, mode):
    original = Image.fromarray(np.ascontiguousarray(photo[..., ::-1])).convert(mode)
    original.save(tmp_path / "a.png")
    [frame] = open_source(tmp_path / "a.png")
    assert (frame.image[..., ::-1] == np.asarray(original.convert("RGB"))).all()


def test_sixteen_bits_become_eight(tmp_path, photo):
    [frame] = open_source(write(tmp_path / "a.png", photo.astype(np.uint16) * 257))
    assert frame.image.dtype == np.uint8
    assert np.abs(frame.image.astype(int) - photo).max() <= 1


def test_exif_orientation_is_applied(tmp_path, photo):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    Image.fromarray(photo).save(tmp_path / "a.jpg", exif=exif)
    [frame] = open_source(tmp_path / "a.jpg")
    assert frame.image.shape == (80, 60, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_text_renamed_is_named_as_no_picture(tmp_path, suffix):
    path = tmp_path / f"notes{suffix}"
    path.write_text("buy milk\n" * 1000)
    with pytest.raises(SourceError, match=rf"notes\{suffix} is not a picture"):
        open_source(path)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95, 0.999])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_truncated_picture_is_refused(tmp_path, photo, suffix, share):
    path = cut(write(tmp_path / f"half{suffix}", photo), share)
    with pytest.raises(SourceError, match=rf"half\{suffix} is truncated"):
        open_source(path)


@pytest.mark.parametrize("make", ["progressive", "thumbnail", "comment"])
def test_whole_jpegs_of_every_make_are_read_and_their_halves_refused(tmp_path, photo, make):
    # A thumbnail is a whole JPEG, with its end marker, before the picture's own scan.
    thumbnail = cv2.imencode(".jpg", photo[::4, ::4])[1].tobytes()
    options: dict[str, Any] = {
        "progressive": {"progressive": True},
        "thumbnail": {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + thumbnail},
        "comment": {"comment": b"\xff\xd9\xff\xda"},
    }
    whole, half = tmp_path / "whole.jpg", tmp_path / "half.jpg"
    Image.fromarray(photo).save(whole, **options[make])
    assert next(iter(open_source(whole))).image.shape == photo.shape
    half.write_bytes(whole.read_bytes())
    with pytest.raises(SourceError, match=r"half\.jpg is truncated"):
        open_source(cut(half, 0.95))


def test_jpeg_with_bytes_after_its_end_is_read(tmp_path, photo):
    path = write(tmp_path / "phone.jpg", photo)
    path.write_bytes(path.read_bytes() + b"SEFT" * 50_000)  # phones append films and depth maps
    assert next(iter(open_source(path))).image.shape == photo.shape


@settings(deadline=None)  # a corrupted size can ask for a large picture
@given(st.integers(0, 2**32 - 1), st.sampled_from([".jpg", ".png", ".bmp", ".webp", ".tif", ".ppm"]))
def test_corrupted_pictures_give_a_frame_or_a_source_error(seed, suffix):
    chance = random.Random(seed)
    data = bytearray(cv2.imencode(suffix, np.full((9, 7, 3), seed % 256, np.uint8))[1].tobytes())
    for _ in range(3):
        data[chance.randrange(min(len(data), 64))] = chance.randrange(256)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a{suffix}")
        path.write_bytes(data)
        try:
            frames = list(open_source(path))
        except SourceError as error:
            message = str(error)
            assert "\n" not in message
        else:
            assert frames[0].image.dtype == np.uint8
            assert frames[0].image.shape[2:] == (3,)


@pytest.mark.parametrize("name", ["a.jpg", "a.avi", "a"])
def test_empty_file_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(SourceError, match="0 bytes"):
        open_source(tmp_path / name)


def test_missing_opencv_names_the_extra(tmp_path, photo, monkeypatch):
    path = write(tmp_path / "a.png", photo)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match=r"fcnedge\[gui\]"):
        open_source(path)
