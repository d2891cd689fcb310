"""model.json: what a bundle says about itself, as checked dataclasses.

Nothing in it is trusted: every field is checked for type and range, and a wrong one is refused with one sentence that
names it. Reading it never runs code and never touches another file.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from .errors import BundleError
from .head import HeadGeometry
from .preprocessing import Preprocessing

FORMAT_VERSION = 1
PRECISIONS = ("fp32", "fp16", "int8")
FITS = ("stretch", "letterbox")
HEADS = ("bilinear", "labels")
MAX_SIDE_PX = 16384
MAX_JSON_BYTES = 8 << 20
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9][A-Za-z0-9._-]{0,127})?")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class InputSpec:
    """The graph's input: uint8 (1, height, width, 3) BGR. fit: how a frame of another size gets there.

    "stretch" resizes both sides independently; "letterbox" keeps the aspect, puts the frame at the top left and
    fills the rest with mid-grey.
    """

    height: int
    width: int
    fit: str = "stretch"


@dataclass(frozen=True)
class HeadSpec:
    """What turns the graph's output into class ids.

    "bilinear": the output `scores` (1, C, h, w) is upsampled by the runtime (stride and kernel in pixels, offset as in
    HeadGeometry). "labels": the output `labels` uint8 (1, H, W) holds class ids at the network's size already.
    """

    kind: str
    stride: int = 1
    kernel: int = 1
    offset: tuple[float, float] = (0.0, 0.0)

    @property
    def geometry(self) -> HeadGeometry:
        """Where the score grid lies in the network input."""
        return HeadGeometry(self.stride, self.offset)


@dataclass(frozen=True)
class FileSpec:
    """One file of the bundle. precision: of the graph it belongs to, None for reports."""

    sha256: str
    bytes: int
    precision: str | None = None


@dataclass(frozen=True)
class Manifest:
    """The whole of model.json. palette: (R, G, B) per class; files and versions by name."""

    name: str
    arch: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    input: InputSpec
    preprocessing: Preprocessing
    head: HeadSpec
    files: dict[str, FileSpec]
    versions: dict[str, str]
    format: int = FORMAT_VERSION

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions that the bundle holds a graph of, most exact first."""
        present = {spec.precision for name, spec in self.files.items() if name.endswith(".onnx")}
        return tuple(precision for precision in PRECISIONS if precision in present)

    def to_json(self) -> str:
        """Text that `parse` reads back to an equal manifest."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def parse(cls, text: str | bytes) -> Manifest:
        """Check and read model.json. Raises BundleError, one sentence, for anything that is not exactly right."""
        if len(text) > MAX_JSON_BYTES:
            raise BundleError(f"model.json has {len(text)} bytes, more than any model needs; it is damaged.")
        try:
            data = json.loads(text, object_pairs_hook=partial(_without_duplicates, "model.json"))
        except (ValueError, RecursionError) as error:
            raise BundleError(f"model.json is not valid JSON ({_first_line(error)}); copy the bundle again.") from None
        root = _Fields(data, "model.json")
        version = root.integer("format", 0, 10**9)
        if version != FORMAT_VERSION:
            raise BundleError(
                f"the bundle has format {version}, this fcnedge reads format {FORMAT_VERSION}; "
                "rebuild it with fcn-build or install the fcnedge that wrote it."
            )
        classes = tuple(root.texts("classes", 2, 255))
        return cls(
            name=root.text("name"),
            arch=root.text("arch"),
            classes=classes,
            palette=_palette(root, len(classes)),
            input=_input(root.sub("input")),
            preprocessing=_preprocessing(root.sub("preprocessing")),
            head=_head(root.sub("head")),
            files=_files(root.sub("files")),
            versions=_versions(root.sub("versions")),
        )


class _Fields:
    """One JSON object, read field by field; every refusal names the field's path."""

    def __init__(self, data: Any, path: str):
        if not isinstance(data, dict):
            raise BundleError(f"{path} must be a JSON object, got {_shown(data)}; the bundle was edited or damaged.")
        self.data, self.path = data, path

    def refuse(self, field: str, expected: str) -> BundleError:
        got = _shown(self.data[field]) if field in self.data else "nothing"
        return BundleError(f"{self.path}: {field} must be {expected}, got {got}; the bundle was edited or damaged.")

    def sub(self, field: str) -> _Fields:
        if not isinstance(self.data.get(field), dict):
            raise self.refuse(field, "an object")
        return _Fields(self.data[field], f"{self.path}: {field}")

    def integer(self, field: str, low: int, high: int) -> int:
        value = self.data.get(field)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.refuse(field, f"a whole number from {low} to {high}")
        return value

    def text(self, field: str) -> str:
        value = self.data.get(field)
        if not isinstance(value, str) or not _is_label(value):
            raise self.refuse(field, "a printable text of 1 to 200 characters")
        return value

    def one_of(self, field: str, choices: tuple[str, ...]) -> str:
        value = self.data.get(field)
        if not isinstance(value, str) or value not in choices:
            raise self.refuse(field, " or ".join(choices))
        return value

    def items(self, field: str, low: int, high: int) -> list[Any]:
        value = self.data.get(field)
        if not isinstance(value, list) or not low <= len(value) <= high:
            raise self.refuse(field, f"a list of {low if low == high else f'{low} to {high}'} entries")
        return value

    def texts(self, field: str, low: int, high: int) -> list[str]:
        values = self.items(field, low, high)
        if not all(isinstance(value, str) and _is_label(value) for value in values):
            raise self.refuse(field, "a list of printable texts")
        return values

    def numbers(self, field: str, count: int, limit: float) -> tuple[float, ...]:
        values = self.items(field, count, count)
        if not all(_is_number(value) and abs(value) <= limit for value in values):  # NaN is not <= anything
            raise self.refuse(field, f"{count} finite numbers within ±{limit:g}")
        return tuple(float(value) for value in values)


def _input(fields: _Fields) -> InputSpec:
    return InputSpec(
        fields.integer("height", 1, MAX_SIDE_PX), fields.integer("width", 1, MAX_SIDE_PX), fields.one_of("fit", FITS)
    )


def _preprocessing(fields: _Fields) -> Preprocessing:
    mean, scale = fields.numbers("mean", 3, 1e6), fields.numbers("scale", 3, 1e6)
    return Preprocessing(fields.one_of("channel_order", ("rgb", "bgr")), mean, scale)  # type: ignore[arg-type]


def _head(fields: _Fields) -> HeadSpec:
    stride, kernel = fields.integer("stride", 1, 1024), fields.integer("kernel", 1, 2048)
    offset = fields.numbers("offset", 2, 4096)
    return HeadSpec(fields.one_of("kind", HEADS), stride, kernel, (offset[0], offset[1]))


def _palette(root: _Fields, classes: int) -> tuple[tuple[int, int, int], ...]:
    rows = root.items("palette", classes, classes)
    for row in rows:
        good = isinstance(row, list) and len(row) == 3
        if not good or not all(type(value) is int and 0 <= value <= 255 for value in row):
            raise root.refuse("palette", "one [red, green, blue] of 0 to 255 per class")
    return tuple((row[0], row[1], row[2]) for row in rows)


def _files(fields: _Fields) -> dict[str, FileSpec]:
    files = {}
    for name in fields.data:
        if not _FILE_NAME.fullmatch(name):
            raise BundleError(f"{fields.path}: {_shown(name)} is not a file name inside the bundle; it is refused.")
        spec = fields.sub(name)
        sha256 = spec.data.get("sha256")
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            raise spec.refuse("sha256", "64 hexadecimal digits")
        precision = spec.data.get("precision")
        if precision is not None:
            precision = spec.one_of("precision", PRECISIONS)
        files[name] = FileSpec(sha256, spec.integer("bytes", 0, 1 << 50), precision)
    return files


def _versions(fields: _Fields) -> dict[str, str]:
    for name in fields.data:
        if not _is_label(name):
            raise BundleError(f"{fields.path}: {_shown(name)} is not a package name; the bundle was edited or damaged.")
    return {name: fields.text(name) for name in fields.data}


def _is_label(text: str) -> bool:
    return 1 <= len(text) <= 200 and text.isprintable()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _without_duplicates(file: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two programs may each take another of two equal names; a manifest must say one thing. file: its name."""
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise BundleError(f"{file}: {_shown(name)} occurs twice in one object; the bundle was edited.")
        fields[name] = value
    return fields


def _shown(value: Any) -> str:
    try:
        text = ascii(value)
    except RecursionError:  # json need not stop where repr does
        return f"a deeply nested {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "…"


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0]
