"""VOC's palette and label PNGs, against the published colours and Pillow."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from fcnedge.runtime.palette import VOC_CLASSES, encode_label_png, full_palette, voc_palette


def test_first_colours_are_those_of_the_voc_development_kit():
    published = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128)]
    published += [(128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0)]
    assert [tuple(colour) for colour in voc_palette(11)] == published


def test_landmark_colours():
    palette = voc_palette()
    assert tuple(palette[VOC_CLASSES.index("person")]) == (192, 128, 128)
    assert tuple(palette[VOC_CLASSES.index("tvmonitor")]) == (0, 64, 128)
    assert tuple(palette[255]) == (224, 224, 192)  # void


def test_palette_follows_the_bit_rule_and_has_no_colour_twice():
    for class_id, colour in enumerate(voc_palette()):
        bits = f"{class_id:09b}"[::-1]  # lowest first: r g b r g b r g b
        expected = [int("".join(bits[channel::3]).ljust(8, "0"), 2) for channel in range(3)]
        assert list(colour) == expected
    assert len({tuple(colour) for colour in voc_palette()}) == 256


def test_voc_has_twenty_classes_and_background():
    assert len(VOC_CLASSES) == len(set(VOC_CLASSES)) == 21
    assert VOC_CLASSES[0] == "background"
    assert list(VOC_CLASSES[1:]) == sorted(VOC_CLASSES[1:])


@pytest.mark.parametrize("classes", [0, -1, 257])
def test_impossible_number_of_classes_is_refused(classes):
    with pytest.raises(ValueError, match="1 to 256"):
        voc_palette(classes)


def test_full_palette_keeps_the_models_own_colours():
    own = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    full = full_palette(own)
    assert (full[:2] == own).all()
    assert tuple(full[255]) == (224, 224, 192)


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_pillow_reads_ids_and_palette_back(mask):
    picture = Image.open(io.BytesIO(encode_label_png(mask, voc_palette())))
    assert picture.mode == "P"
    assert (np.asarray(picture) == mask).all()
    assert picture.getpalette() == voc_palette().ravel().tolist()


@given(st.integers(1, 256))
def test_colours_past_the_models_classes_are_vocs(classes):
    own = np.full((classes, 3), 7, np.uint8)
    picture = Image.open(io.BytesIO(encode_label_png(np.zeros((1, 1), np.uint8), own)))
    palette = np.reshape(picture.getpalette() or [], (-1, 3))
    assert (palette[:classes] == 7).all()
    assert (palette[classes:] == voc_palette()[classes:]).all()


@pytest.mark.parametrize(
    "mask", [np.zeros((2, 2), np.int64), np.zeros((2, 2, 3), np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_what_is_no_mask_is_refused(mask):
    with pytest.raises(ValueError, match="a mask is"):
        encode_label_png(mask, voc_palette())
