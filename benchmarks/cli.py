"""fcn-bench: measure what a bundle gets right, and how fast."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from fcnedge.runtime.command import EXIT_DONE, Parser, run_command
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.options import add_commands, read_options

from .accuracy import AccuracyOptions, compare_accuracy, write_files
from .combined import ReportOptions, combine
from .compare import CompareOptions, compare
from .compare import write_report as write_comparison
from .latency import LatencyOptions, measure_latency, write_report
from .predict import PredictOptions
from .predict import run as run_prediction
from .predict import write_report as write_prediction
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
    print(report.text(), flush=True)  # before what may fail
    write_files(report, options)


def _compare(options: CompareOptions) -> None:
    report = compare(options)
    print(report.text(), flush=True)  # before what may fail
    write_comparison(report, options)
    if report.interrupted:  # as for latency
        raise KeyboardInterrupt


def _predict(options: PredictOptions) -> None:
    report = run_prediction(options)
    print(report.text(), flush=True)  # before what may fail
    write_prediction(report, options)


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
    "compare": (CompareOptions, _compare, "time and score our rows beside other runtimes, in turns"),
    "latency": (LatencyOptions, _latency, "time a bundle stage by stage on this machine"),
    "predict": (PredictOptions, _predict, "what a bundle should take on a board that is not here"),
    "report": (ReportOptions, combine, "put what the others wrote with --json into one page"),
}


if __name__ == "__main__":
    sys.exit(main())
