"""What the README shows works: its Python runs, and its command lines are ones that the commands accept."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
BUNDLE = "fcn8s-lite0-voc"
NO_RUN = "no-run"
"""A block fenced as ```python no-run: REASON is not run; the reason (needs a camera, a GPU) is the reader's too."""


class Block(NamedTuple):
    line: int  # of the first line of code, from 1
    language: str
    note: str  # what follows the language on the fence
    code: str

    def __str__(self) -> str:
        return f"{self.language}-line-{self.line}"


class Command(NamedTuple):
    line: int
    words: list[str]

    def __str__(self) -> str:
        return f"line-{self.line}-{'-'.join(self.words[:2])}"


def blocks(markdown: str) -> Iterator[Block]:
    for fence in re.finditer(r"^```(\w+)[ \t]*([^\n]*)\n(.*?)^```[ \t]*$", markdown, flags=re.MULTILINE | re.DOTALL):
        line = markdown.count("\n", 0, fence.start(3)) + 1
        yield Block(line, fence[1], fence[2].strip(), fence[3])


def commands(block: Block) -> Iterator[Command]:
    """Split a shell block into its fcn-… command lines: continued lines joined; prompts, comments and pipes cut off."""
    joined = block.code.replace("\\\n", "  ")  # as long as what it replaces, less the newline
    for offset, text in enumerate(joined.splitlines()):
        words = shlex.split(text.strip().removeprefix("$ "), comments=True)
        ends = [i for i, word in enumerate(words) if word in {"|", "&&", ";", "&", ">", "2>"}]
        words = words[: min(ends, default=len(words))]
        if words and words[0].startswith("fcn-"):
            yield Command(block.line + offset, words)


BLOCKS = list(blocks(README.read_text(encoding="utf-8")))
PYTHON_BLOCKS = [block for block in BLOCKS if block.language == "python"]
COMMANDS = [command for block in BLOCKS if block.language in {"sh", "bash", "console"} for command in commands(block)]


@pytest.fixture(scope="module")
def readme_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder that all blocks run in, one after the other, with the bundle that the README builds first."""
    folder = tmp_path_factory.mktemp("readme")
    command = [Path(sys.executable).with_name("fcn-build"), "model", BUNDLE, "-o", BUNDLE]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    return folder


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=str)
def test_python_block_runs(block: Block, readme_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if block.note.startswith(NO_RUN):
        reason = block.note.removeprefix(NO_RUN).strip(" :")
        assert reason, f"README.md:{block.line - 1}: say why it cannot run: ```python no-run: needs a camera"
        pytest.skip(reason)
    monkeypatch.chdir(readme_folder)
    # blank lines in front, so that a traceback shows the README's own line numbers
    exec(compile("\n" * (block.line - 1) + block.code, str(README), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_command_line_is_accepted(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    name, *arguments = command.words
    scripts = importlib.metadata.entry_points(group="console_scripts", name=name)
    assert scripts, f"README.md:{command.line}: there is no command {name}"
    (script,) = scripts
    parser = importlib.import_module(script.module).build_parser()
    try:
        parser.parse_args(arguments)
    except SystemExit as exit_:
        status = exit_.code
    else:
        status = 0
    message = capsys.readouterr().err.strip()
    assert status == 0, f"README.md:{command.line}: {shlex.join(command.words)}\n{message}"


def test_blocks_and_commands_are_found() -> None:
    """The two parsers above, on a text of our own: one that finds nothing would pass everything."""
    text = (
        "# x\n```python no-run: needs a camera\nimport os\n```\n\n```sh\n# c\n$ fcn-run a \\\n    b | cat\npip x\n```\n"
    )
    python, shell = blocks(text)
    assert python == Block(line=3, language="python", note="no-run: needs a camera", code="import os\n")
    assert list(commands(shell)) == [Command(line=8, words=["fcn-run", "a", "b"])]
