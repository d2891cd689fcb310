"""Export a Keras FCN to ONNX through tf2onnx, with the big weights kept out of the converter.

Why: tf2onnx embeds every variable as a constant, and TensorFlow's constant folding, its protobufs and the converter's
own copies then hold each weight many times over: about 50 bytes of memory per byte of model, over 24 GB for VGG16's
537 MB. How: the forward pass is traced by `stateless_call` with every weight above `EMBED_LIMIT_BYTES` as an extra
*input*, so that the converter sees names and shapes only. Afterwards those inputs become initialisers whose values
are read from Keras, brought into ONNX's layout and written to disk one at a time.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.preprocessing import Preprocessing

from .computed_bias import separate_computed_biases
from .keras_weight import KerasWeight

OPSET = 17
IR_VERSION = 8
INPUT_NAME = "image"
FULL_OUTPUT_NAME = "full_scores"
EMBED_LIMIT_BYTES = 1 << 16
INLINE_LIMIT_BYTES = 64 << 20
"""Models whose weights exceed this keep them in a `.data` file beside the `.onnx`, which backends map lazily."""

_CONVERTER_LOGGERS = ("tf2onnx", "tensorflow", "absl")


def export_onnx(model, preprocessing: Preprocessing, size: tuple[int, int]) -> ir.Model:
    """Trace `model` at one size into an ONNX graph, as Keras computes it: nothing fused yet.

    model: Keras FCN, (N, H, W, 3) float32 → (N, H', W', C) float32; size: (height, width) in pixels.
    Returns opset 17 with input `image` uint8 (1, H, W, 3) BGR and output `full_scores` (1, H', W', C); big weights
    are read from Keras only when the graph is saved, so `model` must live until then.
    Raises UserError when a layer has no ONNX form.
    """
    import tensorflow as tf
    import tf2onnx

    big = [variable for variable in model.variables if _bytes(variable) > EMBED_LIMIT_BYTES]
    input_names = [f"weight:{variable.path}".replace("/", ".") for variable in big]
    signature = [tf.TensorSpec((1, *size, 3), tf.uint8, name=INPUT_NAME)]
    signature += [
        tf.TensorSpec(variable.shape, variable.dtype, name=name.replace(":", "_"))
        for variable, name in zip(big, input_names, strict=True)
    ]
    forward = _stateless_forward(model, preprocessing, big)
    with _quiet(_CONVERTER_LOGGERS):
        try:
            proto, _ = tf2onnx.convert.from_function(
                tf.function(forward, input_signature=signature), input_signature=signature, opset=OPSET
            )
        except (ValueError, NotImplementedError, tf.errors.OpError) as error:
            raise UserError(f"tf2onnx cannot convert {model.name}: {error}") from error
    _check_converted(proto, model.name)
    graph_model = ir.from_proto(proto)
    graph_model.ir_version = IR_VERSION
    graph_model.graph.name = model.name
    _attach_weights(graph_model.graph, big)
    separate_computed_biases(graph_model.graph)
    graph_model.graph.outputs[0].name = FULL_OUTPUT_NAME
    return graph_model


def save_onnx(model: ir.Model, path: Path) -> list[Path]:
    """Write `model`, weights one at a time; returns the files written: the `.onnx` and, for big models, its `.data`."""
    weights_bytes = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    if weights_bytes <= INLINE_LIMIT_BYTES:
        ir.external_data.load_to_model(model)  # weights may lie beside the file that it was read from
        ir.save(model, path)
        return [path]
    data = path.with_name(path.name + ".data")
    ir.save(model, path, external_data=data.name, max_workers=1)
    return [path, data]


def _stateless_forward(model, preprocessing: Preprocessing, big: list) -> Callable:
    import tensorflow as tf

    mean, scale = (np.asarray(values, np.float32) for values in (preprocessing.mean, preprocessing.scale))
    order = [2, 1, 0] if preprocessing.channel_order == "rgb" else [0, 1, 2]

    def forward(image, *weights):
        pixels = tf.gather(tf.cast(image, tf.float32), order, axis=-1)
        pixels = (pixels - mean) * scale
        replaced = {id(variable): weight for variable, weight in zip(big, weights, strict=True)}
        outputs, _ = model.stateless_call(
            [replaced.get(id(variable), variable.value) for variable in model.trainable_variables],
            [replaced.get(id(variable), variable.value) for variable in model.non_trainable_variables],
            pixels,
            training=False,
        )
        return tf.identity(outputs, name=FULL_OUTPUT_NAME)

    return forward


def _check_converted(proto, name: str) -> None:
    """Raise UserError for what tf2onnx passed through under its TensorFlow name: it logs that and goes on."""
    import onnx

    unknown = sorted({node.op_type for node in proto.graph.node if not onnx.defs.has(node.op_type, OPSET, node.domain)})
    if unknown:
        raise UserError(
            f"{name} uses {', '.join(unknown)}, which tf2onnx cannot convert; replace the layer that needs it."
        )


def _attach_weights(graph: ir.Graph, variables: list) -> None:
    """Turn the graph's extra inputs into initialisers, through the layout changes that the converter added."""
    for value, variable in zip(list(graph.inputs)[1:], variables, strict=True):
        assert value.name is not None
        graph.inputs.remove(value)
        weight = KerasWeight(variable, value.name)
        last = value
        while (change := _layout_change(last)) is not None:
            node, operation, argument = change
            weight = weight.changed(operation, argument)
            last = node.outputs[0]
        _bypass(graph, value, last)
        value.shape, value.type, value.const_value = weight.shape, ir.TensorType(weight.dtype), weight
        graph.register_initializer(value)


def _layout_change(value: ir.Value) -> tuple[ir.Node, str, tuple[int, ...]] | None:
    """The Transpose or constant Reshape that is the only consumer of `value`, if that is what follows it."""
    consumers = list(value.consumers())
    if len(consumers) != 1:
        return None
    node = consumers[0]
    if node.op_type == "Transpose":
        return node, "transpose", tuple(node.attributes["perm"].as_ints())
    if node.op_type == "Reshape" and node.inputs[1] is not None and node.inputs[1].const_value is not None:
        return node, "reshape", tuple(int(side) for side in node.inputs[1].const_value.numpy())
    return None


def _bypass(graph: ir.Graph, first: ir.Value, last: ir.Value) -> None:
    """Let the consumers of `last` read `first`, and remove the chain of nodes between the two."""
    if first is last:
        return
    chain, value = [], last
    while value is not first:
        node = value.producer()
        assert node is not None, "the chain starts at `first`"
        assert node.inputs[0] is not None, "a Transpose or Reshape has an input"
        chain.append(node)
        value = node.inputs[0]
    last.replace_all_uses_with(first)
    graph.remove(chain, safe=True)


def _bytes(variable) -> int:
    return int(np.prod(variable.shape)) * 4


@contextlib.contextmanager
def _quiet(names: tuple[str, ...]) -> Iterator[None]:
    """Hold the converter's chatter below errors; its failures arrive as exceptions."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
