"""model.json: what a bundle says about itself, as checked dataclasses.

Nothing in it is trusted: every field is checked for type and range, and a wrong one is refused with one sentence that
names it. Reading it never runs code and never touches another file.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass

from .errors import BundleError
from .head import HeadGeometry
from .preprocessing import Preprocessing
from .strict_json import DuplicateNameError, Fields, Refusing, shown, strict_loads

FORMAT_VERSION = 2
PRECISIONS = ("fp32", "fp16", "int8")
FITS = ("stretch", "letterbox")
HEADS = ("bilinear", "labels")
GRAPH_TARGETS = ("vnni", "tensorrt")
"""What a graph may be written for, where one form does not serve all: x86 CPUs with VNNI, and TensorRT."""
MAX_SIDE_PX = 16384
MAX_JSON_BYTES = 8 << 20
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9][A-Za-z0-9._-]{0,127})?")
_REFUSING = Refusing(BundleError, "the bundle was edited or damaged")


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
    points: (h, w) where they are not the input's sides divided by the stride, as with the pads of Caffe's FCNs.
    """

    kind: str
    stride: int = 1
    kernel: int = 1
    offset: tuple[float, float] = (0.0, 0.0)
    points: tuple[int, int] | None = None

    @property
    def geometry(self) -> HeadGeometry:
        """Where the score grid lies in the network input."""
        return HeadGeometry(self.stride, self.offset)


@dataclass(frozen=True)
class FileSpec:
    """One file of the bundle.

    precision: of the graph it belongs to, None for reports; target: what that graph is for, None for every backend.
    """

    sha256: str
    bytes: int
    precision: str | None = None
    target: str | None = None


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
        present = {
            spec.precision for name, spec in self.files.items() if name.endswith(".onnx") and spec.target is None
        }
        return tuple(precision for precision in PRECISIONS if precision in present)

    @property
    def score_points(self) -> tuple[int, int]:
        """(h, w) of the scores that a bilinear head reads."""
        stride = self.head.stride
        return self.head.points or (self.input.height // stride, self.input.width // stride)

    def to_json(self) -> str:
        """Text that `parse` reads back to an equal manifest."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def parse(cls, text: str | bytes) -> Manifest:
        """Check and read model.json. Raises BundleError, one sentence, for anything that is not exactly right."""
        if len(text) > MAX_JSON_BYTES:
            raise BundleError(f"model.json has {len(text)} bytes, more than any model needs; it is damaged.")
        try:
            data = strict_loads(text)
        except DuplicateNameError as error:
            raise BundleError(f"model.json: {error}; the bundle was edited.") from None
        except ValueError as error:
            raise BundleError(f"model.json is not valid JSON ({error}); copy the bundle again.") from None
        root = Fields(data, "model.json", _REFUSING)
        version = root.integer("format", 0, 10**9)
        if version != FORMAT_VERSION:
            raise BundleError(
                f"the bundle has format {version}, this fcnedge reads format {FORMAT_VERSION}; "
                "rebuild it with fcn-build or install the fcnedge that wrote it."
            )
        root.items("classes", 2, 255)
        classes = root.texts("classes")
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


def _input(fields: Fields) -> InputSpec:
    return InputSpec(
        fields.integer("height", 1, MAX_SIDE_PX), fields.integer("width", 1, MAX_SIDE_PX), fields.one_of("fit", FITS)
    )


def _preprocessing(fields: Fields) -> Preprocessing:
    mean, scale = fields.numbers("mean", 3, 1e6), fields.numbers("scale", 3, 1e6)
    return Preprocessing(fields.one_of("channel_order", ("rgb", "bgr")), mean, scale)  # type: ignore[arg-type]


def _head(fields: Fields) -> HeadSpec:
    stride, kernel = fields.integer("stride", 1, 1024), fields.integer("kernel", 1, 2048)
    offset = fields.numbers("offset", 2, 4096)
    kind = fields.one_of("kind", HEADS)
    points = None
    if fields.data.get("points") is not None:  # a bundle without them is older than the field
        sides = fields.items("points", 2, 2)
        if not all(type(side) is int and 1 <= side <= MAX_SIDE_PX for side in sides):
            raise fields.refuse("points", f"two whole numbers from 1 to {MAX_SIDE_PX}")
        points = (sides[0], sides[1])
    return HeadSpec(kind, stride, kernel, (offset[0], offset[1]), points)


def _palette(root: Fields, classes: int) -> tuple[tuple[int, int, int], ...]:
    rows = root.items("palette", classes, classes)
    for row in rows:
        good = isinstance(row, list) and len(row) == 3
        if not good or not all(type(value) is int and 0 <= value <= 255 for value in row):
            raise root.refuse("palette", "one [red, green, blue] of 0 to 255 per class")
    return tuple((row[0], row[1], row[2]) for row in rows)


def _files(fields: Fields) -> dict[str, FileSpec]:
    files = {}
    for name in fields.data:
        if not _FILE_NAME.fullmatch(name):
            raise BundleError(f"{fields.path}: {shown(name)} is not a file name inside the bundle; it is refused.")
        spec = fields.sub(name)
        sha256 = spec.sha256("sha256")
        precision = spec.data.get("precision")
        if precision is not None:
            precision = spec.one_of("precision", PRECISIONS)
        target = spec.data.get("target")
        if target is not None:
            target = spec.one_of("target", GRAPH_TARGETS)
        files[name] = FileSpec(sha256, spec.integer("bytes", 0, 1 << 50), precision, target)
    return files


def _versions(fields: Fields) -> dict[str, str]:
    return {name: fields.text(name) for name in fields.names("package name")}
