"""What a build or a training starts from: a shipped model, an architecture with weights, another program's file."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.palette import VOC_CLASSES
from fcnedge.runtime.preprocessing import Preprocessing

from .importers.origin import FileFacts, ImportFlags, Origin, importer, kind_of, origin_of

WEIGHTS_FOLDER = Path(__file__).parent / "models" / "weights"
DEFAULT_SIZE = (512, 512)
DEFAULT_FIT = "stretch"


@dataclass(frozen=True)
class ModelSource:
    """Everything known before Keras is loaded.

    size: (height, width); weights: None for random ones, and for a model from another program's file; origin: that
    file, None for an architecture of ours.
    """

    name: str
    arch: str
    classes: tuple[str, ...]
    size: tuple[int, int]
    fit: str
    weights: Path | None
    origin: Origin | None = None


def shipped_models() -> tuple[str, ...]:
    """Names of the trained models inside the package."""
    return tuple(sorted(path.stem for path in WEIGHTS_FOLDER.glob("*.safetensors")))


def resolve_source(
    model: str,
    *,
    weights: Path | None = None,
    classes: str | None = None,
    size: tuple[int, int] | None = None,
    fit: str | None = None,
    new_scores: bool = False,
    imports: ImportFlags | None = None,
) -> ModelSource:
    """Turn the command line's words into a ModelSource; options that are None take the weights' own values.

    classes: a number, a text file with one name per line, or names separated by commas; new_scores: weights of another
    number of classes will do, as in `keras_model`; imports: `model` may be another program's file, read with these
    flags; None: it may not.
    Raises UserError for an unknown model, a file that cannot be read, a flag that does not apply, and for a class list
    that disagrees with the weights.
    """
    from .models.weights_file import read_info

    if imports is not None and kind_of(Path(model)) is not None:
        return _imported(Path(model), imports, weights=weights, classes=classes, size=size, fit=fit)
    if imports is not None and imports != ImportFlags():
        raise UserError(f"--{_first_given(imports)} is for model files of other programs; {model} is none.")

    if model in shipped_models():
        if weights is not None:
            raise UserError(f"{model} ships with its weights; use an architecture such as fcn8s-lite0 with --weights.")
        weights = WEIGHTS_FOLDER / f"{model}.safetensors"
    if weights is not None and not weights.is_file():
        raise UserError(f"there is no weights file {weights}; check the path.")
    info = read_info(weights) if weights is not None and weights.suffix == ".safetensors" else None
    arch = info.arch if info is not None and model in shipped_models() else model
    _check_architecture(arch, model)
    if info is not None and info.arch != arch:
        raise UserError(f"{weights} was trained as {info.arch}, not as {arch}; build it as {info.arch}.")
    names = read_classes(classes) if classes is not None else info.classes if info is not None else VOC_CLASSES
    if info is not None and len(names) != len(info.classes) and not new_scores:
        raise UserError(f"{weights} scores {len(info.classes)} classes, --classes names {len(names)}; they must agree.")
    return ModelSource(
        name=model,
        arch=arch,
        classes=names,
        size=size or (info.size if info is not None else DEFAULT_SIZE),
        fit=fit or (info.fit if info is not None else DEFAULT_FIT),
        weights=weights,
    )


def _imported(
    path: Path,
    flags: ImportFlags,
    *,
    weights: Path | None,
    classes: str | None,
    size: tuple[int, int] | None,
    fit: str | None,
) -> ModelSource:
    """The ModelSource of another program's file."""
    if not path.exists():
        raise UserError(f"there is no model file {path}; check the path.")
    if weights is not None:
        raise UserError(f"{path} holds its own weights; leave out --weights.")
    origin = origin_of(path, flags)
    facts: FileFacts = importer(origin).describe(origin)
    return ModelSource(
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.") or "model",
        arch=facts.arch,
        classes=_class_names(path, facts, classes),
        size=size or facts.size or DEFAULT_SIZE,
        fit=fit or DEFAULT_FIT,
        weights=None,
        origin=origin,
    )


def _class_names(path: Path, facts: FileFacts, classes: str | None) -> tuple[str, ...]:
    """Those of --classes, else the file's own, else numbered ones (VOC's for 21)."""
    count = facts.class_count
    if classes is not None:
        names = read_classes(classes)
        if count is not None and len(names) != count:
            raise UserError(f"{path} scores {count} classes, --classes names {len(names)}; they must agree.")
        return names
    if facts.classes is not None:
        return facts.classes
    if count is None:
        raise UserError(f"{path} does not say how many classes it scores; name them with --classes.")
    return read_classes(str(count))


def _first_given(flags: ImportFlags) -> str:
    return next(name for name, value in vars(flags).items() if value is not None).replace("_", "-")


def read_classes(text: str) -> tuple[str, ...]:
    """`21`, `classes.txt` or `background,road,person` → class names. Raises UserError."""
    if text.isdecimal():
        count = int(text)
        if not 2 <= count <= 255:
            raise UserError(f"--classes is {count}; a model has 2 to 255 classes.")
        return VOC_CLASSES if count == len(VOC_CLASSES) else tuple(f"class{index}" for index in range(count))
    path = Path(text)
    if path.suffix == ".txt" or ("," not in text and path.is_file()):  # a long list is no file name to ask for
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            names = tuple(line.strip() for line in lines if line.strip())
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"the class list {path} cannot be read ({error}); write one name per line.") from error
    else:
        names = tuple(name.strip() for name in text.split(","))
    if not 2 <= len(names) <= 255 or not all(name and name.isprintable() and len(name) <= 200 for name in names):
        raise UserError(f"--classes {text} must give 2 to 255 printable names, it gives {len(names)}.")
    if len(set(names)) != len(names):
        raise UserError(f"--classes {text} names a class twice; every name must differ.")
    return names


def keras_model(
    source: ModelSource, *, fc_channels: int, fixed_size: bool, new_scores: bool = False
) -> tuple[Any, Preprocessing]:
    """Build the Keras model and load its weights; fixed_size: at source.size, else for any multiple of 32.

    new_scores: layers that score another number of classes than the weights do are left as they are initialised.
    fc_channels and new_scores say nothing about a model from another program's file.
    """
    if source.origin is not None:
        return importer(source.origin).load(source.origin, source.size if fixed_size else None)
    from .models import Architecture, build_model
    from .models.weights_file import load_weights

    architecture = Architecture.parse(source.arch)
    model = build_model(
        architecture,
        classes=len(source.classes),
        size=source.size if fixed_size else (None, None),
        fc_channels=fc_channels,
    )
    if source.weights is not None:
        load_weights(model, source.weights, new_scores=new_scores)
    return model, architecture.preprocessing


def _check_architecture(arch: str, model: str) -> None:
    from .models.names import ARCHITECTURES

    if model.endswith(".weights.h5"):
        raise UserError(f"{model} holds weights without their layers; name their architecture, and it as --weights.")
    if arch in ARCHITECTURES:
        return
    if os.path.exists(model) and kind_of(Path(model)) is None:  # noqa: PTH110
        raise UserError(
            f"{model} is not a model file; those end in .mat, .caffemodel, .keras, .h5 or .onnx, or are the folder of "
            "a SavedModel."
        )
    known = ", ".join((*shipped_models(), *ARCHITECTURES))
    raise UserError(f"{model!r} is not a model that fcnedge knows; choose one of {known}.")
