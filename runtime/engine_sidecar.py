"""What a compiled engine says about itself: the JSON file beside it, as checked dataclasses.

An engine fits one library version and one kind of GPU, so it is never run on its name alone: the sidecar says what it
was compiled by, for and from, and the hash of the engine that it speaks of. Like model.json it is data and nothing in
it is trusted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .errors import BundleError
from .manifest import MAX_JSON_BYTES, MAX_SIDE_PX, PRECISIONS
from .strict_json import DuplicateNameError, Fields, Refusing, is_number, strict_loads

SIDECAR_FORMAT = 1
ENGINES_FOLDER = "engines"
"""Folder of a bundle, or of a user's cache, that engines lie in."""
TARGETS = ("tensorrt", "tensorrt_rtx")
ROUTES = ("strongly typed", "builder flags", "calibration cache")
INSPECTIONS = ("engine inspector", "build log")
_REFUSING = Refusing(BundleError, "the bundle was edited or damaged")
_COMPUTE_CAPABILITY = re.compile(r"[1-9]\d?\.\d")


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of an engine: its name, its type as NumPy names it, its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class EngineSidecar:
    """Everything that decides whether an engine may run here, and how it came to be.

    engine: file name beside this one; sha256, bytes: of that file. library: "tensorrt" or "tensorrt_rtx"; version: in
    full. gpu: name of the GPU it was compiled on, None where the library compiles without one. compute_capabilities:
    of that GPU, or those it was compiled for. precision: as asked; route: how it was asked (ROUTES). layers: how many
    layers take each type, None when inspected_by is None: then nobody looked. graph: name and SHA-256 of the ONNX
    graph and of its weights file. workspace_mb: the limit given to the builder, in MiB; seconds: of compiling.
    """

    engine: str
    sha256: str
    bytes: int
    library: str
    version: str
    gpu: str | None
    compute_capabilities: tuple[str, ...]
    precision: str
    route: str
    layers: dict[str, int] | None
    inspected_by: str | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    graph: dict[str, str]
    workspace_mb: int
    dla: bool
    fcnedge: str
    seconds: float
    format: int = SIDECAR_FORMAT

    def to_json(self) -> str:
        """Text that `parse_sidecar` reads back to an equal sidecar."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def engine_name(
    precision: str, library: str, version: str, compute_capabilities: Sequence[str], *, dla: bool = False
) -> str:
    """`int8.tensorrt-10.3.0.sm87.engine`: all that decides whether it runs somewhere is in its name."""
    targets = "-".join(f"sm{capability.replace('.', '')}" for capability in compute_capabilities)
    return f"{precision}.{library}-{version}.{targets}{'.dla' if dla else ''}.engine"


def sidecar_path(engine: Path) -> Path:
    """Where the sidecar of `engine` lies: its name with .json at the end."""
    return engine.with_name(f"{engine.name}.json")


def read_sidecar(engine: Path) -> EngineSidecar:
    """Read and check the sidecar of the engine file `engine`; the engine itself is not opened.

    Raises BundleError, one sentence, when there is none, it cannot be read, or anything in it is not exactly right.
    """
    path = sidecar_path(engine)
    try:
        with path.open("rb") as file:
            text = file.read(MAX_JSON_BYTES + 1)
    except FileNotFoundError:
        raise BundleError(
            f"{engine} has no {path.name} beside it, so nobody knows which GPU it is for; "
            "compile it again: fcn-build engine."
        ) from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    sidecar = parse_sidecar(text, path.name)
    if sidecar.engine != engine.name:
        raise BundleError(
            f"{path} speaks of {sidecar.engine!a}, not of {engine.name!a}; engine and sidecar are renamed together."
        )
    return sidecar


def parse_sidecar(text: str | bytes, name: str) -> EngineSidecar:
    """Check and read a sidecar; `name` is what messages call it. Raises BundleError as `read_sidecar` does."""
    if len(text) > MAX_JSON_BYTES:
        raise BundleError(f"{name} has {len(text)} bytes, more than any engine needs; compile the engine again.")
    try:
        data = strict_loads(text)
    except DuplicateNameError as error:
        raise BundleError(f"{name}: {error}; the bundle was edited.") from None
    except ValueError:
        raise BundleError(f"{name} is not valid JSON; compile the engine again: fcn-build engine.") from None
    root = Fields(data, name, _REFUSING)
    version = root.integer("format", 0, 10**9)
    if version != SIDECAR_FORMAT:
        raise BundleError(
            f"{name} has format {version}, this fcnedge reads format {SIDECAR_FORMAT}; compile the engine again."
        )
    layers = _layers(root)
    return EngineSidecar(
        engine=root.text("engine"),
        sha256=root.sha256("sha256"),
        bytes=root.integer("bytes", 1, 1 << 50),
        library=root.one_of("library", TARGETS),
        version=root.text("version"),
        gpu=None if root.data.get("gpu", "") is None else root.text("gpu"),
        compute_capabilities=_compute_capabilities(root),
        precision=root.one_of("precision", PRECISIONS),
        route=root.one_of("route", ROUTES),
        layers=layers,
        inspected_by=None if layers is None else root.one_of("inspected_by", INSPECTIONS),
        inputs=_tensors(root, "inputs"),
        outputs=_tensors(root, "outputs"),
        graph=_graph(root.sub("graph")),
        workspace_mb=root.integer("workspace_mb", 1, 1 << 30),
        dla=root.boolean("dla"),
        fcnedge=root.text("fcnedge"),
        seconds=_seconds(root),
    )


def _layers(root: Fields) -> dict[str, int] | None:
    if root.data.get("layers", 0) is None:
        if root.data.get("inspected_by", 0) is not None:
            raise root.refuse("inspected_by", "null where layers is null")
        return None
    fields = root.sub("layers")
    return {name: fields.integer(name, 1, 10**6) for name in fields.names("type of layers")}


def _compute_capabilities(root: Fields) -> tuple[str, ...]:
    root.items("compute_capabilities", 1, 64)
    values = root.texts("compute_capabilities")
    if not all(_COMPUTE_CAPABILITY.fullmatch(value) for value in values):
        raise root.refuse("compute_capabilities", "a list of compute capabilities such as 8.7")
    return values


def _tensors(root: Fields, field: str) -> tuple[TensorSpec, ...]:
    tensors = []
    for index, data in enumerate(root.items(field, 1, 16)):
        fields = Fields(data, f"{root.path}: {field} {index}", _REFUSING)
        shape = fields.items("shape", 0, 8)
        if not all(type(side) is int and 1 <= side <= MAX_SIDE_PX for side in shape):
            raise fields.refuse("shape", f"sides from 1 to {MAX_SIDE_PX}")
        tensors.append(TensorSpec(fields.text("name"), fields.text("dtype"), tuple(shape)))
    return tuple(tensors)


def _graph(fields: Fields) -> dict[str, str]:
    if not fields.data:
        raise BundleError(f"{fields.path} names no file; compile the engine again: fcn-build engine.")
    return {name: fields.sha256(name) for name in fields.names("file name")}


def _seconds(root: Fields) -> float:
    value: Any = root.data.get("seconds")
    if not is_number(value) or not 0 <= value <= 1e6:
        raise root.refuse("seconds", "a number of seconds")
    return float(value)
