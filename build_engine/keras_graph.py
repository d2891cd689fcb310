"""Which operation of a Keras model computes a tensor, and the last upsampling before its output."""

from __future__ import annotations

from typing import Any

_AFTER_UPSAMPLING = ("Softmax", "Activation", "Cropping2D", "Dropout", "Identity")


def producer(value: Any) -> tuple[Any, list[Any]]:
    """The layer or operation that computes a KerasTensor, and the tensors it reads: none for an input."""
    operation, node, _ = value._keras_history
    return operation, list(operation._inbound_nodes[node].input_tensors)


def last_upsampling_layer(model: Any) -> Any | None:
    """The bilinear or transposed upsampling behind a model's output, crops and softmax aside; None when it has none."""
    import keras

    upsamplings = (keras.layers.Conv2DTranspose, keras.layers.UpSampling2D, keras.layers.Resizing)
    layer, inputs = producer(model.outputs[0])
    while type(layer).__name__ in _AFTER_UPSAMPLING and len(inputs) == 1:
        layer, inputs = producer(inputs[0])
    if not isinstance(layer, upsamplings) or getattr(layer, "interpolation", "bilinear") != "bilinear":
        return None
    return layer
