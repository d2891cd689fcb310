"""fcn-run: mask pictures, folders, videos and cameras with a bundle."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

from .command import Progress, run_command, write_json
from .errors import UserError
from .opencv import quiet_opencv
from .run import RunOptions, RunResult, build_parser, read_command_line, report_lines, run

__all__ = ["build_parser", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of fcn-run; returns the exit code."""
    options = read_command_line(arguments)
    quiet_opencv()
    if options.ray is not None:
        return run_command(lambda: _batch(options), "fcn-run")
    return run_command(lambda: _report(run(options, _say), options), "fcn-run")


def _batch(options: RunOptions) -> None:
    from .batch import run_batch  # a camera's start does not wait for what only batches need
    from .run.batch_options import batch_options

    with contextlib.closing(Progress()) as progress:
        result = run_batch(batch_options(options), progress)
    for line in result.lines():
        print(line)
    if options.json is not None:
        write_json(result, options.json)
    if result.failed:
        first = next(iter(result.failed.values())).rstrip(".")
        count = len(result.failed)
        which = "1 recording" if count == 1 else f"{count} recordings"
        more = "" if count == 1 else ", the first"
        raise UserError(f"{which} could not be masked{more} because {first}; statistics.jsonl names what failed.")


def _say(line: str) -> None:
    print(line, flush=True)


def _report(result: RunResult, options: RunOptions) -> None:
    skipped = sum(source.skipped_files for source in result.sources)
    if skipped:
        sys.stderr.write(f"fcn-run: files passed over because they are no pictures, or damaged: {skipped}\n")
    for line in report_lines(result):
        print(line)
    if options.json is not None:  # last: it may fail, and the run is over
        write_json(result, options.json)


if __name__ == "__main__":
    sys.exit(main())
