"""Which bundle is measured: the one named, one that lies at hand, or the shipped model, built once into the cache."""

from __future__ import annotations

import importlib.metadata
import logging
from pathlib import Path

from fcnedge.build_engine.model_source import WEIGHTS_FOLDER, shipped_models
from fcnedge.runtime import Bundle
from fcnedge.runtime.bundle import sha256_of
from fcnedge.runtime.child_command import python_module, run_child
from fcnedge.runtime.errors import BundleError, UserError
from fcnedge.runtime.manifest import FORMAT_VERSION
from fcnedge.runtime.user_cache import make_private, user_cache

SHIPPED = "fcn8s-lite0-voc"
AT_HAND = (Path("build/demo") / SHIPPED, Path(SHIPPED))
"""Where `make demo` and the README's commands put it."""
PRECISIONS = "fp32,fp16,int8"

_log = logging.getLogger(__name__)


def measured_bundle(model: str | None = None, size: tuple[int, int] | None = None) -> Bundle:
    """The bundle to measure, verified.

    model: a bundle folder or the name of a shipped model; None: the shipped model, at hand or from the cache. size:
    (height, width) that the network must have; a shipped model is built at that size.
    Raises UserError for a bundle of another size, and where the model must be built and the extra `build` is missing;
    BundleError as `Bundle.load`.
    """
    if model is not None and (Path(model).exists() or model not in shipped_models()):
        bundle = Bundle.load(model)
        if not _has_size(bundle, size):
            raise UserError(
                f"{model} takes {_shown(_size(bundle))}, --size asks for {_shown(size)}; a bundle's size is fixed: "
                f"build one of that size with fcn-build model --size {_shown(size)}."
            )
        return bundle
    for folder in AT_HAND if model in (None, SHIPPED) else ():
        bundle = _at_hand(folder)
        if bundle is not None and _has_size(bundle, size):
            return bundle
    return Bundle.load(_cached(model or SHIPPED, size))


def _at_hand(folder: Path) -> Bundle | None:
    """The bundle in `folder`; None where there is none, or one that nobody named and that cannot be used."""
    if not (folder / "model.json").is_file():
        return None
    try:
        return Bundle.load(folder)
    except BundleError as error:
        _log.warning("%s is passed over: %s", folder, str(error))
        return None


def _cached(name: str, size: tuple[int, int] | None) -> Path:
    """The shipped model in the user's cache, built there first where it is missing."""
    weights = sha256_of(WEIGHTS_FOLDER / f"{name}.safetensors")[:12]
    version = f"{importlib.metadata.version('fcnedge')}-{FORMAT_VERSION}"
    words = (name, _shown(size) if size else "default", version, weights)
    folder = user_cache("models") / "-".join(words)
    if (folder / "model.json").is_file():
        return folder
    _log.warning("building %s into %s, once; it takes half a minute or so", name, folder)
    command = python_module("fcnedge.build_engine.cli", "model", name, "-o", str(folder), "--precision", PRECISIONS)
    if size is not None:
        command += ["--size", _shown(size)]
    try:
        make_private(folder.parent)
    except OSError as error:
        raise UserError(f"{folder.parent} cannot be made ({error.strerror}); name a bundle with --model.") from error
    try:
        # A child, so that TensorFlow's memory and threads are gone before anything is measured.
        run_child(command, "fcn-build model")
    except UserError as error:
        raise UserError(
            f"no bundle was named or found, and {name} could not be built: {str(error).removesuffix('.')}; "
            "or name a bundle with --model."
        ) from error
    return folder


def _has_size(bundle: Bundle, size: tuple[int, int] | None) -> bool:
    return size is None or _size(bundle) == size


def _size(bundle: Bundle) -> tuple[int, int]:
    return bundle.manifest.input.height, bundle.manifest.input.width


def _shown(size: tuple[int, int] | None) -> str:
    return f"{size[1]}x{size[0]}" if size else ""
