"""What the engine's layers really take: counted after the build, for asking for a precision is not getting it.

Two sources, best first. The engine inspector reads a deserialised engine, so it needs a GPU that can run it. With
detailed profiling verbosity TensorRT-RTX also writes the finished engine's table of layers to its log while it builds,
and that needs none. Without either nobody has looked, and the sidecar says so.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from fcnedge.runtime.errors import UserError

from .library import Library

_DTYPE = re.compile(r"\b(float|fp32|half|fp16|int8|uint8|bf16|bfloat16|fp8|int32|int64|bool)\b", re.IGNORECASE)
_SAME = {"float": "float32", "fp32": "float32", "half": "float16", "fp16": "float16", "bf16": "bfloat16"}
_WANTED = {"fp32": "float32", "fp16": "float16", "int8": "int8"}
_LOGGED_LAYER = re.compile(r"Name: .*?, LayerType: .*?, Inputs: \[(.*?)\], (?:Constants|Outputs): ")


@dataclass(frozen=True)
class LayerTypes:
    """counts: NumPy's name of a type → layers whose first input has it; inspected_by: one of INSPECTIONS."""

    counts: dict[str, int]
    inspected_by: str


def inspect_layers(library: Library, log: Any, plan: Any, *, has_gpu: bool) -> LayerTypes | None:
    """Count the layers of `plan` by the type that they take; None when neither inspector nor log tell."""
    counts = read_inspector(_inspector_json(library, log, plan)) if has_gpu else {}
    if counts:
        return LayerTypes(counts, "engine inspector")
    counts = read_layer_table(log.layers)
    return LayerTypes(counts, "build log") if counts else None


def check_obtained(library: Library, layers: LayerTypes | None, precision: str) -> None:
    """Raise UserError when someone has looked and no layer has the precision that was asked for."""
    if layers is None or layers.counts.get(_WANTED[precision]):
        return
    found = ", ".join(f"{count} {dtype}" for dtype, count in layers.counts.items())
    raise UserError(
        f"{library.title} compiled not one layer in {precision} ({layers.inspected_by}: {found}), so the engine is not "
        "kept; rebuild the bundle's graph of that precision."
    )


def read_inspector(text: str) -> dict[str, int]:
    """Counts from the JSON of IEngineInspector; empty when it holds names only, or is not JSON."""
    try:
        layers = json.loads(text).get("Layers", [])
    except (ValueError, AttributeError):
        return {}
    counts: Counter[str] = Counter()
    for layer in layers:
        inputs = layer.get("Inputs") if isinstance(layer, dict) else None
        if inputs:  # "Datatype" since 10.14, before it "Format/Datatype" with words around it
            counts[_dtype(str(inputs[0].get("Datatype") or inputs[0].get("Format/Datatype")))] += 1
    return dict(counts)


def read_layer_table(text: str) -> dict[str, int]:
    """Counts from the table of layers in the build log; empty when there is none."""
    counts: Counter[str] = Counter()
    for line in text.splitlines():
        layer = _LOGGED_LAYER.match(line)
        datatype = re.search(r"Datatype: (\w+)", layer[1]) if layer else None
        if datatype:
            counts[_dtype(datatype[1])] += 1
    return dict(counts)


def _inspector_json(library: Library, log: Any, plan: Any) -> str:
    engine = library.module.Runtime(log).deserialize_cuda_engine(plan)
    if engine is None:  # compiled for a GPU that is not this one
        return ""
    return engine.create_engine_inspector().get_engine_information(library.module.LayerInformationFormat.JSON)


def _dtype(text: str) -> str:
    found = _DTYPE.search(text)
    name = found[1].lower() if found else "other"
    return _SAME.get(name, name)
