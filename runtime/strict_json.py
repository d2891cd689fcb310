"""JSON that nothing is believed of: read field by field, where a wrong one is refused by a sentence with its name.

model.json, the sidecars of engines and ranges.json are read so. What they have in common is here; what a field may
hold, and what the user is told to do, is each file's own.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from .errors import UserError

_SHA256 = re.compile(r"[0-9a-f]{64}")


class DuplicateNameError(ValueError):
    """One object has a name twice: two programs may each take another of the two, and a file must say one thing."""


def strict_loads(text: str | bytes) -> Any:
    """The data in `text`. Raises DuplicateNameError, ValueError for what is no JSON: each with a reason of one line."""
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except DuplicateNameError:
        raise
    except (ValueError, RecursionError) as error:
        raise ValueError((str(error).splitlines() or [type(error).__name__])[0]) from None


@dataclass(frozen=True)
class Refusing:
    """How a file is refused. error: what is raised; advice: ends each sentence; longest: most characters of a text."""

    error: type[UserError]
    advice: str
    longest: int = 200


class Fields:
    """One JSON object, read field by field; every refusal names the field's path.

    data: of the object; path: what messages call it. Raises `refusing.error` when `data` is no object.
    """

    def __init__(self, data: Any, path: str, refusing: Refusing):
        self.path, self.refusing = path, refusing
        if not isinstance(data, dict):
            raise self.complaint(f" must be a JSON object, got {shown(data)}")
        self.data = data

    def complaint(self, words: str) -> UserError:
        """The error that says `words` of this object: they follow its path."""
        return self.refusing.error(f"{self.path}{words}; {self.refusing.advice}.")

    def refuse(self, field: str, expected: str) -> UserError:
        """The error that says what `field` must be, and what it is."""
        got = shown(self.data[field]) if field in self.data else "nothing"
        return self.complaint(f": {self._called(field)} must be {expected}, got {got}")

    def sub(self, field: str) -> Fields:
        """The object in `field`."""
        if not isinstance(self.data.get(field), dict):
            raise self.refuse(field, "an object")
        return Fields(self.data[field], f"{self.path}: {self._called(field)}", self.refusing)

    def names(self, kind: str) -> list[str]:
        """Names of all fields, where they are data themselves. kind: what one is, "package name"."""
        for name in self.data:
            if not self._is_label(name):
                raise self.complaint(f": {shown(name)} is not a {kind}")
        return list(self.data)

    def integer(self, field: str, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        value = self.data.get(field)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.refuse(field, f"a whole number from {low} to {high}")
        return value

    def number(self, field: str, low: float, high: float) -> float:
        """A finite number from `low` to `high`."""
        value: Any = self.data.get(field)
        if not is_number(value) or not low <= value <= high:  # NaN is not <= anything
            raise self.refuse(field, f"a number from {low:g} to {high:g}")
        return float(value)

    def numbers(self, field: str, count: int, limit: float) -> tuple[float, ...]:
        """`count` finite numbers within ±`limit`."""
        values = self.items(field, count, count)
        if not all(is_number(value) and abs(value) <= limit for value in values):
            raise self.refuse(field, f"{count} finite numbers within ±{limit:g}")
        return tuple(float(value) for value in values)

    def boolean(self, field: str) -> bool:
        """True or false."""
        value: Any = self.data.get(field)
        if not isinstance(value, bool):
            raise self.refuse(field, "true or false")
        return value

    def text(self, field: str) -> str:
        """A text that prints, neither empty nor too long."""
        value: Any = self.data.get(field)
        if not self._is_label(value):
            raise self.refuse(field, f"a printable text of 1 to {self.refusing.longest} characters")
        return value

    def one_of(self, field: str, choices: tuple[str, ...]) -> str:
        """One of `choices`."""
        value = self.data.get(field)
        if not isinstance(value, str) or value not in choices:
            raise self.refuse(field, " or ".join(choices))
        return value

    def sha256(self, field: str) -> str:
        """A SHA-256 in small hexadecimal digits."""
        value = self.data.get(field)
        if not isinstance(value, str) or not _SHA256.fullmatch(value):
            raise self.refuse(field, "64 hexadecimal digits")
        return value

    def items(self, field: str, low: int, high: int) -> list[Any]:
        """A list of `low` to `high` entries of any kind."""
        value = self.data.get(field)
        if not isinstance(value, list) or not low <= len(value) <= high:
            raise self.refuse(field, f"a list of {low if low == high else f'{low} to {high}'} entries")
        return value

    def texts(self, field: str) -> tuple[str, ...]:
        """A list of texts that print, neither empty nor too long, however many."""
        values = self.data.get(field)
        if not isinstance(values, list) or not all(self._is_label(value) for value in values):
            raise self.refuse(field, "a list of printable texts")
        return tuple(values)

    def _called(self, field: str) -> str:
        """A field's name for a sentence: some fields are named by the file itself."""
        return field if self._is_label(field) else shown(field)

    def _is_label(self, text: Any) -> bool:
        return isinstance(text, str) and 1 <= len(text) <= self.refusing.longest and text.isprintable()


def is_number(value: Any) -> bool:
    """Whether `value` is a number in JSON's sense: true and false, which Python counts as 1 and 0, are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """Anything as the middle of a sentence: one line of ASCII, 60 characters at most."""
    try:
        text = ascii(value)
    except RecursionError:  # json need not stop where repr does
        return f"a deeply nested {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "…"


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise DuplicateNameError(f"{shown(name)} occurs twice in one object")
        fields[name] = value
    return fields
