"""The demonstration: photographs, a film, and the film in real time."""

import pytest

from fcnedge.runtime.errors import SourceError
from fcnedge.runtime.sources import open_source


def test_demo_photographs():
    pytest.importorskip("skimage", reason="the extra demo is not installed")
    source = open_source("demo://")
    frames = list(source)
    assert (source.is_video, source.live, source.length) == (False, False, len(frames))
    assert {"astronaut", "chelsea"} <= {frame.name for frame in frames}


def test_demo_clip():
    pytest.importorskip("skimage", reason="the extra demo is not installed")
    source = open_source("demo://clip")
    frames = list(source)
    assert (source.is_video, source.live, source.length, source.fps) == (True, False, len(frames), 15.0)
    assert frames[15].timestamp_s == pytest.approx(1.0)


def test_demo_camera_is_the_clip_in_real_time_without_end():
    pytest.importorskip("skimage", reason="the extra demo is not installed")
    clip = [frame.image for frame in open_source("demo://clip")]
    source = open_source("demo://camera")
    assert (source.live, source.is_video, source.length, source.fps) == (True, True, None, 15.0)
    frames = []
    for frame in source:
        frames.append(frame)
        if frame.index == 3:
            source.close()  # for good, and at once
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert all(any((frame.image == image).all() for image in clip) for frame in frames)
    stamps = [frame.timestamp_s for frame in frames]
    assert stamps == sorted(stamps)


def test_unknown_demo_names_the_known_ones():
    with pytest.raises(SourceError, match="demo://clip"):
        open_source("demo://cats")
