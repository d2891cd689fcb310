"""segnet's flags: what is drawn, in which colours, under which names."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

NAMES = [f"name{number}" for number in range(8)]


@pytest.fixture
def picture(tmp_path):
    """(60, 80) pixels: left half blue, right half red; classes 1 and 4."""
    image = np.full((60, 80, 3), (255, 0, 0), np.uint8)
    image[:, 40:] = (0, 0, 255)
    assert cv2.imwrite(str(tmp_path / "ball.png"), image)
    return tmp_path / "ball.png"


@pytest.fixture
def colours(tmp_path):
    """Give a file of eight colours, RGB: class 1 orange, class 4 teal."""
    lines = ["0 0 0", "255 128 0", "0 0 0", "0 0 0", "#008080", "0 0 0", "0 0 0", "0 0 0 255"]
    (tmp_path / "colors.txt").write_text("\n".join(lines))
    return tmp_path / "colors.txt"


ORANGE, TEAL, BLUE, RED, BLACK = (0, 128, 255), (128, 128, 0), (255, 0, 0), (0, 0, 255), (0, 0, 0)  # BGR


def halves(path):
    """The one colour of the left and of the right quarter of a picture, far from the middle."""
    image = cv2.imread(str(path))
    quarter = image.shape[1] // 4
    sides = image[:40, : quarter - 4], image[:40, -quarter + 4 :]
    assert all((side == side[0, 0]).all() for side in sides)
    return [tuple(side[0, 0].tolist()) for side in sides]


def test_colours_of_a_file_are_those_of_overlay_mask_and_palette(tmp_path, fcn_run, picture, colours):
    done = fcn_run(picture, tmp_path / "out.png", "--colors", colours, "--alpha", 1, "--no-legend")
    assert (done.code, done.errors) == (0, [])
    assert halves(tmp_path / "out.png") == [ORANGE, TEAL]
    assert fcn_run(picture, tmp_path / "out", "--colors", colours).code == 0
    with Image.open(tmp_path / "out" / "masks" / "ball.png") as mask:
        assert mask.getpalette()[3:6] == [255, 128, 0]
        assert set(np.unique(np.asarray(mask))) == {1, 4}


def test_names_of_a_file_are_those_of_the_report_and_of_ignored_classes(tmp_path, fcn_run, picture):
    (tmp_path / "labels.txt").write_text("\n".join(NAMES))
    words = ["--labels", tmp_path / "labels.txt", "--alpha", 1, "--no-legend"]
    done = fcn_run(picture, tmp_path / "out.png", *words, "--ignore-class", "name0,name4")
    assert set(done.result["classes"]) == {"name1", "name4"}
    assert "classes  name" in done.out
    assert halves(tmp_path / "out.png")[1] == RED, "an ignored class keeps the camera's pixels"
    refused = fcn_run(picture, tmp_path / "new.png", *words, "--ignore-class", "red")
    assert (refused.code, len(refused.errors)) == (2, 1)
    assert "no class 'red'" in refused.errors[0]


def test_overlay_and_mask_stand_side_by_side_in_the_order_named(tmp_path, fcn_run, picture, colours):
    done = fcn_run(
        picture, tmp_path / "out.png", "--colors", colours, "--visualize", "mask,overlay", "--alpha", 0, "--no-legend"
    )
    assert done.code == 0
    image = cv2.imread(str(tmp_path / "out.png"))
    assert image.shape == (60, 160, 3)
    points = [tuple(image[30, column].tolist()) for column in (10, 70, 90, 150)]
    assert points == [ORANGE, TEAL, BLUE, RED]


@pytest.mark.parametrize(("what", "parts"), [("mask", ["masks"]), ("overlay", ["overlays"])])
def test_folder_holds_what_is_asked_for_alone(tmp_path, fcn_run, picture, what, parts):
    done = fcn_run(picture, tmp_path / "out", "--visualize", what)
    assert (done.code, done.errors) == (0, [])
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == parts
    assert (done.result["stages"]["overlay"]["max_ms"] > 0) == (what == "overlay"), "what is not drawn takes no time"


def test_ignored_class_is_black_in_a_picture_of_the_mask(tmp_path, fcn_run, picture, colours):
    words = [picture, tmp_path / "out.png", "--colors", colours, "--visualize", "mask", "--ignore-class", "blue"]
    assert fcn_run(*words).code == 0
    assert halves(tmp_path / "out.png") == [BLACK, TEAL]


def test_point_filter_gives_the_blocks_of_the_grid(tmp_path, fcn_run):
    """A slope between two colours is a slanted border in linear mode, and steps of the grid in point mode."""
    image = np.full((64, 96, 3), (255, 0, 0), np.uint8)
    rows, columns = np.indices((64, 96))
    image[columns > rows + 20] = (0, 0, 255)
    assert cv2.imwrite(str(tmp_path / "slope.png"), image)
    found = {}
    for mode in ("point", "linear"):
        assert fcn_run(tmp_path / "slope.png", tmp_path / mode, "--filter-mode", mode).code == 0
        with Image.open(tmp_path / mode / "masks" / "slope.png") as mask:
            found[mode] = np.asarray(mask)
    cells = found["point"].reshape(4, 16, 6, 16)  # the network's 32x48 pixels, stride 8, on a frame of twice the size
    assert (cells == cells[:, :1, :, :1]).all()
    assert len({tuple(row) for row in found["linear"]}) > 4


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--visualize", "depth"], "'depth' cannot be shown"),
        (["--filter-mode", "cubic"], "invalid choice: 'cubic'"),
        (["--labels", "none.txt"], "none.txt cannot be read"),
        (["--colors", "ball.png"], "ball.png is no text file"),
        (["--ignore-class", "dog"], "no class 'dog'"),
    ],
)
def test_wrong_words_are_one_line(fcn_run, picture, tmp_path, words, reason):
    done = fcn_run(picture, tmp_path / "out", *words)
    assert (done.code, done.out, len(done.errors)) == (2, "", 1)
    assert reason in done.errors[0]


@pytest.mark.parametrize("scheme", ["http", "HTTP"])
def test_page_has_its_own_switch_for_what_is_shown(fcn_run, picture, scheme):
    done = fcn_run(picture, f"{scheme}://127.0.0.1:0", "--visualize", "mask")
    assert (done.code, done.errors) == (
        2,
        ["fcn-run: --visualize is for files and windows; on the live page whoever looks at it chooses there."],
    )


def test_nothing_is_written_in_capitals_too(fcn_run, picture, tmp_path):
    before = {path.name for path in tmp_path.iterdir()}
    done = fcn_run(picture, "NULL://")
    assert (done.code, done.errors) == (0, [])
    assert {path.name for path in tmp_path.iterdir()} == before | {"result.json"}
