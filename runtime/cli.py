"""fcn-run: mask pictures, folders, videos and cameras with a bundle."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from .command import run_command, write_json
from .run import RunOptions, RunResult, build_parser, read_command_line, report_lines, run

__all__ = ["build_parser", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of fcn-run; returns the exit code."""
    options = read_command_line(arguments)
    # OpenCV and its FFmpeg read these when they load. What they would print comes again in our own sentence.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    # Reading, drawing and writing have threads of their own; more of OpenCV's would take cores from the network.
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")
    return run_command(lambda: _report(run(options, _say), options), "fcn-run")


def _say(line: str) -> None:
    print(line, flush=True)


def _report(result: RunResult, options: RunOptions) -> None:
    skipped = sum(source.skipped_files for source in result.sources)
    if skipped:
        sys.stderr.write(f"fcn-run: files passed over because they are no pictures: {skipped}\n")
    for line in report_lines(result):
        print(line)
    if options.json is not None:  # last: it may fail, and the run is over
        write_json(result, options.json)


if __name__ == "__main__":
    sys.exit(main())
