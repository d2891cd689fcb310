"""Where the user's cache is, by the XDG Base Directory Specification."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.user_cache import make_private, user_cache


def test_xdg_cache_home_is_taken(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache("engines") == tmp_path / "fcnedge" / "engines"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["", "relative/cache", None])
def test_home_is_taken_without_it(value, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if value is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert user_cache("kernels") == tmp_path / ".cache" / "fcnedge" / "kernels"


def test_user_without_home_is_told_what_to_set(monkeypatch):
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(UserError, match="set XDG_CACHE_HOME to a folder"):
        user_cache("engines")


@pytest.mark.skipif(os.name != "posix", reason="permissions are Unix's")
def test_folders_are_made_for_the_user_alone_and_those_that_exist_stay(tmp_path: Path):
    tmp_path.chmod(0o755)
    make_private(tmp_path / "cache" / "fcnedge" / "engines")
    make_private(tmp_path / "cache" / "fcnedge" / "engines")
    made = [tmp_path / "cache", tmp_path / "cache" / "fcnedge", tmp_path / "cache" / "fcnedge" / "engines"]
    assert [folder.stat().st_mode & 0o777 for folder in (tmp_path, *made)] == [0o755, 0o700, 0o700, 0o700]


def test_place_that_is_taken_is_an_os_error(tmp_path: Path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="file"):
            make_private(folder)
