"""`fcn-calibrate sensitivity`: its command line, and the way up to the room that can do it.

Quantising a graph is `build_engine`'s work, and imports point down: so this command runs `fcn-build sensitivity` with
the same words as a child process.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcnedge.runtime.command import EXIT_INTERRUPTED, EXIT_TERMINATED, Terminated
from fcnedge.runtime.options import option

_GRACE_S = 2.0
"""A terminal sends Ctrl-C to both processes; whoever sends it to this one alone has the child ended after this."""


@dataclass(frozen=True)
class SensitivityOptions:
    """Command line of fcn-calibrate sensitivity and fcn-build sensitivity."""

    bundle: Path = option("bundle folder", positional=True)
    data: Path = option("folder in VOC layout", metavar="VOC")
    ranges: Path | None = option("activation ranges; default: ranges.json in the bundle", None, metavar="FILE")
    split: str | None = option(
        "list of pictures, ImageSets/Segmentation/NAME.txt; default: train without what calibration names", None
    )
    images: int = option("pictures to measure mIoU on, evenly spaced over the list", 64)
    top: int | None = option("measure mIoU of only so many layers, those with the noisiest scores; default: all", None)
    exclude: str | None = option("convolutions to leave in float throughout, with commas", None, metavar="NAMES")
    picture: Path | None = option("draw the layers, worst first, into this PNG", None, metavar="FILE")
    threads: int | None = option("CPU threads of one inference; default: one per core", None)
    dry_run: bool = option("check options, bundle, ranges and pictures, measure nothing", False)
    json: Path | None = option("write the result as JSON", None, metavar="FILE")


def run(options: SensitivityOptions) -> None:
    """Run fcn-build sensitivity; its streams are ours. Raises SystemExit with its exit code unless that is 0."""
    command = [sys.executable, "-m", "fcnedge.build_engine.cli", "sensitivity", *command_words(options)]
    with subprocess.Popen(command) as child:
        try:
            code = child.wait()
        except KeyboardInterrupt as ending:
            try:
                child.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                child.terminate()
            raise SystemExit(EXIT_TERMINATED if isinstance(ending, Terminated) else EXIT_INTERRUPTED) from None
    if code:
        raise SystemExit(code if code > 0 else 128 - code)


def command_words(options: Any) -> list[str]:
    """The command line that `read_options` reads back to `options`: a dataclass of single values and flags."""
    named, placed = [], []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if field.metadata["positional"]:
            placed.append(str(value))
        elif value is True:
            named.append(f"--{field.name.replace('_', '-')}")
        elif value is not None and value is not False:
            named.append(f"--{field.name.replace('_', '-')}={value}")
    return [*named, "--", *placed]
