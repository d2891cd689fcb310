"""Ends of pictures, as OpenCV and Pillow write them, cut anywhere."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fcnedge.runtime.picture_ends import missing_end

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)


def encoded(kind: str, **more) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, **more)
    return file.getvalue()


WHOLE = {
    "jpeg": encoded("JPEG"),
    "progressive": encoded("JPEG", progressive=True),
    "commented": encoded("JPEG", comment=b"\xff\xd9\xff\xda\xff\xd9"),
    "png": encoded("PNG"),
    "webp": encoded("WEBP"),
    "bmp": encoded("BMP"),
}


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("tail", [b"", bytes(64), b"\xff\xda behind the end"])
def test_whole_pictures_miss_nothing_whatever_follows(kind, tail):
    assert missing_end(WHOLE[kind] + tail) is None


@pytest.mark.parametrize("kind", WHOLE)
@given(share=st.floats(0.05, 1))
def test_cut_pictures_miss_their_end(kind, share):
    data = WHOLE[kind]
    cut = data[: min(max(16, int(len(data) * share)), len(data) - 2)]
    assert (missing_end(cut) or "").startswith(("it lacks", "it is shorter"))


def test_what_is_no_picture_misses_nothing():
    for data in (b"", b"text", b"II*\0"):
        assert missing_end(data) is None
