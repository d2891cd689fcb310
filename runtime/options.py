"""Command lines from frozen dataclasses: each field is an option, its metadata the help text."""

from __future__ import annotations

import argparse
import dataclasses
import re
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from .command import CommandParser

_Options = TypeVar("_Options")


def option(
    help: str,
    default: Any = dataclasses.MISSING,
    *,
    choices: tuple[str, ...] | None = None,
    metavar: str | None = None,
    positional: bool = False,
    short: str | None = None,
) -> Any:
    """A dataclass field that is also a command-line option.

    Without default it is required. positional: given by place instead of by --name. short: a one-letter flag, "-o".
    """
    metadata = {"help": help, "choices": choices, "metavar": metavar, "positional": positional, "short": short}
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def add_options(parser: argparse.ArgumentParser, options: type) -> None:
    """Add one argument per field of the dataclass `options` to `parser`."""
    kinds = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        _add(parser, field, kinds[field.name])


def add_commands(parser: argparse.ArgumentParser, commands: Mapping[str, tuple[type, Any, str]]) -> None:
    """Give `parser` one subcommand per entry: name → (options dataclass, what runs it, help text of one phrase)."""
    adder = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=CommandParser)
    for name, (options, _, text) in commands.items():
        add_options(adder.add_parser(name, help=text, description=text[0].upper() + text[1:] + "."), options)


def read_options(options: type[_Options], arguments: argparse.Namespace) -> _Options:
    """The dataclass filled from parsed arguments."""
    fields = dataclasses.fields(options)  # type: ignore[arg-type]
    values = {field.name: getattr(arguments, field.name) for field in fields}
    # argparse collects several words in a list; options are frozen all through
    return options(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def image_size(text: str) -> tuple[int, int]:
    """`512x320` (width x height, as cameras are described) → (320, 512), (height, width)."""
    # far more digits than any limit: whoever knows the limit says it
    match = re.fullmatch(r"([1-9]\d{0,99})x([1-9]\d{0,99})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"a size is WIDTHxHEIGHT in pixels, such as 512x320; got {text!r}")
    return int(match[2]), int(match[1])


def _add(parser: argparse.ArgumentParser, field: dataclasses.Field, kind: Any) -> None:
    required = field.default is dataclasses.MISSING
    settings: dict[str, Any] = {"help": field.metadata["help"], "metavar": field.metadata["metavar"]}
    if field.metadata["choices"]:
        settings["choices"] = field.metadata["choices"]
    if not required and field.default not in (None, False, ()):
        settings["help"] += f" (default: {_shown(field.default)})"
    settings["help"] = settings["help"].replace("%", "%%")
    if kind is bool:
        settings = {"help": settings["help"], "action": "store_true"}
    else:
        convert, several = _converter(kind)
        settings["type"] = convert
        if several:
            settings["nargs"] = "+"
    if field.metadata["positional"]:
        if not required:
            settings["nargs"] = "?"
        parser.add_argument(field.name, default=None if required else field.default, **settings)
        return
    flags = [field.metadata["short"]] if field.metadata["short"] else []
    flags.append("--" + field.name.replace("_", "-"))
    if not required:
        settings["default"] = field.default
    parser.add_argument(*flags, dest=field.name, required=required, **settings)


def _converter(kind: Any) -> tuple[Callable[[str], Any], bool]:
    """(from text, takes several words) for the annotation of a field."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind = next(inner for inner in typing.get_args(kind) if inner is not type(None))
    if kind == tuple[int, int]:
        return image_size, False
    if typing.get_origin(kind) is tuple:
        return typing.get_args(kind)[0], True
    return {str: str, int: int, float: float, Path: Path}[kind], False


def _shown(value: Any) -> str:
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(side, int) for side in value):
        return f"{value[1]}x{value[0]}"
    return str(value)
