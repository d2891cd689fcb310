"""The node's parameters: names, defaults, what each may be, and one sentence for what it may not."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends import BACKENDS
from ..errors import UserError
from ..look import Look
from ..manifest import PRECISIONS
from ..options import option


@dataclass(frozen=True)
class NodeParameters:
    """What `--ros-args -p NAME:=VALUE` sets, or a parameter file. Those of `CHANGEABLE` may change while it runs."""

    model: str = option("bundle folder made by fcn-build model", "fcn8s-lite0-voc")
    backend: str = option(f"what runs the network: auto, cpu, {', '.join(BACKENDS)}", "auto")
    precision: str = option(f"which graph of the bundle runs: auto, {', '.join(PRECISIONS)}", "auto")
    filter_mode: str = option(
        "how scores become a mask: linear (interpolated), or point (the nearest grid point)", "linear"
    )
    alpha: float = option("opacity of the class colours on ~/overlay, 0 to 1", 0.5)
    ignore_classes: tuple[str | int, ...] = option(
        "classes that keep the camera's pixels on ~/overlay, by name or id", ("0",)
    )

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> NodeParameters:
        """Parameters from ROS's values, whose types follow from how they were written. Raises UserError."""
        return cls(
            **{name: _text(name, values[name]) for name in ("model", "backend", "precision", "filter_mode")},
            alpha=read_alpha(values["alpha"]),
            ignore_classes=read_class_words(values["ignore_classes"]),
        )


CHANGEABLE = ("alpha", "ignore_classes")


def first_look(parameters: NodeParameters, palette: np.ndarray, classes: Sequence[str]) -> Look:
    """How overlays are painted at first, without a legend. Raises UserError for a class that the model has not."""
    ignored = class_ids(parameters.ignore_classes, classes)
    return Look(palette, classes, parameters.alpha, ignored, legend=False)


def changed_look(look: Look, values: Mapping[str, Any]) -> Look:
    """With those of `values` that are looks; names that are not are passed over. Raises UserError."""
    changes: dict[str, Any] = {}
    if "alpha" in values:
        changes["alpha"] = read_alpha(values["alpha"])
    if "ignore_classes" in values:
        changes["ignore"] = class_ids(read_class_words(values["ignore_classes"]), look.classes)
    return dataclasses.replace(look, **changes)


def read_alpha(value: Any) -> float:
    """A number from 0 to 1; whole ones too, which ROS makes integers of. Raises UserError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or not 0 <= value <= 1:
        raise UserError(
            f"the parameter alpha is {value!r}; it must be a number from 0 (camera only) to 1 (colour only)."
        )
    return float(value)


def read_class_words(value: Any) -> tuple[str | int, ...]:
    """Names or ids: one, several, or none ([] comes as None, '' as text). Raises UserError."""
    if value is None or (isinstance(value, str) and not value):
        return ()
    words = (value,) if isinstance(value, str | int) else value
    if isinstance(words, bytes) or not isinstance(words, Sequence) or not all(map(_is_class_word, words)):
        raise UserError(
            f"the parameter ignore_classes is {value!r}; it must be class names or ids, such as [person, cat]."
        )
    return tuple(words)


def _is_class_word(word: Any) -> bool:
    return isinstance(word, str | int) and not isinstance(word, bool)


def class_ids(words: Sequence[str | int], classes: Sequence[str]) -> frozenset[int]:
    """Class ids from names or ids. Raises UserError for one that the model has not."""
    return frozenset(_class_id(word, classes) for word in words)


def _class_id(word: str | int, classes: Sequence[str]) -> int:
    if isinstance(word, str) and word in classes:
        return classes.index(word)
    number = int(word) if isinstance(word, int) or (word.isascii() and word.isdecimal() and len(word) < 4) else -1
    if not 0 <= number < len(classes):
        raise UserError(
            f"the parameter ignore_classes names {word!r}, which is no class of the model; it has the ids 0 to "
            f"{len(classes) - 1}: {', '.join(classes)}."
        )
    return number


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise UserError(f"the parameter {name} is {value!r}; it must be text, in quotes where it looks like a number.")
    return value
