"""A file to which whole pieces are added."""

import pytest

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.sinks.growing_file import GrowingFile


def test_pieces_are_there_when_append_returns(tmp_path):
    file = GrowingFile(tmp_path / "a")
    file.append(b"one ", b"two ")
    assert (tmp_path / "a").read_bytes() == b"one two "
    file.patch(4, b"2")
    file.append(b"three")
    assert (tmp_path / "a").read_bytes() == b"one 2wo three"
    assert file.size == 13
    file.close()
    file.close()


def test_piece_that_does_not_fit_leaves_nothing_of_itself(tmp_path, small_files):
    file = GrowingFile(tmp_path / "a")
    file.append(b"x" * 16000)
    with small_files(), pytest.raises(UserError, match=r"a cannot be written: File too large$"):
        file.append(b"y" * 1000)
    assert (tmp_path / "a").read_bytes() == b"x" * 16000
    file.append(b"z")
    file.close()
    assert (tmp_path / "a").read_bytes() == b"x" * 16000 + b"z"


def test_folder_in_its_place_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="cannot be written: Is a directory"):
        GrowingFile(tmp_path)
