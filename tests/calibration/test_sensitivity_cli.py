"""fcn-calibrate sensitivity hands its words, streams, exit code and Ctrl-C to fcn-build sensitivity and back."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fcnedge.calibration import cli
from fcnedge.calibration.sensitivity_cli import SensitivityOptions, command_words
from fcnedge.runtime.command import Parser
from fcnedge.runtime.options import add_options, read_options


def run(*words: object) -> int:
    try:
        return cli.main([str(word) for word in words])
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 1


@pytest.fixture
def named_bundle(make_network, make_bundle, tmp_path: Path) -> Path:
    """The small bundle, with names on its nodes, as the builder writes them."""
    model = make_network(scale=0.002)
    for node in model.graph.node:
        node.name = node.output[0]
    return make_bundle(tmp_path / "named", model)


@pytest.mark.parametrize(
    "options",
    [
        SensitivityOptions(Path("bundle"), Path("VOC 2012")),
        SensitivityOptions(
            bundle=Path("-bundle"),
            data=Path("-data"),
            ranges=Path("a=b.json"),
            split="-split",
            images=7,
            top=3,
            exclude="a, b",
            picture=Path("p.png"),
            threads=2,
            dry_run=True,
            json=Path("j.json"),
        ),
    ],
)
def test_words_say_the_same_again(options):
    parser = Parser()
    add_options(parser, SensitivityOptions)
    assert read_options(SensitivityOptions, parser.parse_args(command_words(options))) == options


def test_layers_are_measured(capfd, named_bundle, voc_folder, tmp_path):
    assert run("ranges", named_bundle, "--data", voc_folder, "-o", tmp_path / "r.json", "--threads", 1) == 0
    capfd.readouterr()
    words = ["sensitivity", named_bundle, "--ranges", tmp_path / "r.json", "--data", voc_folder, "--threads", 1]
    assert run(*words, "--images", 2, "--json", tmp_path / "s.json") == 0
    found = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["sensitivity"]
    assert {layer["layer"] for layer in found["layers"]} == {"stem", "block_project", "scores"}
    printed, err = capfd.readouterr()
    assert "all default layers in INT8: SQNR " in printed
    assert err == ""


def test_mistake_is_one_line_and_exit_2(capfd, named_bundle, voc_folder):
    assert run("sensitivity", named_bundle, "--ranges", "nowhere.json", "--data", voc_folder) == 2
    message = "there are no ranges at nowhere.json; collect them with fcn-calibrate ranges."
    assert capfd.readouterr().err == f"fcn-build sensitivity: {message}\n"
    assert run("sensitivity", named_bundle, "--data", voc_folder, "--cheese") == 2
    assert capfd.readouterr().err.startswith("fcn-calibrate sensitivity: unrecognized arguments: --cheese.")


@pytest.mark.parametrize(("ending", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("to_both", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_interrupt_ends_both(named_bundle, voc_folder, tmp_path, to_both, ending, code):
    """The child waits on ranges that nobody writes: a pipe, which has a reader as long as the child lives."""
    pipe = tmp_path / "ranges.json"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "fcnedge.calibration.cli", "sensitivity", str(named_bundle)]
    command += ["--ranges", str(pipe), "--data", str(voc_folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as parent:
        writer = writing_end(pipe, parent)
        try:
            os.killpg(parent.pid, ending) if to_both else parent.send_signal(ending)
            _, err = parent.communicate(timeout=60)
            with pytest.raises(BrokenPipeError):
                os.write(writer, b"{}")
        finally:
            os.close(writer)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)
    assert parent.returncode == code
    assert b"Traceback" not in err


def writing_end(pipe: Path, process: subprocess.Popen) -> int:
    """Open a pipe for writing as soon as somebody reads it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):  # no reader yet
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        time.sleep(0.05)
    process.kill()
    pytest.fail("nobody read the ranges")
