"""Children that are real processes: what they say, how they fail, and that Ctrl-C ends them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fcnedge.runtime.child_command import python_module, run_child
from fcnedge.runtime.errors import UserError

NAME = "fcn-test"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", f"import os, sys\n{code}"]


def failure(code: str) -> str:
    with pytest.raises(UserError) as caught:
        run_child(python(code), NAME)
    return str(caught.value)


# --- what the user sees


def test_standard_error_is_passed_on_and_standard_output_is_not(capfd):
    run_child(python("print('a table'); sys.stderr.write('fcn-test: a warning\\nüber\\n')"), NAME)
    assert capfd.readouterr() == ("", "fcn-test: a warning\nüber\n")


def test_what_comes_is_passed_on_before_the_child_ends(monkeypatch):
    """The child waits for an answer to its first words, which nobody could give who had not seen them."""
    asking, answering = os.pipe()
    os.set_inheritable(asking, True)

    class Screen:
        text = ""

        def isatty(self) -> bool:
            return False

        def write(self, text: str) -> None:
            self.text += text
            if "ready?" in self.text:
                os.write(answering, b"y")

        def flush(self) -> None: ...

    monkeypatch.setattr(sys, "stderr", Screen())
    monkeypatch.setattr(subprocess, "Popen", _inheriting(subprocess.Popen))
    run_child(python(f"sys.stderr.write('ready?'); sys.stderr.flush(); assert os.read({asking}, 1) == b'y'"), NAME)
    os.close(asking)
    os.close(answering)


def _inheriting(popen: type) -> object:
    return lambda *args, **kwargs: popen(*args, **kwargs, close_fds=False)


SHOW = """
import sys
from fcnedge.runtime.child_command import run_child
from fcnedge.runtime.errors import UserError
try:
    run_child([sys.executable, "-c", sys.argv[1]], "fcn-test")
except UserError as error:
    sys.stderr.write(f"caught {error}\\n")
"""
TALK = """
import sys
from fcnedge.runtime.command import Progress, run_command
from fcnedge.runtime.errors import UserError
def work():
    progress = Progress()
    progress("compile", 1, 4)
    progress.close()
    raise UserError("no luck; try again.")
sys.exit(run_command(work, "fcn-test"))
"""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no pseudo-terminals")
def test_progress_line_is_drawn_on_a_terminal():
    ours, theirs = os.openpty()
    with subprocess.Popen([sys.executable, "-c", SHOW, TALK], stderr=theirs):
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    bar = b"\r\x1b[Kcompile [#####...............] 1/4\r\x1b[K"
    assert shown == bar + b"caught no luck; try again.\r\n"


def test_no_progress_line_is_drawn_in_a_file():
    done = subprocess.run([sys.executable, "-c", SHOW, TALK], stderr=subprocess.PIPE, text=True, check=True)
    assert done.stderr == "caught no luck; try again.\n"


# --- how it fails


def test_its_sentence_becomes_ours_and_is_shown_once(capfd):
    code = "sys.stderr.write('fcn-test: slow today\\nfcn-test: no such bundle; build one.\\n'); sys.exit(2)"
    assert failure(code) == "no such bundle; build one."
    assert capfd.readouterr().err == "fcn-test: slow today\n"


def test_sentence_in_pieces_is_put_together():
    pieces = "for piece in ('fcn', '-test', ': no', ' luck.', '\\n'): os.write(2, piece.encode())\nsys.exit(2)"
    assert failure(pieces) == "no luck."


def test_exit_without_a_sentence_shows_everything(capfd):
    assert failure("sys.stderr.write('Traceback\\nValueError: 3\\n'); sys.exit(1)").startswith(
        "fcn-test failed with exit code 1, which should not be"
    )
    assert capfd.readouterr().err == "Traceback\nValueError: 3\n"
    assert failure("sys.exit(2)").startswith("fcn-test failed with exit code 2")


def test_last_warning_of_a_success_is_shown(capfd):
    run_child(python("sys.stderr.write('fcn-test: slow today')"), NAME)
    assert capfd.readouterr().err == "fcn-test: slow today"


@pytest.mark.skipif(os.name != "posix", reason="signals are Unix's")
def test_child_that_was_killed_lacked_memory_most_likely():
    assert "killed, most likely for lack of memory" in failure("os.kill(os.getpid(), 9)")
    assert "was ended by signal 11" in failure("os.kill(os.getpid(), 11)")
    assert "was interrupted from outside" in failure("sys.exit(130)")


def test_program_that_is_not_there_is_a_users_error():
    with pytest.raises(UserError) as caught:
        run_child(["/nowhere/python"], NAME)
    assert str(caught.value) == (
        "fcn-test cannot be started (No such file or directory); check that /nowhere/python is there and may be used."
    )


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.ENOSPC, errno.EAGAIN])
def test_only_what_is_full_is_to_be_freed(monkeypatch, number):
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(number, "what the system says", "/a/path")

    monkeypatch.setattr(subprocess, "Popen", full)
    with pytest.raises(UserError, match=r"\(what the system says\); free some memory and disk space\.$"):
        run_child(python(""), NAME)


def test_place_for_temporary_files_that_cannot_be_used_is_named(tmp_path: Path):
    """In a process of its own: Python looks for the place once."""
    program = "import tempfile\ntempfile._candidate_tempdir_list = lambda: ['/nowhere']\n"
    done = subprocess.run([sys.executable, "-c", program + SHOW, "pass"], capture_output=True, text=True, check=True)
    assert done.stderr.startswith("caught fcn-test cannot be started (No usable temporary directory found in ")
    assert done.stderr.endswith(
        "; check that the folder for temporary files can be written to, or set TMPDIR to another.\n"
    )


def test_python_that_does_not_know_its_program_is_a_users_error(monkeypatch):
    assert python_module("a.b", "c") == [sys.executable, "-m", "a.b", "c"]
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(UserError, match=r"cannot start a\.b; run it beforehand"):
        python_module("a.b")


@pytest.mark.parametrize("executable", ["/opt/robot/robot", "/usr/bin/uwsgi", "/opt/blender-4.2"])
def test_application_that_embeds_python_is_not_started_again(monkeypatch, executable):
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(UserError, match=r"^this process is .* and no Python that could start a\.b; run it beforehand"):
        python_module("a.b")


def test_frozen_application_is_not_started_again(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(UserError, match=r"and no Python that could start a\.b"):
        python_module("a.b")


@pytest.mark.parametrize("name", ["python", "python3.12", "Python", "pypy3.10", "python3-dbg", "pythonw.exe"])
def test_every_python_is_known(monkeypatch, name):
    monkeypatch.setattr(sys, "executable", f"/somewhere/{name}")
    assert python_module("a.b") == [f"/somewhere/{name}", "-m", "a.b"]


# --- where it runs


def test_relative_pythonpath_means_the_same_folders(tmp_path: Path, monkeypatch):
    """And what was no folder but the current one is not its: see the next test."""
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "only_here.py").write_text("")
    (tmp_path / "not_here.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"inside{os.pathsep}")
    run_child(python("import only_here"), NAME)
    assert failure("import not_here").startswith("fcn-test failed with exit code 1")


def test_variables_are_set_beside_ours(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("OURS", "1")
    place = tmp_path / "place"
    run_child(python(f"open({str(place)!r}, 'w').write(os.environ['OURS'] + os.environ['ITS'])"), NAME, {"ITS": "2"})
    assert place.read_text() == "12"


def test_modules_of_the_current_folder_are_not_its(tmp_path: Path, monkeypatch):
    """A bundle is data: a fcnedge.py or json.py beside it must never be run."""
    for name in ("fcnedge", "json", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(77)")
    monkeypatch.chdir(tmp_path)
    run_child(python_module("fcnedge.runtime.cli", "--help"), "fcn-run")


def test_folder_that_it_starts_in_is_empty_and_gone_afterwards(tmp_path: Path):
    place = tmp_path / "place"
    code = f"open({str(place)!r}, 'w').write(os.getcwd() + repr(os.listdir()) + repr(sys.stdin.read()))"
    run_child(python(code), NAME)
    folder, _, rest = place.read_text().partition("[")
    assert rest == "]''"
    assert not Path(folder).exists()


# --- interruption

WAIT = """
import signal, sys
from fcnedge.runtime.command import run_command
def work():
    try:
        sys.stderr.write(f"pid {__import__('os').getpid()}\\n")
        sys.stderr.flush()
        signal.pause()
    finally:
        open(sys.argv[1], "w").write("tidied up")
sys.exit(run_command(work, "fcn-test"))
"""
INTERRUPTED = """
import sys
from fcnedge.runtime.child_command import run_child
try:
    run_child([sys.executable, "-c", *sys.argv[1:]], "fcn-test")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are Unix's")
def test_ctrl_c_ends_the_child_after_it_has_tidied_up(tmp_path: Path):
    command = [sys.executable, "-c", INTERRUPTED, WAIT, str(tmp_path / "place")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as parent:
        child = int(parent.stderr.readline().removeprefix("pid "))
        parent.send_signal(signal.SIGINT)
        assert parent.communicate() == ("interrupted\n", "")
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert (tmp_path / "place").read_text() == "tidied up"


@pytest.mark.skipif(os.name != "posix", reason="signals are Unix's")
def test_child_that_does_not_hear_is_killed(monkeypatch):
    monkeypatch.setattr("fcnedge.runtime.child_command._GRACE_S", 0.1)
    pids = []

    def interrupted(text: str) -> None:
        pids.append(int(text))
        raise KeyboardInterrupt

    monkeypatch.setattr("fcnedge.runtime.child_command._show", interrupted)
    deaf = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.write(2, b'%d' % os.getpid()); signal.pause()"
    )
    with pytest.raises(KeyboardInterrupt):
        run_child(python(deaf), NAME)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_it_can_be_run_from_any_thread(capfd):
    thread = threading.Thread(target=run_child, args=(python("sys.stderr.write('hello')"), NAME))
    thread.start()
    thread.join()
    assert capfd.readouterr().err == "hello"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="descriptors are counted in Linux's /proc")
def test_no_descriptor_is_left_open():
    before = set(Path("/proc/self/fd").iterdir())
    run_child(python("sys.stderr.write('x')"), NAME)
    failure("sys.exit(1)")
    with pytest.raises(UserError):
        run_child(["/nowhere/python"], NAME)
    assert set(Path("/proc/self/fd").iterdir()) == before
