"""Films written by OpenCV, whole and broken off."""

import logging

import pytest

from fcnedge.runtime.errors import SourceError
from fcnedge.runtime.sources import open_source

from .conftest import cut, write_clip


@pytest.mark.parametrize(("name", "codec"), [("clip.avi", "MJPG"), ("clip.mp4", "mp4v")])
def test_video_gives_every_frame(tmp_path, name, codec):
    path = write_clip(tmp_path / name, frames=12, codec=codec)
    with open_source(path) as source:
        assert (source.live, source.is_video, source.length, source.fps) == (False, True, 12, 20.0)
        frames = list(source)
        assert [frame.index for frame in frames] == list(range(12))
        assert [frame.name for frame in frames][:2] == ["clip_000000", "clip_000001"]
        assert frames[5].timestamp_s == pytest.approx(0.25)
        assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
        assert not (frames[0].image == frames[1].image).all()  # no buffer is used twice
        assert source.warning is None
        assert len(list(source)) == 12  # a second time, from the start


def test_truncated_video_gives_what_decodes_and_a_warning(clip, caplog):
    source = open_source(cut(clip, 0.6))
    with caplog.at_level(logging.WARNING):
        delivered = len(list(source))
    assert 40 < delivered < 70
    assert source.warning == f"clip.avi promised 100 frames but ended after {delivered}"
    assert source.warning in caplog.text


def test_video_without_a_single_frame_is_refused(clip):
    headers = clip.read_bytes().index(b"movi")
    clip.write_bytes(clip.read_bytes()[:headers])
    with pytest.raises(SourceError, match=r"clip\.avi"):
        list(open_source(clip))


def test_mp4_without_its_index_is_refused(tmp_path):
    path = cut(write_clip(tmp_path / "clip.mp4", frames=30, codec="mp4v"), 0.6)
    with pytest.raises(SourceError, match=r"clip\.mp4 is neither a picture nor a video that OpenCV can open"):
        open_source(path)


@pytest.mark.parametrize("name", ["notes.txt", "notes.mp4", "notes"])
def test_text_is_no_video(tmp_path, name):
    (tmp_path / name).write_text("FFmpeg would play this as a film of a terminal\n" * 200)
    with pytest.raises(SourceError, match="looks like text"):
        open_source(tmp_path / name)


def test_closing_twice_and_leaving_early_do_no_harm(clip):
    with open_source(clip) as source:
        assert next(iter(source)).index == 0
    source.close()
    source.close()
    assert next(iter(source)).index == 0
