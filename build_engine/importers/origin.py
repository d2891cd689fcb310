"""Which foreign file a model comes from, and what the command line says that the file does not."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.preprocessing import Preprocessing

MAX_CLASSES = 255
"""A mask holds class ids in uint8, and 255 is void."""
PADDINGS = ("caffe", "same")
KINDS = ("matconvnet", "caffe", "keras", "onnx")
_MODULES = {"matconvnet": "matconvnet", "caffe": "caffe", "keras": "keras", "onnx": "onnx_stage"}
_ENDINGS = {".mat": "matconvnet", ".caffemodel": "caffe", ".keras": "keras", ".h5": "keras", ".onnx": "onnx"}
_APPLIES = {
    "padding": ("matconvnet", "caffe"),
    "mean": KINDS,
    "scale": KINDS,
    "channel_order": KINDS,
    "layout": ("onnx",),
    "output_name": KINDS,
}
"""Kinds of file that each flag says something about."""


@dataclass(frozen=True)
class ImportFlags:
    """What `fcn-build model FILE` was told about the file; None: as the file says, else by default.

    padding: "caffe" (as published) or "same"; mean, scale: per channel in the order R, G, B, for pixels of 0..255;
    channel_order: "rgb" or "bgr", as the network wants its input; layout: "nchw" or "nhwc"; output_name: which of
    several outputs holds the scores.
    """

    padding: str | None = None
    mean: tuple[float, float, float] | None = None
    scale: tuple[float, float, float] | None = None
    channel_order: str | None = None
    layout: str | None = None
    output_name: str | None = None


@dataclass(frozen=True)
class Origin(ImportFlags):
    """A foreign model file with its flags. kind: one of KINDS. Travels to the Keras child as JSON."""

    kind: str = ""
    path: Path = Path()

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Origin:
        """The inverse of `dataclasses.asdict` through JSON, whose lists are tuples again."""
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
        return cls(**{**values, "path": Path(data["path"])})

    def preprocessing(self, default: Preprocessing) -> Preprocessing:
        """What the flags say, and `default`, the file's own word, where they say nothing."""
        order = self.channel_order or default.channel_order
        mean, scale = (
            _reordered(given, "rgb", order) if given else _reordered(own, default.channel_order, order)
            for given, own in ((self.mean, default.mean), (self.scale, default.scale))
        )
        return Preprocessing(order, mean, scale)


@dataclass(frozen=True)
class FileFacts:
    """What a model file says about itself before its weights are loaded.

    arch: a few words for model.json; classes: their names, None where the file has none; class_count: channels of its
    scores, None where that is not known yet; size: (height, width) in pixels, None for any.
    """

    arch: str
    classes: tuple[str, ...] | None = None
    class_count: int | None = None
    size: tuple[int, int] | None = None


def checked_count(path: Path, classes: int | None) -> int | None:
    """`classes`, how many the file at `path` scores. Raises UserError for a number that a bundle cannot have."""
    if classes is None or 2 <= classes <= MAX_CLASSES:
        return classes
    remedy = "give the background a channel of its own" if classes < 2 else "train it for fewer"
    raise UserError(f"{path} scores {classes} class{'es' * (classes != 1)}, a model has 2 to {MAX_CLASSES}; {remedy}.")


def origin_of(path: Path, flags: ImportFlags) -> Origin:
    """The Origin of an existing file (or SavedModel folder). Raises UserError for a flag that does not apply to it."""
    kind = kind_of(path)
    assert kind is not None, "ask kind_of first"
    for flag in fields(ImportFlags):
        if getattr(flags, flag.name) is not None and kind not in _APPLIES[flag.name]:
            raise UserError(
                f"--{flag.name.replace('_', '-')} says nothing about {path.name}, a model of kind {kind}; leave it out."
            )
    return Origin(**vars(flags), kind=kind, path=path)


def kind_of(path: Path) -> str | None:
    """One of KINDS by the name's ending (a SavedModel by its saved_model.pb), None for no model file that we know."""
    if (path / "saved_model.pb").is_file():
        return "keras"
    return None if path.name.endswith(".weights.h5") else _ENDINGS.get(path.suffix.lower())


def importer(origin: Origin) -> Any:
    """The module that reads files of this kind.

    It has `describe(origin) -> FileFacts`, which loads neither Keras nor weights, and, unless the kind is "onnx",
    `load(origin, size) -> (keras.Model, Preprocessing)`; size: (height, width), None for any multiple of 32. That
    model is (N, H, W, 3) float32 normalised pixels → (N, H', W', classes) float32 scores.
    """
    return importlib.import_module(f".{_MODULES[origin.kind]}", __package__)


def _reordered(values: tuple[float, float, float], have: str, want: str) -> tuple[float, float, float]:
    return values if have == want else (values[2], values[1], values[0])
