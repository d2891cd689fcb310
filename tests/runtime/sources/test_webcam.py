"""Webcams that are not there: no machine of ours has one."""

import sys

import pytest

from fcnedge.runtime.errors import SourceError
from fcnedge.runtime.sources import open_source

from .conftest import names, write


@pytest.mark.parametrize("uri", ["97", "/dev/video97", "v4l2:///dev/video97", "v4l2://97", "/dev/v4l/by-id/none"])
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="device paths are Linux's")
def test_absent_camera_is_named(uri):
    with pytest.raises(SourceError, match=r"there is no camera /dev/v(ideo97|4l/by-id/none); this machine"):
        open_source(uri)


def test_folder_named_like_a_number_comes_before_the_camera(tmp_path, photo, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2024").mkdir()
    write(tmp_path / "2024" / "cat.png", photo)
    with open_source("2024") as source:
        assert not source.live
        assert names(source) == ["cat"]
    with pytest.raises(SourceError, match="there is no camera /dev/video2024"):
        open_source("v4l2://2024")


def test_camera_uri_without_a_camera_is_refused():
    with pytest.raises(SourceError, match="names no camera"):
        open_source("v4l2://")
