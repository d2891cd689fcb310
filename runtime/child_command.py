"""A command of fcnedge in a child process: it speaks to the user as if he had called it, and fails as a function does.

What needs much memory runs so: when the child has ended, all of it is the system's again.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence

from .command import EXIT_DONE, EXIT_INTERRUPTED, EXIT_TERMINATED, EXIT_USER_ERROR
from .errors import UserError

_CLEAR_LINE = "\r\x1b[K"
_READ_BYTES = 1 << 16
_GRACE_S = 10.0
_PYTHON = re.compile("python|pypy|graalpy", re.IGNORECASE)
_FULL = (errno.ENOMEM, errno.ENOSPC, errno.EAGAIN)


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs `module` with the Python of this process.

    Raises UserError where that is no program: in an application that was frozen or that embeds Python,
    `sys.executable` may be the application, which would start itself once more.
    """
    if not sys.executable:
        raise UserError(f"this process does not know its Python, so it cannot start {module}; run it beforehand.")
    if getattr(sys, "frozen", False) or not _PYTHON.match(os.path.basename(sys.executable)):  # noqa: PTH119 - a text
        raise UserError(
            f"this process is {sys.executable} and no Python that could start {module}; run it beforehand, in a Python "
            "that has fcnedge."
        )
    return [sys.executable, "-m", module, *arguments]


def run_child(
    command: Sequence[str], name: str, environment: Mapping[str, str] | None = None, inherited: Sequence[int] = ()
) -> None:
    """Run `command` to its end. name: what it calls itself in its messages, as `run_command` has it.

    environment: variables that are set for it, beside ours; folders of PYTHONPATH are those that they are here.
    inherited: file descriptors that stay open in it, such as a lock that shall last as long as either of us lives.
    Its standard error is passed on as it comes, with a progress line if ours is a terminal. What it prints is dropped.
    It gets nothing to read, and starts in an empty folder, for `python -m` imports from the current one first.

    Raises UserError when it fails: with its own sentence, which then is not shown, when it exits 2 after one.
    An exception that interrupts the waiting, KeyboardInterrupt first of all, ends the child and goes on; a child that
    does not hear, being deep in C++, has ten seconds.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="fcnedge-") as folder, _error_channel() as (reading, writing):
            child = _started(command, folder, writing, {**_environment(), **(environment or {})}, inherited)
            try:
                last = _pass_on(reading.fileno(), f"{name}: ")
                code = child.wait()
            except BaseException:
                _end(child)
                raise
    except OSError as error:
        raise UserError(f"{name} cannot be started ({error.strerror}); {_advice(error)}.") from error
    _check(name, code, last)


def _environment() -> dict[str, str]:
    """Ours, for a process that starts in another folder."""
    environment = dict(os.environ)
    path = environment.get("PYTHONPATH", "")
    if path:  # an empty entry is the current folder, and so the empty one: nothing is imported from where we are
        folders = [os.path.abspath(entry) if entry else "" for entry in path.split(os.pathsep)]  # noqa: PTH100
        environment["PYTHONPATH"] = os.pathsep.join(folders)
    return environment


def _advice(error: OSError) -> str:
    if error.errno in _FULL:
        return "free some memory and disk space"
    if error.filename is not None:
        return f"check that {os.fsdecode(error.filename)} is there and may be used"
    return "check that the folder for temporary files can be written to, or set TMPDIR to another"


def _started(
    command: Sequence[str],
    folder: str,
    errors: _Descriptor,
    environment: Mapping[str, str],
    inherited: Sequence[int],
) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors.fileno(),
        pass_fds=inherited,
        start_new_session=True,  # Ctrl-C reaches it from us alone, and once: a second would disturb its tidying up
    )
    errors.close()  # the child's is then the only one, and its end the end of the text
    return child


@contextlib.contextmanager
def _error_channel() -> Iterator[tuple[_Descriptor, _Descriptor]]:
    """Two ends, to read and to write: of a pseudo-terminal where our standard error is a terminal, else of a pipe."""
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    if is_terminal and hasattr(os, "openpty"):
        import termios

        ends = os.openpty()
        settings = termios.tcgetattr(ends[1])
        settings[1] &= ~termios.OPOST  # the user's terminal puts carriage returns before line ends itself
        termios.tcsetattr(ends[1], termios.TCSANOW, settings)
    else:
        ends = os.pipe()
    with contextlib.closing(_Descriptor(ends[0])) as reading, contextlib.closing(_Descriptor(ends[1])) as writing:
        yield reading, writing


class _Descriptor:
    """A file descriptor that is closed once, however often it is asked to."""

    def __init__(self, number: int):
        self._number: int | None = number

    def fileno(self) -> int:
        assert self._number is not None
        return self._number

    def close(self) -> None:
        number, self._number = self._number, None
        if number is not None:
            os.close(number)


def _pass_on(descriptor: int, prefix: str) -> str:
    """Show what arrives until the other end is closed; give the last line if it begins with `prefix`."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    held = ""
    while piece := _read(descriptor):
        shown, held = _hold_back(held + decoder.decode(piece), prefix)
        _show(shown)
    return held


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _READ_BYTES)
    except OSError:  # Linux's word for a pseudo-terminal whose other end is closed
        return b""


def _hold_back(text: str, prefix: str) -> tuple[str, str]:
    """What of `text` to show now, and its last line when that begins with `prefix`, or may when more has come."""
    body = text.removesuffix("\n")
    cleared = body.rfind(_CLEAR_LINE)
    start = max(body.rfind("\n") + 1, cleared + len(_CLEAR_LINE) if cleared >= 0 else 0)
    line = text[start:]
    if line.startswith(prefix) or prefix.startswith(line):
        return text[:start], line
    return text, ""


def _show(text: str) -> None:
    if text and sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):  # nobody is left to read it
            sys.stderr.write(text)
            sys.stderr.flush()


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ask the child to end, as `kill` does, and when it does not hear end it."""
    child.terminate()
    try:
        child.wait(_GRACE_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        child.kill()
        child.wait()


def _check(name: str, code: int, last: str) -> None:
    """Raise UserError unless `code` is 0. last: the line that was kept back."""
    sentence = last.removeprefix(f"{name}: ").strip()
    if code == EXIT_USER_ERROR and sentence:
        raise UserError(sentence)
    _show(last)
    if code in (EXIT_INTERRUPTED, EXIT_TERMINATED):
        raise UserError(f"{name} was interrupted from outside; start it again.")
    if code == -getattr(signal, "SIGKILL", 9):
        raise UserError(f"{name} was killed, most likely for lack of memory; close other programs or add swap.")
    if code != EXIT_DONE:
        how = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
        raise UserError(f"{name} {how}, which should not be; what it wrote before says more, please report it.")
