"""One picture file, read back by Pillow."""

import cv2
import numpy as np
import pytest
from PIL import Image

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.sinks import open_sink
from fcnedge.runtime.sources import open_source


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".bmp", ".webp", ".tif"])
def test_picture_takes_what_is_drawn(tmp_path, result, files, suffix):
    with open_sink(tmp_path / f"new/out{suffix}") as sink:
        assert sink.shows == ("overlay",)
        sink.take(*result(value=100))
    assert files(tmp_path) == [f"new/out{suffix}"]
    with Image.open(tmp_path / f"new/out{suffix}") as picture:
        assert picture.size == (64, 48)
        assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - 100).max() <= 3


def test_picture_shows_what_is_asked_for(tmp_path):
    assert open_sink(tmp_path / "out.png", visualize=("overlay", "mask")).shows == ("overlay", "mask")


def test_second_picture_is_refused(tmp_path, result):
    with open_sink(tmp_path / "out.png") as sink:
        sink.take(*result(value=1))
        with pytest.raises(UserError, match="holds one picture"):
            sink.take(*result(value=2))
    assert np.asarray(Image.open(tmp_path / "out.png")).max() == 1


def test_many_pictures_into_one_are_refused_before_any_work(tmp_path):
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UserError, match="holds one picture"):
        open_sink(tmp_path / "out.png", source=open_source(f"{tmp_path}/*.png"))


@pytest.mark.parametrize("form", ["{0}", "{0}/*.png", "{0}/a%d.png"])
def test_single_picture_of_a_folder_is_not_overwritten(tmp_path, form):
    path = tmp_path / "a1.png"
    cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UserError, match="is the source itself"):
        open_sink(path, source=open_source(form.format(tmp_path)))


def test_whoever_draws_nothing_is_told(tmp_path, result):
    with pytest.raises(TypeError, match="got no picture"):
        open_sink(tmp_path / "out.png").take(result()[0], None)
