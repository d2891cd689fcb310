"""ranges.json: how far each activation of a bundle's graph reaches, and where to clip it for int8.

Enough to rebuild the int8 graph without the pictures. Nothing in the file is trusted: every field is checked for type
and range, and a wrong one is refused with one sentence that names it.
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fcnedge.runtime.errors import UserError

from .fingerprint import GraphFingerprint, WeightPrint
from .thresholds import METHODS

FORMAT_VERSION = 1
MAX_JSON_BYTES = 32 << 20
_LARGEST = 3.4028234663852886e38  # of float32
_MOST_PICTURES = 10**9
_MAX_LABEL = 500
_SHA256 = re.compile(r"[0-9a-f]{64}")
_AGAIN = "collect the ranges again with fcn-calibrate ranges"


@dataclass(frozen=True)
class TensorRange:
    """One activation over all pictures. threshold: |x| that int8's ±127 stands for, the symmetric clipping limit.

    threshold is positive, except for a tensor that was zero on every picture: there all three are 0, and whoever
    needs a scale refuses that tensor by its name.
    """

    minimum: float
    maximum: float
    threshold: float


@dataclass(frozen=True)
class Ranges:
    """The whole of ranges.json.

    percentile: None unless method is "percentile"; images: pictures that were counted; skipped: names of those that
    could not be read, as printable_name gives them; list_sha256: of names and file sizes of all chosen pictures;
    preprocessing_sha256: of input size, fit, mean, scale and channel order; tensors: by the graph's own name of each
    float activation.
    """

    method: str
    percentile: float | None
    images: int
    skipped: tuple[str, ...]
    list_sha256: str
    preprocessing_sha256: str
    graph: GraphFingerprint
    tensors: dict[str, TensorRange]
    versions: dict[str, str]
    format: int = FORMAT_VERSION

    def check(self, fingerprint: GraphFingerprint) -> None:
        """Raise UserError, one sentence that says what differs, unless `fingerprint` is of the same graph."""
        difference = self.graph.difference(fingerprint)
        if difference is not None:
            raise UserError(f"these ranges were collected on another graph: {difference}; {_AGAIN}.")

    def to_json(self) -> str:
        """Text that `parse` reads back to equal ranges."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def write(self, path: Path) -> None:
        """Write ranges.json whole or not at all, creating its folder. Raises UserError when that fails."""
        replace_file(path, self.to_json().encode())

    @classmethod
    def parse(cls, text: str | bytes, name: str = "ranges.json") -> Ranges:
        """Check and read. Raises UserError, one sentence, for anything that is not exactly right."""
        if len(text) > MAX_JSON_BYTES:
            raise UserError(f"{name} has {len(text)} bytes, more than any graph needs; {_AGAIN}.")
        try:
            data = json.loads(text, object_pairs_hook=_without_duplicates)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{name} is not valid JSON ({str(error).splitlines()[0]}); {_AGAIN}.") from None
        root = _Fields(data, name)
        version = root.integer("format", 0)
        if version != FORMAT_VERSION:
            raise UserError(f"{name} has format {version}, this fcnedge reads format {FORMAT_VERSION}; {_AGAIN}.")
        method = root.text("method")
        if method not in METHODS:
            raise root.refuse("method", " or ".join(METHODS))
        return cls(
            method=method,
            percentile=_percentile(root, method),
            images=root.integer("images", 1),
            skipped=root.texts("skipped"),
            list_sha256=root.sha256("list_sha256"),
            preprocessing_sha256=root.sha256("preprocessing_sha256"),
            graph=_graph(root.sub("graph")),
            tensors={name: _tensor(entry) for name, entry in root.sub("tensors").entries()},
            versions=_versions(root.sub("versions")),
        )


def read_ranges(path: Path) -> Ranges:
    """Read ranges.json. Raises UserError when it is missing, unreadable or not exactly right."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_JSON_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"there are no ranges at {path}; collect them with fcn-calibrate ranges.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    return Ranges.parse(text, str(path))


def printable_name(name: str) -> str:
    """A file's name as ranges.json can hold it: what does not print, or is not UTF-8, escaped as Python does it.

    At most 500 characters: the middle of a longer name is left out.
    """
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name)
    half = _MAX_LABEL // 2
    return text if len(text) <= _MAX_LABEL else f"{text[: half - 1]}…{text[-half:]}"


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` to a hidden file beside `path` and rename it: whole or not at all. Raises UserError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); free some space or choose another.") from error


class _Fields:
    """One JSON object, read field by field; every refusal names the field's path."""

    def __init__(self, data: Any, path: str):
        if not isinstance(data, dict):
            raise UserError(f"{path} must be a JSON object, got {_shown(data)}; {_AGAIN}.")
        self.data, self.path = data, path

    def refuse(self, field: str, expected: str) -> UserError:
        got = _shown(self.data[field]) if field in self.data else "nothing"
        return UserError(f"{self.path}: {field} must be {expected}, got {got}; {_AGAIN}.")

    def sub(self, field: str) -> _Fields:
        if not isinstance(self.data.get(field), dict):
            raise self.refuse(field, "an object")
        return _Fields(self.data[field], f"{self.path}: {field}")

    def entries(self) -> list[tuple[str, _Fields]]:
        """Objects by name, of an object of objects that is not empty."""
        if not self.data:
            raise UserError(f"{self.path} is empty; {_AGAIN}.")
        for name in self.data:
            if not _is_label(name):
                raise UserError(f"{self.path}: {_shown(name)} is not a tensor's name; {_AGAIN}.")
        return [(name, self.sub(name)) for name in self.data]

    def integer(self, field: str, low: int) -> int:
        value = self.data.get(field)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= _MOST_PICTURES:
            raise self.refuse(field, f"a whole number from {low} to {_MOST_PICTURES}")
        return value

    def number(self, field: str, low: float = -_LARGEST, high: float = _LARGEST) -> float:
        value: Any = self.data.get(field)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:  # NaN is not <= anything
            raise self.refuse(field, f"a number from {low:g} to {high:g}")
        return float(value)

    def text(self, field: str) -> str:
        value = self.data.get(field)
        if not isinstance(value, str) or not _is_label(value):
            raise self.refuse(field, f"a printable text of 1 to {_MAX_LABEL} characters")
        return value

    def texts(self, field: str) -> tuple[str, ...]:
        values = self.data.get(field)
        if not isinstance(values, list) or not all(isinstance(value, str) and _is_label(value) for value in values):
            raise self.refuse(field, "a list of printable texts")
        return tuple(values)

    def sha256(self, field: str) -> str:
        value = self.data.get(field)
        if not isinstance(value, str) or not _SHA256.fullmatch(value):
            raise self.refuse(field, "64 hexadecimal digits")
        return value


def _percentile(root: _Fields, method: str) -> float | None:
    if method == "percentile":
        return root.number("percentile", math.ulp(0.0), 100)
    if root.data.get("percentile") is not None:
        raise root.refuse("percentile", f"null for the method {method}")
    return None


def _graph(fields: _Fields) -> GraphFingerprint:
    weights = {
        name: WeightPrint(entry.number("magnitude", 0), entry.number("projection"))
        for name, entry in fields.sub("weights").entries()
    }
    return GraphFingerprint(fields.sha256("structure"), weights)


def _tensor(fields: _Fields) -> TensorRange:
    minimum, maximum = fields.number("minimum"), fields.number("maximum")
    if minimum > maximum:
        raise fields.refuse("maximum", f"at least the minimum {minimum:g}")
    threshold = fields.number("threshold", 0)
    if (threshold == 0) != (minimum == maximum == 0):
        raise fields.refuse("threshold", "positive, or 0 with minimum and maximum")
    return TensorRange(minimum, maximum, threshold)


def _versions(fields: _Fields) -> dict[str, str]:
    return {name: fields.text(name) for name in fields.data}


def _is_label(text: str) -> bool:
    return 1 <= len(text) <= _MAX_LABEL and text.isprintable()


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two programs may each take another of two equal names; ranges must say one thing."""
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise ValueError(f"{_shown(name)} occurs twice in one object")
        fields[name] = value
    return fields


def _shown(value: Any) -> str:
    try:
        text = ascii(value)
    except RecursionError:  # json need not stop where repr does
        return f"a deeply nested {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "…"
