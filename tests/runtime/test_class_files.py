"""Names and colours of classes in files as people write them, and what is wrong with the others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnedge.runtime import UserError
from fcnedge.runtime.class_files import read_colors, read_labels


@pytest.fixture
def write(tmp_path):
    """Give a function that writes a file and returns its path."""

    def written(content: str | bytes):
        path = tmp_path / "classes.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return written


@pytest.mark.parametrize(
    "content",
    [
        "road\nperson\n",
        "road\r\nperson",
        "\ufeffroad\n\n  person  \n\n",
        "# Cityscapes\nroad\n  # people\nperson\n",
    ],
)
def test_names_are_one_per_line(write, content):
    assert read_labels(write(content), 2) == ("road", "person")


def test_names_may_hold_spaces_and_signs(write):
    assert read_labels(write("traffic light\nC#\nÖl"), 3) == ("traffic light", "C#", "Öl")


@pytest.mark.parametrize("line", ["128 0 255", "128 0 255 200", "  128\t0  255", "#8000ff", "#8000FF", "128 0 255 # x"])
def test_colours_are_numbers_or_hexadecimal(write, line):
    colours = read_colors(write(f"0 0 0\n\n# not a colour\n#80 neither\n{line}\n"), 2)
    assert colours.dtype == np.uint8
    assert colours.tolist() == [[0, 0, 0], [128, 0, 255]]


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=255), st.booleans())
def test_every_colour_is_read_back(tmp_path_factory, colours, hexadecimal):
    path = tmp_path_factory.mktemp("colours") / "colors.txt"
    path.write_text("\n".join(("#{:02x}{:02x}{:02x}" if hexadecimal else "{} {} {}").format(*rgb) for rgb in colours))
    assert read_colors(path, len(colours)).tolist() == [list(rgb) for rgb in colours]


@pytest.mark.parametrize("line", ["128 0", "256 0 0", "128,0,0", "red", "1 2 3 4 5", "-1 0 0", "0x80 0 0", "1.0 0 0"])
def test_line_that_is_no_colour_is_named(write, line):
    with pytest.raises(UserError, match=r"classes\.txt, line 3 is '.*'; a colour is 'RED GREEN BLUE'"):
        read_colors(write(f"0 0 0\n# a comment\n{line}\n"), 2)


@pytest.mark.parametrize("read", [read_labels, read_colors])
@pytest.mark.parametrize(("expected", "lines"), [(3, 2), (1, 2), (2, 0)])
def test_wrong_count_says_both_numbers(write, read, expected, lines):
    with pytest.raises(UserError, match=rf"has {lines} (names|colours), the model {expected} classes"):
        read(write("1 2 3\n" * lines), expected)


@pytest.mark.parametrize("read", [read_labels, read_colors])
@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a\0b", b"1 2 3\n" * 200_000, "Öl".encode("latin-1")])
def test_what_is_no_text_is_refused(write, read, content):
    with pytest.raises(UserError, match="is no text file in UTF-8 of at most 1 MiB"):
        read(write(content), 2)


@pytest.mark.parametrize("read", [read_labels, read_colors])
def test_file_that_is_not_there_is_one_sentence(tmp_path, read):
    with pytest.raises(UserError, match=r"none\.txt cannot be read \(No such file or directory\)"):
        read(tmp_path / "none.txt", 2)
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        read(tmp_path, 2)
