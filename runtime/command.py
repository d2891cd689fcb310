"""What every fcnedge command does alike: exit codes, one-sentence errors, --json, progress and tables."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import io
import json
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from .errors import UserError

EXIT_DONE, EXIT_BUG, EXIT_USER_ERROR = 0, 1, 2
EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143
"""128 and the number of the signal, SIGINT or SIGTERM, as shells count."""
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_CLEAR_LINE = "\r\x1b[K"
_PATH_ERRORS = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOSPC, errno.EDQUOT}
)
"""What a path or its disk can be to blame for, wherever it shows: before Python 3.14 even Path.is_dir raises some."""


class Parser(argparse.ArgumentParser):
    """argparse that reports a wrong command line in fcnedge's way, and accepts no abbreviated options."""

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Exit 2 after one line that says what is wrong and where the help is."""
        self.exit(EXIT_USER_ERROR, f"{self.prog}: {_one_line(message)}. See {self.prog} --help.\n")


class CommandParser(Parser):
    """The parser of one subcommand: words that it does not know it refuses itself, under its own name."""

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """As argparse's, with no word left over: argparse would hand it up, to a parser that names no subcommand."""
        known, unknown = super().parse_known_args(*args, **kwargs)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown


def run_command(run: Callable[[], None], name: str) -> int:
    """Call `run`; give the exit code: 0, 2 after one line for a UserError, 130 after Ctrl-C, 143 after SIGTERM.

    A path that is forbidden, too long, or on a full disk is a user's error too. Any other exception is a bug and goes
    on, for Python to show its traceback. SIGTERM unwinds `run` as Ctrl-C does, so that outputs are finished.
    """
    terminated = threading.Event()
    _replace_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file name that the terminal's encoding lacks is no error
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _start_logging(name)
        with _sigterm_unwinds(terminated):
            run()
            sys.stdout.flush()  # a reader that went away shows here, not while Python ends
    except UserError as error:
        sys.stderr.write(f"{name}: {_one_line(error)}\n")
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        # Not by its type: a library that calls back from C++ must have it raised anew, and then it is a plain one.
        sys.stderr.write(f"{name}: {'terminated' if terminated.is_set() else 'interrupted'}.\n")
        return EXIT_TERMINATED if terminated.is_set() else EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`fcn-build inspect … | head`): not an error, nothing left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    except OSError as error:
        if error.errno not in _PATH_ERRORS or not isinstance(error.filename, str | bytes):
            raise
        path = os.fsdecode(error.filename)
        sys.stderr.write(f"{name}: {_one_line(f'{path} cannot be used ({error.strerror}); choose another path.')}\n")
        return EXIT_USER_ERROR
    return EXIT_DONE


class Terminated(KeyboardInterrupt):
    """SIGTERM (kill, systemctl stop, docker stop): whoever is ready for Ctrl-C is ready for it."""


@contextlib.contextmanager
def captured_stderr() -> Iterator[list[str]]:
    """A list that holds, once the block is left, the lines that were written to file descriptor 2 inside it.

    Libraries in C and C++ write there themselves, past sys.stderr and every log level. A process that they have started
    and that goes on is not waited for.
    """
    lines: list[str] = []
    said = bytearray()
    try:
        with stderr_into(said):
            yield lines
    finally:
        lines += said.decode(errors="replace").splitlines()


@contextlib.contextmanager
def stderr_into(said: bytearray) -> Iterator[None]:
    """Add to `said`, once the block is left, what was written to file descriptor 2 inside it, as `captured_stderr`."""
    reading, writing = os.pipe()
    for end in (reading, writing):  # who says more than a pipe holds is cut short, and nobody is kept waiting
        os.set_blocking(end, False)
    kept = os.dup(2)
    os.dup2(writing, 2)
    os.close(writing)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        said += _read_what_is_there(reading)
        os.close(reading)


def _read_what_is_there(descriptor: int) -> bytes:
    """All that can be read without waiting: to the end, or as far as it has come."""
    data = b""
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(descriptor, 1 << 16):
            data += piece
    return data


def _replace_closed_streams() -> None:
    """Started with standard output or error closed (`>&-`), Python has None in their place; nobody listens there."""
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the process ends
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


@contextlib.contextmanager
def _sigterm_unwinds(terminated: threading.Event) -> Iterator[None]:
    """While the block runs SIGTERM sets `terminated` and raises Terminated.

    Not where it is ignored, nor outside the main thread.
    """
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        terminated.set()
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _start_logging(name: str) -> None:
    """Log to standard error as the command itself speaks there: one line each, over the progress line if there is one.

    Raises UserError when FCNEDGE_LOG is no level.
    """
    level = os.environ.get("FCNEDGE_LOG", "WARNING").upper()
    if level not in _LEVELS:
        raise UserError(f"FCNEDGE_LOG is {level!r}; it must be one of {', '.join(_LEVELS)}.")
    clear = _CLEAR_LINE if sys.stderr.isatty() else ""
    logging.basicConfig(level=level, format=f"{clear}{name}: %(message)s")


def jsonable(value: Any) -> Any:
    """A result object as JSON data: dataclasses and mappings as objects, NaN and infinity as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [jsonable(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return str(value)


def write_json(value: Any, path: Path) -> None:
    """Write a result object to `path`, creating its folder. Raises UserError when that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(jsonable(value), indent=2, ensure_ascii=False) + "\n"
        # A file name that is not UTF-8 holds lone surrogates; their backslash form is JSON's own.
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another place for --json.") from error


def table(rows: Iterable[Sequence[Any]], header: Sequence[str] | None = None) -> str:
    """Rows as aligned text columns; numbers to the right."""
    rows = list(rows)
    lines = [[_cell(value) for value in row] for row in rows]
    if header is not None:
        lines.insert(0, [str(value) for value in header])
    columns = range(max((len(line) for line in lines), default=0))
    numeric = [all(isinstance(row[i], int | float) for row in rows if i < len(row)) for i in columns]
    widths = [max(len(line[i]) for line in lines if i < len(line)) for i in columns]
    aligned = [
        "  ".join(
            cell.rjust(widths[i]) if numeric[i] else cell.ljust(widths[i]) for i, cell in enumerate(line)
        ).rstrip()
        for line in lines
    ]
    return "\n".join(aligned)


class Progress:
    """One line on a terminal that says what goes on; silent where standard error is not a terminal."""

    def __init__(self) -> None:
        self._visible = sys.stderr.isatty()

    def __call__(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Show `text`, with a bar when `done` of `total` is known."""
        if not self._visible:
            return
        bar = ""
        if done is not None and total:
            filled = min(20, round(20 * done / total))
            bar = f" [{'#' * filled}{'.' * (20 - filled)}] {done}/{total}"
        sys.stderr.write(f"{_CLEAR_LINE}{text}{bar}")
        sys.stderr.flush()

    def close(self) -> None:
        """Clear the line."""
        if self._visible:
            sys.stderr.write(_CLEAR_LINE)
            sys.stderr.flush()


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 0.01 or value == 0 else f"{value:.2e}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def _one_line(message: object) -> str:
    """Messages hold file names and other libraries' words, and these may hold line ends."""
    return " ".join(str(message).splitlines())
