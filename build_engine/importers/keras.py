"""Keras models: .keras, legacy .h5 (of Keras 3 and of Keras 2) and SavedModel folders.

The description is read, checked and changed as data; the model is built of it by Keras in safe mode, and filled by
`load_weights`. No code out of the file runs.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.preprocessing import Preprocessing

from . import saved_model
from .keras_config import (
    class_count,
    input_shapes,
    is_layered,
    objects,
    output_names,
    prepared,
    reduced_precision,
    refuse_code,
    refuse_unknown,
)
from .keras_file import KerasFile, first_line, read_keras_file
from .keras_scores import scores_model
from .origin import FileFacts, Origin, checked_count

_LOG = logging.getLogger(__name__)
_PREPARES = ("Rescaling", "Normalization")
_PLAIN = Preprocessing("rgb", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def describe(origin: Origin) -> FileFacts:
    """What the file says about itself, after the checks that need no Keras. Raises UserError."""
    if saved_model.is_saved_model(origin.path):
        return saved_model.describe(origin)
    try:
        file = _read(origin)
        classes = _classes(origin, file)
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{origin.path}: its description of the layers is damaged; save the model again.") from error
    height, width = input_shapes(file.config)[0][1:3]
    size = None if height is None or width is None else (height, width)
    count = checked_count(origin.path, classes)
    return FileFacts(f"keras {file.config['class_name'].lower()}", None, count, size)


def load(origin: Origin, size: tuple[int, int] | None) -> tuple[Any, Preprocessing]:
    """The Keras model of the file in float32, giving scores at `size` (height, width), and its preprocessing.

    Raises UserError for what Keras does not know, and for weights that do not fit the layers.
    """
    assert size is not None, "a foreign model is built at one size"
    if saved_model.is_saved_model(origin.path):
        model = saved_model.load(origin, size)
        _tell_preprocessing(origin, prepares=False)
    else:
        file = _read(origin)
        model = _built(file, size)
        _tell_preprocessing(origin, prepares=any(each["class_name"] in _PREPARES for each in objects(file.config)))
    return scores_model(model, origin.path, size, origin.output_name), origin.preprocessing(_PLAIN)


def _read(origin: Origin) -> KerasFile:
    """The description, once it is known to hold layers of Keras's own and one picture as input."""
    file, path = read_keras_file(origin.path), origin.path
    if path.suffix.lower() == ".keras" and file.keras_version.startswith("2."):
        raise UserError(
            f"{path} was saved by Keras {file.keras_version}, and the weights in its .keras files are not where "
            "Keras 3 looks for them; load it there and save it as .h5."
        )
    refuse_code(path, file.config)
    if not is_layered(file.config):
        raise UserError(
            f"{path} is a {file.config['class_name']}, a class with code of its own; build the model with "
            "keras.Model(inputs, outputs) or keras.Sequential and save it again."
        )
    shapes = input_shapes(file.config)
    if len(shapes) > 1:
        raise UserError(f"{path} has {len(shapes)} inputs; fcnedge runs models of one picture.")
    if not shapes:
        raise UserError(f"{path} was saved without an Input layer; begin the model with keras.Input and save it again.")
    if len(shapes[0]) != 4 or shapes[0][3] != 3:
        raise UserError(
            f"{path} takes input of shape {shapes[0]}, expected (N, height, width, 3): pictures with channels last."
        )
    if any(isinstance(own := each.get("config"), dict) and own.get("data_format") == "channels_first"
           for each in objects(file.config)):  # fmt: skip
        raise UserError(
            f"{path} has layers with channels first, which Keras does not run on a CPU; save it channels last."
        )
    return file


def _classes(origin: Origin, file: KerasFile) -> int | None:
    outputs = output_names(file.config)
    if origin.output_name is None and len(outputs) > 1:
        raise UserError(f"{origin.path} has several outputs; choose one of {', '.join(outputs)} with --output-name.")
    return class_count(file.config, origin.output_name)


def _built(file: KerasFile, size: tuple[int, int]) -> Any:
    import keras

    path = file.path
    refuse_unknown(path, file.config)
    policy = reduced_precision(file.config)
    if policy is not None:
        _LOG.info("%s computes in %s; it is built in float32.", path.name, policy)
    kind = keras.Sequential if file.config["class_name"] == "Sequential" else keras.Model
    try:
        model = kind.from_config(prepared(file.config, size)["config"])
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Skipping")  # layers that would keep their random weights
            model.load_weights(path)
    except Exception as error:  # Keras checks little: a damaged file ends in almost any exception
        raise UserError(
            f"Keras {keras.__version__} cannot build {path} at {size[1]}x{size[0]} pixels: {first_line(error)}"
        ) from error
    return model


def _tell_preprocessing(origin: Origin, *, prepares: bool) -> None:
    if origin.mean is not None or origin.scale is not None or origin.channel_order is not None:
        return
    own = "which its own layers normalise" if prepares else "as they are: no layer of the file normalises them"
    _LOG.info(
        "%s is given RGB pixels of 0..255, %s; --mean, --scale and --channel-order change that.", origin.path.name, own
    )
