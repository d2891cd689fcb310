"""fcn-bench: measure what a bundle gets right."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from fcnedge.runtime.command import Parser, run_command, write_json
from fcnedge.runtime.options import add_commands, read_options

from .accuracy import AccuracyOptions, compare_accuracy


def build_parser() -> Parser:
    """The command line, from the option dataclasses."""
    parser = Parser(prog="fcn-bench", description="Measure bundles.")
    add_commands(parser, _COMMANDS)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of fcn-bench; returns the exit code."""
    parsed = build_parser().parse_args(arguments)
    options, run, _ = _COMMANDS[parsed.command]
    return run_command(lambda: run(read_options(options, parsed)), f"fcn-bench {parsed.command}")


def _accuracy(options: AccuracyOptions) -> None:
    report = compare_accuracy(options)
    if options.json is not None:
        write_json(report, options.json)
    print(report.text())


_COMMANDS: dict[str, tuple[type, Callable[[Any], None], str]] = {
    "accuracy": (AccuracyOptions, _accuracy, "score a bundle on pictures in VOC layout, per precision and backend"),
}


if __name__ == "__main__":
    sys.exit(main())
