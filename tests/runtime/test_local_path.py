"""Paths as users write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcnedge.runtime import UserError
from fcnedge.runtime.local_path import local_path
from fcnedge.runtime.sources import open_source


def test_tilde_is_the_users_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert local_path("~/film.mp4") == Path("/home/me/film.mp4")


@pytest.mark.parametrize("name", ["~nobody0/film.mp4", "~0", "film~.mp4"])
def test_tilde_of_nobody_is_part_of_a_name(name):
    assert local_path(name) == Path(name)


def test_source_with_the_tilde_of_nobody_is_one_sentence():
    with pytest.raises(UserError, match=r"~nobody0/film\.mp4"):
        open_source("~nobody0/film.mp4")
