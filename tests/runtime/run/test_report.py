"""What fcn-run says of a run that came to nothing."""

from __future__ import annotations

from fcnedge.runtime.run import LiveStats, RunResult, SourceResult, report_lines


def test_run_without_frames_names_no_file_that_is_not_there():
    camera = SourceResult("rtsp://10.0.0.5/live", 0, 0, None, LiveStats(0, 0, 0, None))
    result = RunResult([camera], "masked.mp4", "tiny", "fake", "fp32", 0, 2.0, 0.0, {}, {})
    assert list(report_lines(result))[1:] == ["camera   0 frames, 0 dropped", "no frames"]
