"""A report's JSON back into the object that it was written from."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from pathlib import Path
from typing import Any

from fcnedge.runtime.errors import UserError


class NotThatError(Exception):
    """The data is no such object; the message says where."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError for a file that cannot be read or holds none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name a file that --json has written.") from error
    except ValueError as error:
        raise UserError(f"{path} is no JSON file ({error}); name a file that --json has written.") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} holds no report; name a file that --json has written.")
    return data


def restored(kind: Any, data: Any, place: str = "the report") -> Any:
    """`data`, what `jsonable` makes of a value annotated as `kind`, as that value. Raises NotThatError.

    Keys that `kind` does not have are passed over, and those that it has a default for may be missing: a report of a
    later or an earlier version. null is NaN where a number must be.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        others = [each for each in arguments if each is not type(None)]
        return None if data is None and len(others) < len(arguments) else restored(others[0], data, place)
    if dataclasses.is_dataclass(kind):
        return _object(kind, data, place)
    if origin is tuple:
        _check(isinstance(data, list), place)
        kinds = arguments if arguments[-1] is not Ellipsis else arguments[:1] * len(data)
        _check(len(kinds) == len(data), place)
        return tuple(restored(inner, value, place) for inner, value in zip(kinds, data, strict=True))
    if origin is dict:
        _check(isinstance(data, dict), place)
        return {name: restored(arguments[1], value, f"{place}.{name}") for name, value in data.items()}
    if kind is float:
        _check(data is None or (isinstance(data, int | float) and not isinstance(data, bool)), place)
        return math.nan if data is None else float(data)
    if kind is Any:
        return data
    _check(type(data) is kind, place)
    return data


def _object(kind: Any, data: Any, place: str) -> Any:
    _check(isinstance(data, dict), place)
    kinds, values = typing.get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        if field.name in data:
            values[field.name] = restored(kinds[field.name], data[field.name], f"{place}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise NotThatError(f"{place} has no {field.name}")
    return kind(**values)


def _check(good: bool, place: str) -> None:
    if not good:
        raise NotThatError(f"{place} is not what it should be")
