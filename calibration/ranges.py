"""ranges.json: how far each activation of a bundle's graph reaches, and where to clip it for int8.

Enough to rebuild the int8 graph without the pictures. Nothing in the file is trusted: every field is checked for type
and range, and a wrong one is refused with one sentence that names it.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.strict_json import Fields, Refusing, strict_loads

from .fingerprint import GraphFingerprint, WeightPrint
from .thresholds import METHODS

FORMAT_VERSION = 1
MAX_JSON_BYTES = 32 << 20
_LARGEST = 3.4028234663852886e38  # of float32
_MOST_PICTURES = 10**9
_MAX_LABEL = 500
_AGAIN = "collect the ranges again with fcn-calibrate ranges"
_REFUSING = Refusing(UserError, _AGAIN, _MAX_LABEL)


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
            data = strict_loads(text)
        except ValueError as error:
            raise UserError(f"{name} is not valid JSON ({error}); {_AGAIN}.") from None
        root = Fields(data, name, _REFUSING)
        version = root.integer("format", 0, 10**9)
        if version != FORMAT_VERSION:
            raise UserError(f"{name} has format {version}, this fcnedge reads format {FORMAT_VERSION}; {_AGAIN}.")
        method = root.text("method")
        if method not in METHODS:
            raise root.refuse("method", " or ".join(METHODS))
        return cls(
            method=method,
            percentile=_percentile(root, method),
            images=root.integer("images", 1, _MOST_PICTURES),
            skipped=root.texts("skipped"),
            list_sha256=root.sha256("list_sha256"),
            preprocessing_sha256=root.sha256("preprocessing_sha256"),
            graph=_graph(root.sub("graph")),
            tensors={name: _tensor(entry) for name, entry in _entries(root.sub("tensors"))},
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


def _percentile(root: Fields, method: str) -> float | None:
    if method == "percentile":
        return root.number("percentile", math.ulp(0.0), 100)
    if root.data.get("percentile") is not None:
        raise root.refuse("percentile", f"null for the method {method}")
    return None


def _graph(fields: Fields) -> GraphFingerprint:
    weights = {
        name: WeightPrint(_float32(entry, "magnitude", 0), _float32(entry, "projection"))
        for name, entry in _entries(fields.sub("weights"))
    }
    return GraphFingerprint(fields.sha256("structure"), weights)


def _tensor(fields: Fields) -> TensorRange:
    minimum, maximum = _float32(fields, "minimum"), _float32(fields, "maximum")
    if minimum > maximum:
        raise fields.refuse("maximum", f"at least the minimum {minimum:g}")
    threshold = _float32(fields, "threshold", 0)
    if (threshold == 0) != (minimum == maximum == 0):
        raise fields.refuse("threshold", "positive, or 0 with minimum and maximum")
    return TensorRange(minimum, maximum, threshold)


def _entries(fields: Fields) -> list[tuple[str, Fields]]:
    """Objects by a tensor's name, of an object of objects that is not empty."""
    if not fields.data:
        raise fields.complaint(" is empty")
    return [(name, fields.sub(name)) for name in fields.names("tensor's name")]


def _float32(fields: Fields, field: str, low: float = -_LARGEST) -> float:
    return fields.number(field, low, _LARGEST)


def _versions(fields: Fields) -> dict[str, str]:
    return {name: fields.text(name) for name in fields.names("package name")}
