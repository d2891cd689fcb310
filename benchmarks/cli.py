"""fcn-bench: measure what a bundle gets right, and how fast."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from fcnedge.runtime.command import EXIT_DONE, Parser, run_command, write_json
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.options import add_commands, read_options

from .accuracy import AccuracyOptions, compare_accuracy
from .latency import LatencyOptions, measure_latency, write_report
from .report.baseline import EXIT_REGRESSION


def build_parser() -> Parser:
    """The command line, from the option dataclasses."""
    parser = Parser(prog="fcn-bench", description="Measure bundles.")
    add_commands(parser, _COMMANDS)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of fcn-bench; returns the exit code."""
    parsed = build_parser().parse_args(arguments)
    options, run, _ = _COMMANDS[parsed.command]
    findings: list[int | None] = []
    code = run_command(lambda: findings.append(run(read_options(options, parsed))), f"fcn-bench {parsed.command}")
    return code or next(iter(findings), None) or EXIT_DONE


def _accuracy(options: AccuracyOptions) -> None:
    report = compare_accuracy(options)
    if options.json is not None:
        write_json(report, options.json)
    print(report.text())


def _latency(options: LatencyOptions) -> int | None:
    report = measure_latency(options)
    print(report.text(), flush=True)  # before what may fail
    write_report(report, options)
    if report.interrupted:  # what was measured is told, and the exit code is an interrupt's all the same
        raise KeyboardInterrupt
    if report.partial is not None:
        raise UserError(f"the run ended before its time: {report.partial}.")
    return EXIT_REGRESSION if report.baseline is not None and report.baseline.regression else None


_COMMANDS: dict[str, tuple[type, Callable[[Any], int | None], str]] = {
    "accuracy": (AccuracyOptions, _accuracy, "score a bundle on pictures in VOC layout, per precision and backend"),
    "latency": (LatencyOptions, _latency, "time a bundle stage by stage on this machine"),
}


if __name__ == "__main__":
    sys.exit(main())
