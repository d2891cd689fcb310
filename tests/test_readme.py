"""What the README shows works: its Python runs, and its command lines are ones that the commands accept."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fcnedge.build_engine.model_source import read_classes

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
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


def test_class_list_is_read_as_the_text_says(tmp_path: Path) -> None:
    """The first line is id 0, the background."""
    (block,) = [block for block in BLOCKS if block.language == "text" and block.code.startswith("background")]
    (tmp_path / "classes.txt").write_text(block.code.replace("road", "\nroad"), encoding="utf-8")
    assert read_classes(str(tmp_path / "classes.txt")) == ("background", "road", "person")
    assert "first line is id 0 and always the\nbackground" in README.read_text(encoding="utf-8")


def written_by_the_readme() -> set[str]:
    """Names in the current folder that the README's commands write to."""
    names = set()
    flags = ("-o", "--output", "--json", "--picture", "--html")
    for command in COMMANDS:
        words = command.words
        names |= {words[i + 1] for i, word in enumerate(words) if word in flags}
        if words[0] == "fcn-run" and "://" not in words[2]:
            names.add(words[2])
    return {name.split("/")[0] for name in names}


def test_outputs_of_the_commands_are_found() -> None:
    assert {"fcn8s-lite0-voc", "wide", "mine", "small", "ranges.json", "result.json", "runs", "out"} <= (
        written_by_the_readme()
    )


def git(*words: str, text: str = "") -> str:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no checkout, or there is no git")
    done = subprocess.run(["git", "-C", ROOT, *words], input=text, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def test_git_ignores_what_the_readmes_commands_write() -> None:
    names = written_by_the_readme()
    folders = {f"{name}/" for name in names if "." not in name}
    asked = folders | {name for name in names if "." in name} | {"sizes.png", "ranges.json.partial.npz"}
    assert set(git("check-ignore", "--stdin", text="\n".join(asked)).splitlines()) == asked


def test_git_ignores_no_source_file() -> None:
    assert git("ls-files", "--cached", "--ignored", "--exclude-standard") == ""
    new = [f"{folder}/{name}" for folder in ("runtime/sources", "tests", "docs") for name in ("out/a.py", "runs/a.py")]
    new += ["benchmarks/results/ranges.json", "build_engine/small/a.py", "tests/runtime/masked.mp4"]
    assert git("check-ignore", "--stdin", text="\n".join(new)) == ""


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_clean_removes_what_make_has_made_and_nothing_of_the_users(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    made = [".venv/bin/python", "build/demo/clip.mp4", "dist/a.whl", ".pytest_cache/a", "runtime/__pycache__/a.pyc"]
    kept = ["fcn8s-lite0-voc/model.json", "mine/model.json", "out/.fcn-run", "out/masks/a.png", "ranges.json"]
    kept += ["runs/mine/fcn8s-lite0.safetensors", "photo.jpg", "masked.mp4", "runtime/cli.py", "tests/test_readme.py"]
    for name in [*made, *kept]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x", encoding="utf-8")
    assert files_after_make_clean(tmp_path) == sorted(["Makefile", *kept])


def files_after_make_clean(folder: Path) -> list[str]:
    for room in ("benchmarks", "build_engine", "calibration", "runtime", "tests"):
        (folder / room).mkdir(exist_ok=True)
    done = subprocess.run(["make", "clean"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_blocks_and_commands_are_found() -> None:
    """The two parsers above, on a text of our own: one that finds nothing would pass everything."""
    text = (
        "# x\n```python no-run: needs a camera\nimport os\n```\n\n```sh\n# c\n$ fcn-run a \\\n    b | cat\npip x\n```\n"
    )
    python, shell = blocks(text)
    assert python == Block(line=3, language="python", note="no-run: needs a camera", code="import os\n")
    assert list(commands(shell)) == [Command(line=8, words=["fcn-run", "a", "b"])]
