"""Exit codes, one line per error, JSON that any program reads, tables, and silence off a terminal."""

from __future__ import annotations

import importlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import pytest

from fcnedge.runtime.command import Progress, jsonable, run_command, table, write_json
from fcnedge.runtime.errors import BundleError, UserError


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def raising(error: BaseException) -> Callable[[], NoReturn]:
    def run() -> NoReturn:
        raise error

    return run


def in_its_own_process(body: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    program = f"import sys\nfrom fcnedge.runtime.command import *\nfrom fcnedge.runtime.errors import *\n{body}"
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    settings = {"capture_output": True, "text": True, "cwd": Path(__file__).parent, "env": buffered} | settings
    return subprocess.run([sys.executable, "-c", program], check=False, **settings)


# What libraries say past sys.stderr


def test_lines_of_file_descriptor_2_are_captured_and_the_descriptor_is_given_back():
    body = """
import os
with captured_stderr() as words:
    os.write(2, b"one\\ntw\\xff\\n")
    assert words == []
os.write(2, b"after\\n")
assert words == ["one", "tw\\ufffd"], words"""
    done = in_its_own_process(body)
    assert (done.returncode, done.stderr) == (0, "after\n")


def test_process_that_keeps_the_descriptor_is_not_waited_for():
    """As a library's helper process does that it has started and that goes on: it holds a copy of descriptor 2."""
    body = """
import os
with captured_stderr() as words:
    kept = os.dup(2)
    os.write(2, b"one\\n")
os.write(2, b"after\\n")
assert words == ["one"], words"""
    done = in_its_own_process(body, timeout=60)
    assert (done.returncode, done.stderr) == (0, "after\n")


def test_what_an_error_ends_is_captured_too():
    body = """
import os
try:
    with captured_stderr() as words:
        os.write(2, b"last words\\n")
        raise ZeroDivisionError
except ZeroDivisionError:
    assert words == ["last words"], words"""
    done = in_its_own_process(body)
    assert (done.returncode, done.stderr) == (0, "")


# Exit codes


def test_done_is_0(capsys):
    assert run_command(lambda: say("done"), "fcn-test") == 0
    assert capsys.readouterr() == ("done\n", "")


@pytest.mark.parametrize("kind", [UserError, BundleError])
def test_users_error_is_2_and_one_line(kind, capsys):
    assert run_command(raising(kind("no such thing; look elsewhere.")), "fcn-test") == 2
    assert capsys.readouterr() == ("", "fcn-test: no such thing; look elsewhere.\n")


def test_message_of_several_lines_becomes_one(capsys):
    """File names hold line ends, and so do the words of other libraries."""
    assert run_command(raising(UserError("a\nb\r\nc\x0bd\u2028e")), "fcn-test") == 2
    assert capsys.readouterr().err == "fcn-test: a b c d e\n"


def test_interrupt_is_130(capsys):
    assert run_command(raising(KeyboardInterrupt()), "fcn-test") == 130
    assert capsys.readouterr() == ("", "fcn-test: interrupted.\n")


@pytest.fixture
def sigterm_before():
    """Give a SIGTERM handler that is in place before the command: what run_command lets through fails the test."""

    def fail(*_: object) -> NoReturn:
        raise AssertionError("SIGTERM came past run_command")

    before = signal.signal(signal.SIGTERM, fail)
    yield fail
    signal.signal(signal.SIGTERM, before)


def test_sigterm_unwinds_the_command_and_is_143():
    body = """
import signal
before = lambda *_: sys.exit("SIGTERM came past run_command")
signal.signal(signal.SIGTERM, before)
finished = []
def run():
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        finished.append(True)
code = run_command(run, "fcn-test")
assert finished == [True]
assert signal.getsignal(signal.SIGTERM) is before
sys.exit(code)"""
    done = in_its_own_process(body)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "fcn-test: terminated.\n")


def test_sigterm_is_143_even_where_a_library_makes_a_plain_interrupt_of_it():
    """As TensorRT's builder does: what is raised in a method that C++ calls must not leave it."""
    body = """
import signal
def run():
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        pass
    raise KeyboardInterrupt
sys.exit(run_command(run, "fcn-test"))"""
    done = in_its_own_process(body)
    assert (done.returncode, done.stderr) == (143, "fcn-test: terminated.\n")


@pytest.mark.parametrize("error", [None, UserError("no"), KeyboardInterrupt()])
def test_handler_of_sigterm_is_given_back(sigterm_before, error):
    run_command(raising(error) if error else lambda: None, "fcn-test")
    assert signal.getsignal(signal.SIGTERM) is sigterm_before


def test_sigterm_that_is_ignored_stays_ignored():
    body = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.exit(run_command(lambda: signal.raise_signal(signal.SIGTERM), "fcn-test"))"""
    assert in_its_own_process(body).returncode == 0


def test_command_runs_in_another_thread(sigterm_before):
    """Python takes signal handlers from the main thread only."""
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(run_command(lambda: None, "fcn-test")))
    thread.start()
    thread.join()
    assert codes == [0]


def test_process_that_is_terminated_finishes_its_film(tmp_path):
    body = f"""
import os, signal
import numpy as np
from fcnedge.runtime import Frame, Segmentation, StreamResult, open_sink
grey = np.full((48, 64, 3), 90, np.uint8)
def run():
    with open_sink({str(tmp_path / "out.mp4")!r}, fps=20) as sink:
        for index in range(50):
            found = Segmentation(grey[..., 0], 0, 0, 0)
            sink.take(StreamResult(Frame(grey, "grey", index, 0.0), found, "grey", index, 0, 0.0, 0.0), grey)
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
sys.exit(run_command(run, "fcn-test"))"""
    done = in_its_own_process(body)
    assert (done.returncode, done.stderr) == (143, "fcn-test: terminated.\n")
    assert cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 50


def test_path_that_is_too_long_is_a_users_error(capsys):
    name = "n" * 300
    assert run_command(lambda: say(str(os.stat(name))), "fcn-test") == 2  # noqa: PTH116 - raises in every Python
    line = f"fcn-test: {name} cannot be used (File name too long); choose another path.\n"
    assert capsys.readouterr() == ("", line)


def test_forbidden_path_is_a_users_error(forbidden_folder, capsys):
    assert run_command(lambda: say((forbidden_folder / "a\nb").read_text()), "fcn-test") == 2
    line = f"fcn-test: {forbidden_folder}/a b cannot be used (Permission denied); choose another path.\n"
    assert capsys.readouterr() == ("", line)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("build_engine", ["model", "fcn8s-lite0", "-o", "out", "--weights", "{long}"]),
        ("build_engine", ["model", "fcn8s-lite0", "-o", "out", "--classes", "{long}"]),
        ("calibration", ["ranges", "{bundle}", "--data", "{long}"]),
        ("calibration", ["ranges", "{bundle}", "--data", "data", "-o", "{long}"]),
        ("runtime", ["{long}", "--model", "{bundle}", "--backend", "fake"]),
        ("runtime", ["demo://", "--model", "{long}", "--backend", "fake"]),
    ],
)
def test_every_command_takes_a_name_that_is_too_long_for_the_users_error(
    command, words, tiny_bundle, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"fcnedge.{command}.cli")
    long = "n" * 300
    assert module.main([word.format(long=long, bundle=tiny_bundle) for word in words]) == 2
    shown, errors = capsys.readouterr()
    assert shown == ""
    (line,) = errors.splitlines()
    assert long in line


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        RuntimeError("another"),
        OSError(5, "unforeseen"),
        FileNotFoundError(2, "a file of our own", "shader.cu"),
        PermissionError(1, "no path at all"),
    ],
)
def test_bug_is_not_caught(error):
    with pytest.raises(type(error)) as caught:
        run_command(raising(error), "fcn-test")
    assert caught.value is error


def test_bug_is_exit_1_with_a_traceback():
    done = in_its_own_process("sys.exit(run_command(lambda: 1 / 0, 'fcn-test'))")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize("size", [1, 1 << 20], ids=["held back till the end", "beyond any pipe's buffer"])
def test_reader_that_went_away_is_no_error(size):
    """`fcn-build inspect … | head -0`: the pipe's other end is closed before the first byte is written."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        body = f"sys.exit(run_command(lambda: print('x' * {size}), 'fcn-test'))"
        done = in_its_own_process(body, stdout=writing, stderr=subprocess.PIPE, capture_output=False)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(os.name != "posix", reason="the shell is Unix's")
@pytest.mark.parametrize(("closed", "left"), [(">&-", ("", "heard\n")), ("2>&-", ("said\n", ""))])
def test_closed_standard_stream_is_no_error(closed, left):
    body = "sys.exit(run_command(lambda: (print('said'), sys.stderr.write('heard\\n')), 'fcn-test'))"
    program = f"import sys\nfrom fcnedge.runtime.command import run_command\n{body}"
    shell = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, program]
    done = subprocess.run(shell, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, *left)


def test_name_that_the_terminal_cannot_show_is_no_error():
    body = "sys.exit(run_command(lambda: print('caf\\udce9 \\u9053'), 'fcn-test'))"
    done = in_its_own_process(body, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "caf\\udce9 \\u9053\n", "")


# Logging


@pytest.fixture
def bare_logging(monkeypatch):
    """Give a function that takes pytest's own handlers away: then logging is as a command finds it."""
    root = logging.getLogger()
    level = root.level
    yield lambda: monkeypatch.setattr(root, "handlers", [])
    root.setLevel(level)


def test_warnings_look_like_the_commands_own_lines(bare_logging, capsys):
    bare_logging()
    run_command(lambda: logging.getLogger("fcnedge.runtime.sinks").warning("cat came %s", "twice"), "fcn-test")
    assert capsys.readouterr().err == "fcn-test: cat came twice\n"


@pytest.mark.parametrize(("level", "shown"), [("ERROR", 1), ("warning", 2), ("info", 3), ("DEBUG", 4)])
def test_fcnedge_log_sets_the_level(bare_logging, monkeypatch, capsys, level, shown):
    bare_logging()
    monkeypatch.setenv("FCNEDGE_LOG", level)

    def run() -> None:
        for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger("x").log(number, "word")

    assert run_command(run, "fcn-test") == 0
    assert capsys.readouterr().err.count("word") == shown


def test_level_that_does_not_exist_is_a_users_error(bare_logging, monkeypatch, capsys):
    bare_logging()
    monkeypatch.setenv("FCNEDGE_LOG", "loud")
    assert run_command(lambda: say("never"), "fcn-test") == 2
    assert capsys.readouterr() == (
        "",
        "fcn-test: FCNEDGE_LOG is 'LOUD'; it must be one of DEBUG, INFO, WARNING, ERROR.\n",
    )


# JSON


@dataclass(frozen=True)
class Inner:
    value: float
    path: Path = Path("a/b")


@dataclass(frozen=True)
class Outer:
    name: str = "Straße"
    inner: Inner = field(default_factory=lambda: Inner(float("nan")))
    several: tuple[Inner, ...] = (Inner(1.5), Inner(float("-inf")))
    table: dict[Any, Any] = field(default_factory=lambda: {1: float("inf"), "k": [None, True, 3]})
    precise: Any = np.float64(0.25)


def test_result_objects_become_json_data():
    assert jsonable(Outer()) == {
        "name": "Straße",
        "inner": {"value": None, "path": "a/b"},
        "several": [{"value": 1.5, "path": "a/b"}, {"value": None, "path": "a/b"}],
        "table": {"1": None, "k": [None, True, 3]},
        "precise": 0.25,
    }


def test_a_class_is_not_taken_for_a_result():
    assert jsonable(Inner) == str(Inner)


def test_written_json_is_strict_and_makes_its_folder(tmp_path):
    path = tmp_path / "deep" / "er" / "result.json"
    write_json(Outer(), path)

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is no JSON")

    assert json.loads(path.read_bytes(), parse_constant=refuse) == jsonable(Outer())
    assert "Straße" in path.read_text(encoding="utf-8")


def test_file_name_that_is_not_utf8_survives_json(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    write_json({"source": name}, tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_bytes()) == {"source": name}


def test_json_that_cannot_be_written_is_a_users_error(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file" / "result.json"):
        with pytest.raises(UserError, match=r"cannot be written \(.+\); choose another place for --json\.$"):
            write_json({}, path)


# Tables


def test_numbers_stand_right_and_text_left():
    rows = [("conv1", 7, 0.5, 1234567), ("pool", 1234, 0.00123, 8)]
    assert table(rows, ("layer", "n", "ms", "bytes")).splitlines() == [
        "layer      n        ms      bytes",
        "conv1      7      0.50  1,234,567",
        "pool   1,234  1.23e-03          8",
    ]


def test_column_with_a_word_in_it_is_text():
    assert table([("a", 1), ("b", "none")]).splitlines() == ["a  1", "b  none"]


def test_rows_of_different_lengths_and_no_rows():
    assert table([("a",), ("bb", 1)]).splitlines() == ["a", "bb  1"]
    assert table([]) == ""
    assert table([], ("x", "y")) == "x  y"


def test_numbers_that_are_none_are_shown():
    assert table([(float("nan"),), (float("inf"),), (0.0,)]).splitlines() == [" nan", " inf", "0.00"]


# Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_silent_off_a_terminal(capsys):
    progress = Progress()
    progress("cat", 1, 2)
    progress.close()
    assert capsys.readouterr() == ("", "")


def test_progress_redraws_one_line_and_clears_it(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress()
    progress("cat")
    progress("dog", 1, 4)
    progress("end", 9, 4)  # a film that is longer than it promised
    progress.close()
    drawn = terminal.getvalue().split("\r\x1b[K")
    assert drawn == ["", "cat", f"dog [{'#' * 5}{'.' * 15}] 1/4", f"end [{'#' * 20}] 9/4", ""]


def test_warning_on_a_terminal_takes_the_place_of_the_progress_line(bare_logging, monkeypatch):
    bare_logging()
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)

    def run() -> None:
        Progress()("frame 7")
        logging.getLogger("x").warning("camera stalled")

    run_command(run, "fcn-test")
    assert terminal.getvalue() == "\r\x1b[Kframe 7\r\x1b[Kfcn-test: camera stalled\n"
