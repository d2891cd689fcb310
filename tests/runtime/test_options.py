"""Command lines made from dataclasses: what each kind of field accepts, and what it refuses."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fcnedge.runtime.command import Parser
from fcnedge.runtime.options import add_commands, add_options, image_size, option, read_options


@dataclass(frozen=True)
class Options:
    source: str = option("where frames come from", positional=True)
    output: Path = option("where they go", short="-o", metavar="DIR")
    sink: str = option("and where else", "null://", positional=True)
    size: tuple[int, int] = option("network input", (320, 512))
    data: tuple[Path, ...] = option("folders", ())
    threads: int | None = option("CPU threads", None)
    alpha: float = option("opacity, 100% is 1", 0.5)
    fit: str = option("how frames get there", "stretch", choices=("stretch", "letterbox"))
    no_legend: bool = option("leave the legend off", False)


def read(*words: str) -> Options:
    parser = Parser(prog="fcn-test")
    add_options(parser, Options)
    return read_options(Options, parser.parse_args(words))


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as caught:
        read(*words)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("fcn-test: ")
    assert line.endswith(" See fcn-test --help.")
    assert ".." not in line
    return line


def test_defaults_are_those_of_the_dataclass() -> None:
    assert read("a.jpg", "-o", "out") == Options(source="a.jpg", output=Path("out"))


def test_every_kind_of_field_is_read() -> None:
    words = "a.jpg b.mp4 --output out --size 640x480 --data x y --threads 4 --alpha 0.25 --fit letterbox --no-legend"
    assert read(*words.split()) == Options(
        source="a.jpg",
        output=Path("out"),
        sink="b.mp4",
        size=(480, 640),
        data=(Path("x"), Path("y")),
        threads=4,
        alpha=0.25,
        fit="letterbox",
        no_legend=True,
    )


@pytest.mark.parametrize(
    ("text", "size"),
    [("512x320", (320, 512)), ("1x99999", (99999, 1)), (f"99999968x{10**99}", (10**99, 99999968))],
)
def test_size_is_width_by_height_for_people_and_height_first_inside(text: str, size: tuple[int, int]) -> None:
    assert image_size(text) == size


@pytest.mark.parametrize("text", ["", "512", "512x", "x320", "512X320", "512x320x3", "-1x320", "0x320", "512x0"])
def test_size_of_another_form_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        image_size(text)
    line = refusal(capsys, "a", "-o", "b", f"--size={text}")
    assert f"a size is WIDTHxHEIGHT in pixels, such as 512x320; got {text!r}" in line


@pytest.mark.parametrize("text", ["5 x 5", "1e3x5", "1" * 101 + "x1", "1" * 5000 + "x1", "12x34\n"])
def test_size_with_something_around_it_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        image_size(text)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("", "arguments are required: source, -o/--output"),
        ("a", "-o/--output"),
        ("a -o", "expected one argument"),
        ("a -o b --speed 3", "unrecognized arguments: --speed 3"),
        ("a c d -o b", "unrecognized arguments: d"),
        ("a -o b --thr 3", "unrecognized arguments: --thr 3"),  # no abbreviations: they break when an option is added
        ("a --out b", "-o/--output"),
        ("a -o b --no-legend=yes", "ignored explicit argument 'yes'"),
        ("a -o b --threads many", "invalid int value: 'many'"),
        ("a -o b --threads 1.5", "invalid int value: '1.5'"),
        ("a -o b --alpha half", "invalid float value: 'half'"),
        ("a -o b --fit crop", "invalid choice: 'crop'"),
        ("a -o b --data", "expected at least one argument"),
    ],
)
def test_wrong_command_line_is_one_line_and_exit_2(words: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert reason in refusal(capsys, *words.split())


@pytest.mark.parametrize(
    ("words", "name", "unknown"),
    [
        ("paint a -o b --bogus 3", "fcn-test paint", "--bogus 3"),
        ("paint a b c -o d", "fcn-test paint", "c"),
        ("wash --sorce a -o b", "fcn-test wash", "--sorce"),
        ("--bogus paint a -o b", "fcn-test", "--bogus"),
    ],
)
def test_word_that_a_subcommand_does_not_know_is_refused_under_its_name(
    words: str, name: str, unknown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = Parser(prog="fcn-test")
    add_commands(parser, {"paint": (Options, None, "paint a frame"), "wash": (Options, None, "wash a frame")})
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(words.split())
    assert caught.value.code == 2
    assert capsys.readouterr() == ("", f"{name}: unrecognized arguments: {unknown}. See {name} --help.\n")


def test_line_ends_in_arguments_stay_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    refusal(capsys, "a", "-o", "b", "--what\never\r\n")


def test_help_shows_text_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read("--help")
    assert caught.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "network input (default: 512x320)" in shown  # as it is typed, not as it is kept
    assert "opacity, 100% is 1 (default: 0.5)" in shown
    assert "-o DIR, --output DIR where they go" in shown
    assert "CPU threads" in shown
    assert "(default: None)" not in shown
    assert "(default: ())" not in shown
    assert "(default: False)" not in shown


def test_option_without_default_is_required_of_the_dataclass_too() -> None:
    incomplete: dict[str, Any] = {"source": "a"}
    with pytest.raises(TypeError, match="output"):
        Options(**incomplete)
