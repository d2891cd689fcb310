"""Where the user's cache is, by the XDG Base Directory Specification."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.user_cache import user_cache


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
