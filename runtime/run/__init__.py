"""What fcn-run does: sources through one model to outputs, and the report of it."""

from .options import RunOptions, build_parser, read_command_line
from .report import report_lines
from .result import LiveStats, RunResult, SourceResult
from .session import run

__all__ = [
    "LiveStats",
    "RunOptions",
    "RunResult",
    "SourceResult",
    "build_parser",
    "read_command_line",
    "report_lines",
    "run",
]
