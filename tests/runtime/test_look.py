"""What a picture of a mask shows, pixel by pixel, and the words that choose it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnedge.runtime import UserError
from fcnedge.runtime.look import VISUALS, Look, parse_ignored, parse_visuals
from fcnedge.runtime.overlay import blend, class_shares, legend
from fcnedge.runtime.palette import VOC_CLASSES, voc_palette

PALETTE = voc_palette(21)
RANDOM = np.random.default_rng(5)
IMAGE = RANDOM.integers(0, 256, (60, 80, 3), np.uint8)
MASK = np.repeat(np.repeat(RANDOM.choice(np.uint8([0, 8, 15, 255]), (6, 8)), 10, axis=0), 10, axis=1)


def looks(**more) -> Look:
    return Look(PALETTE, VOC_CLASSES, **more)


@given(st.permutations(VISUALS), st.integers(1, 2), st.floats(0, 1), st.frozensets(st.integers(0, 255)), st.booleans())
def test_pictures_stand_side_by_side_in_the_order_named(order, count, alpha, ignore, with_legend):
    look = looks(alpha=alpha, ignore=ignore, legend=with_legend)
    drawn = look.draw(IMAGE, MASK, order[:count])
    assert (drawn.shape, drawn.dtype) == ((60, 80 * count, 3), np.uint8)
    for place, visual in enumerate(order[:count]):
        np.testing.assert_array_equal(drawn[:, 80 * place : 80 * place + 80], look.draw(IMAGE, MASK, (visual,)))


@given(st.frozensets(st.sampled_from([0, 3, 8, 15, 255])))
def test_mask_is_colours_alone_and_black_where_ignored(ignore):
    drawn = looks(ignore=ignore).draw(IMAGE, MASK, ("mask",))
    for class_id in np.unique(MASK).tolist():
        colour = [0, 0, 0] if class_id in ignore else voc_palette()[class_id].tolist()
        assert (drawn[class_id == MASK][:, ::-1] == colour).all()


def test_overlay_is_the_blend_with_a_legend_of_what_is_not_ignored():
    look = looks(alpha=0.7, ignore=frozenset({0, 8}))
    picture = blend(IMAGE, MASK, PALETTE, alpha=0.7, ignore=(0, 8))
    shares = class_shares(MASK)
    expected = legend(picture, {15: shares[15]}, VOC_CLASSES, PALETTE)
    np.testing.assert_array_equal(look.draw(IMAGE, MASK), expected)
    np.testing.assert_array_equal(looks(alpha=0.7, ignore=frozenset({0, 8}), legend=False).draw(IMAGE, MASK), picture)
    assert (expected != picture).any()


def test_picture_of_ignored_classes_only_is_the_cameras():
    background = np.zeros((60, 80), np.uint8)
    np.testing.assert_array_equal(looks().draw(IMAGE, background), IMAGE)
    assert not looks().draw(IMAGE, background, ("mask",)).any()


@pytest.mark.parametrize("shows", [("overlay",), ("mask",), ("overlay", "mask")])
def test_what_is_given_stays_untouched_and_the_picture_is_the_callers_own(shows):
    image, mask, look = IMAGE.copy(), MASK.copy(), looks()
    image.flags.writeable = mask.flags.writeable = False
    look.draw(image, mask, shows)[...] = 7
    assert (look.draw(image, mask, shows) != 7).any()
    assert (image == IMAGE).all()
    assert (mask == MASK).all()


@pytest.mark.parametrize("shows", [("overlay",), ("mask",)])
def test_class_past_the_palette_is_refused(shows):
    mask = MASK.copy()
    mask[0, 0] = 21
    with pytest.raises(ValueError, match=r"class 21.*21 colours"):
        looks().draw(IMAGE, mask, shows)


@pytest.mark.parametrize("shows", [(), ("heatmap",), ("overlay", "heatmap")])
def test_what_cannot_be_drawn_is_refused(shows):
    with pytest.raises(ValueError, match="choose from overlay, mask"):
        looks().draw(IMAGE, MASK, shows)


@pytest.mark.parametrize("more", [{"alpha": 1.5}, {"alpha": float("nan")}, {"ignore": frozenset({256})}])
def test_look_that_cannot_be_is_refused(more):
    with pytest.raises(UserError, match="between 0"):
        looks(**more)


def test_palette_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="a palette is"):
        Look(PALETTE.astype(float), VOC_CLASSES)


@pytest.mark.parametrize(
    ("text", "visuals"),
    [
        ("overlay", ("overlay",)),
        ("mask", ("mask",)),
        ("overlay,mask", ("overlay", "mask")),
        ("mask | overlay", ("mask", "overlay")),
    ],
)
def test_visuals_are_read_in_their_order(text, visuals):
    assert parse_visuals(text) == visuals


@pytest.mark.parametrize("text", ["", "heatmap", "overlay,", "overlay,overlay", "overlay;mask", "Overlay"])
def test_other_visuals_are_refused(text):
    with pytest.raises(UserError, match="cannot be shown; choose overlay, mask, or overlay,mask"):
        parse_visuals(text)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("background", {0}),
        ("0", {0}),
        ("background, person,8", {0, 15, 8}),
        ("", set()),
        (" ", set()),
        ("void", {255}),
        ("20,tvmonitor", {20}),
    ],
)
def test_ignored_classes_are_names_or_ids(text, ids):
    assert parse_ignored(text, VOC_CLASSES) == ids


def test_name_that_looks_like_an_id_comes_first():
    assert parse_ignored("0,2", ("2", "1", "0")) == {2, 0}
    assert parse_ignored("void", ("road", "void")) == {1}


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("persn", "no class 'persn'.*did you mean person"),
        ("cat,sheeep", "no class 'sheeep'.*did you mean sheep"),
        ("21", "an id from 0 to 20; it has background, aeroplane"),
        ("-1", "no class '-1'"),
        ("cat,,dog", "no class ''"),
        ("²", "no class '²'"),
    ],
)
def test_class_that_the_model_has_not_is_refused_with_the_nearest(text, advice):
    with pytest.raises(UserError, match=advice):
        parse_ignored(text, VOC_CLASSES)


def test_long_lists_of_classes_are_cut():
    with pytest.raises(UserError, match=r"kind24 and 175 more\.$"):
        parse_ignored("q", [f"kind{index}" for index in range(200)])
