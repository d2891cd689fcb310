"""What fcn-run says of a run that came to nothing."""

from __future__ import annotations

import pytest

from fcnedge.runtime.run import LiveStats, RunResult, SourceResult, report_lines
from fcnedge.runtime.stage_times import StageTimes


def test_run_without_frames_names_no_file_that_is_not_there():
    camera = SourceResult("rtsp://10.0.0.5/live", 0, 0, None, LiveStats(0, 0, 0, None))
    result = RunResult([camera], "masked.mp4", "tiny", "fake", "fp32", 0, 2.0, 0.0, {}, {})
    assert list(report_lines(result))[1:] == ["camera   0 frames, 0 dropped", "no frames"]


@pytest.mark.parametrize(
    ("sink", "end"),
    [
        ("null://", "ms per frame"),
        ("out/", "written to out/"),
        ("file:///out.mp4", "written to file:///out.mp4"),
        ("http://127.0.0.1:8080", "shown at http://127.0.0.1:8080"),
        ("display://0", "shown on the screen"),
        ("rtp://10.0.0.9:5004", "sent to rtp://10.0.0.9:5004"),
        ("rtsp://me:***@10.0.0.9/live", "sent to rtsp://me:***@10.0.0.9/live"),
    ],
)
def test_last_line_says_where_the_frames_went(sink, end):
    film = SourceResult("film.mp4", 5, 0, None, None)
    stages = {"total": StageTimes(1.0, 2.0, 3.0)}
    result = RunResult([film], sink, "tiny", "fake", "fp32", 5, 1.0, 5.0, stages, {"cat": 1.0})
    assert list(report_lines(result))[-1].endswith(end)
