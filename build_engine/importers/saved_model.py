"""TensorFlow's SavedModel folders, through their serving signature.

A SavedModel is a program of TensorFlow operations, and loading it runs some of them; those known to touch files or
Python are refused by reading the program first, except SaveV2 and RestoreV2, which every SavedModel has. Its weights
are constants to the converter, which holds each many times over (export.py): hence a limit on their size. Source:
saved_model.proto, meta_graph.proto and graph.proto of TensorFlow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fcnedge.runtime.errors import UserError

from .keras_file import first_line
from .origin import FileFacts, Origin, checked_count
from .protobuf_wire import Message, WireError

MAX_BYTES = 200 << 20
"""Of saved_model.pb and its variables; the export needs up to 80 times the memory of the weights."""
_SIGNATURE = "serving_default"
_TOUCHES_OUTSIDE = ("ReadFile", "WriteFile", "MatchingFiles", "ImmutableConst", "WholeFileReader", "TextLineReader",
                    "FixedLengthRecordReader", "TFRecordReader", "LMDBReader", "PyFunc", "EagerPyFunc",
                    "InitializeTableFromTextFile", "PrintV2", "DebugIdentity", "Sql")  # fmt: skip


def is_saved_model(path: Path) -> bool:
    """Whether `path` is such a folder."""
    return (path / "saved_model.pb").is_file()


def describe(origin: Origin) -> FileFacts:
    """Classes and size out of the serving signature, without TensorFlow. Raises UserError."""
    meta = _checked(origin.path)
    inputs, outputs = _signature(origin.path, meta)
    shape, scores = inputs[0][1], _output(origin, outputs)[1]
    size = (shape[1], shape[2]) if len(shape) == 4 and min(shape[1:3]) > 0 else None
    classes = scores[3] if len(scores) == 4 and scores[3] > 0 else None
    return FileFacts("tensorflow savedmodel", None, checked_count(origin.path, classes), size)


def load(origin: Origin, size: tuple[int, int]) -> Any:
    """A Keras model of one layer, the serving signature; (height, width) of its input is `size`. Raises UserError."""
    import keras
    import tensorflow as tf

    inputs, outputs = _signature(origin.path, _checked(origin.path))
    for side, own in zip(size, inputs[0][1][1:3], strict=True):
        if own > 0 and own != side:
            raise UserError(
                f"{origin.path} runs at {inputs[0][1][2]}x{inputs[0][1][1]} pixels only, --size is {size[1]}x{size[0]}"
                "; leave out --size, or export the model for any size."
            )
    try:
        program = tf.saved_model.load(str(origin.path))
        serve = program.signatures[_SIGNATURE]
        argument, dtype = inputs[0][0], serve.structured_input_signature[1][inputs[0][0]].dtype
        name = _output(origin, outputs)[0]
        given = serve(**{argument: tf.zeros((1, *size, 3), dtype)})[name]
    except Exception as error:  # TensorFlow checks little: a damaged program ends in almost any exception
        raise UserError(f"{origin.path} does not run at {size[1]}x{size[0]} pixels: {first_line(error)}") from error

    class Signature(keras.layers.Layer):
        """Holds the program by closure: its variables are constants to Keras and to the converter."""

        def call(self, pixels: Any) -> Any:
            _ = program  # a signature does not keep its variables alive
            return serve(**{argument: tf.cast(pixels, dtype)})[name]

        def compute_output_spec(self, pixels: Any) -> Any:
            return keras.KerasTensor((pixels.shape[0], *given.shape[1:]), dtype="float32")

    picture = keras.Input((*size, 3))
    return keras.Model(picture, Signature(name=_SIGNATURE)(picture))


def _checked(path: Path) -> Message:
    """The program, once its size and its operations are known to be harmless."""
    data = [path / "saved_model.pb", *(path / "variables").glob("*")]
    size = sum(file.stat().st_size for file in data)
    if size > MAX_BYTES:
        raise UserError(
            f"{path} has {size >> 20} MiB of weights, of a SavedModel at most {MAX_BYTES >> 20} are read, because the "
            "conversion takes up to 80 times as much memory; save the model as .keras, which needs far less."
        )
    try:
        [meta] = Message(memoryview(data[0].read_bytes())).messages(2)
        found = sorted({op for op in _operations(meta) if op.removesuffix("Stateless").startswith(_TOUCHES_OUTSIDE)})
    except (WireError, ValueError) as error:
        raise UserError(f"{data[0]} is no SavedModel of one graph ({error}); export the model again.") from error
    if found:
        raise UserError(
            f"{path} reads files or runs Python ({', '.join(found)}); fcnedge loads networks only, so export the model "
            "without these."
        )
    return meta


def _operations(meta: Message) -> list[str]:
    """The op of every node of the graph and of its functions."""
    names: list[str] = []
    for graph in meta.messages(2):
        bodies = [(graph, 1)] + [(body, 3) for library in graph.messages(2) for body in library.messages(1)]
        names += [op for body, nodes in bodies for node in body.messages(nodes) for op in node.texts(2)]
    return names


_Tensor = tuple[str, tuple[int, ...]]


def _signature(path: Path, meta: Message) -> tuple[list[_Tensor], list[_Tensor]]:
    """(name, shape) of the inputs and outputs of the serving signature; -1 for a free side."""
    try:
        signatures = {entry.texts(1)[0]: entry.messages(2)[0] for entry in meta.messages(5)}
        if _SIGNATURE not in signatures:
            raise UserError(f"{path} has no signature {_SIGNATURE}; write it with model.export('{path.name}').")
        inputs, outputs = (_tensors(signatures[_SIGNATURE], field) for field in (1, 2))
    except (WireError, IndexError) as error:
        raise UserError(f"{path} has a damaged signature {_SIGNATURE} ({error}); export the model again.") from error
    if len(inputs) != 1 or len(inputs[0][1]) != 4 or inputs[0][1][3] != 3:
        shapes = ", ".join(f"{name} {list(shape)}" for name, shape in inputs)
        raise UserError(f"{path} takes {shapes or 'nothing'}, expected one input of (N, height, width, 3).")
    return inputs, outputs


def _tensors(signature: Message, field: int) -> list[_Tensor]:
    tensors = []
    for entry in signature.messages(field):
        sides = [side for shape in entry.messages(2)[0].messages(3) for side in shape.messages(2)]
        # a negative number is written as its 64-bit complement
        sizes = tuple(side - (1 << 64) if side >> 63 else side for side in (one.integer(1, 0) for one in sides))
        tensors.append((entry.texts(1)[0], sizes))
    return tensors


def _output(origin: Origin, outputs: list[_Tensor]) -> _Tensor:
    named = dict(outputs)
    if origin.output_name is None and len(outputs) == 1:
        chosen = outputs[0]
    elif origin.output_name in named:
        chosen = (origin.output_name, named[origin.output_name])
    else:
        wanted = "several outputs" if origin.output_name is None else f"no output {origin.output_name}"
        raise UserError(f"{origin.path} has {wanted}; choose one of {', '.join(named)} with --output-name.")
    if chosen[1] and len(chosen[1]) != 4:
        raise UserError(
            f"{origin.path} gives {chosen[0]} of shape {list(chosen[1])}, expected scores of (N, height, width, "
            "classes); export the model without its argmax, or convert it to ONNX with tf2onnx and import that."
        )
    return chosen
