"""What a graph must take and give: model.json's word, which each backend checks before the first frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..bundle import Bundle
from ..errors import BackendError

INPUT_NAME = "image"
OUTPUT_NAMES = ("scores", "labels")
_UINT8, _FLOATS = "tensor(uint8)", ("tensor(float)", "tensor(float16)")


@dataclass(frozen=True)
class Port:
    """An input or output of a graph, as the backend sees it.

    type: as ONNX spells it, "tensor(uint8)". shape: one entry per axis, a number or the name of a free axis.
    """

    name: str
    type: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.type} {list(self.shape)}"


def check_interface(bundle: Bundle, inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
    """Raise BackendError unless the graph takes and gives exactly what model.json says."""
    manifest = bundle.manifest
    height, width = manifest.input.height, manifest.input.width
    takes = str(Port(INPUT_NAME, _UINT8, (1, height, width, 3)))
    gives = {str(Port("labels", _UINT8, (1, height, width)))}
    if manifest.head.kind == "bilinear":
        shape = (1, len(manifest.classes), *manifest.score_points)
        gives = {str(Port("scores", kind, shape)) for kind in _FLOATS}
    got_in, got_out = _described(inputs), _described(outputs)
    if got_in != takes:
        raise BackendError(f"{bundle.path}: the graph takes {got_in}, model.json says {takes}; rebuild the bundle.")
    if got_out not in gives:
        expected = " or ".join(sorted(gives))
        raise BackendError(f"{bundle.path}: the graph gives {got_out}, model.json says {expected}; rebuild the bundle.")


def graph_precision(bundle: Bundle, graph: Path) -> str:
    """The precision that model.json gives `graph`, a path from `Bundle.model`: "fp32", "fp16" or "int8"."""
    return str(bundle.manifest.files[graph.relative_to(bundle.path).as_posix()].precision)


def _described(ports: Sequence[Port]) -> str:
    return ", ".join(str(port) for port in ports)[:300] or "nothing"
