"""The raw export computes what Keras computes, wherever its weights are kept, and is a file that others can read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnedge.build_engine import export, keras_weight
from fcnedge.build_engine.export import export_onnx, save_onnx
from fcnedge.build_engine.keras_weight import KerasWeight
from fcnedge.build_engine.models import Architecture, build_model
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.preprocessing import Preprocessing

SIZE = (64, 96)
RGB = Preprocessing("rgb", (123.0, 117.0, 104.0), (1 / 64, 1 / 50, 1 / 70))


@pytest.fixture(autouse=True)
def clear_session():
    yield
    keras.utils.clear_session()


def randomise(model: keras.Model) -> keras.Model:
    """Random everything, deconvolutions too: layouts must not hide behind symmetric kernels."""
    rng = np.random.default_rng(11)
    for variable in model.weights:
        shape = tuple(variable.shape)
        if variable.path.endswith("kernel"):
            fan_in = np.prod(shape[:2]) if "depthwise" in variable.path else np.prod(shape[:-1])
            values = rng.normal(0, np.sqrt(2 / fan_in), shape)
        elif variable.path.endswith(("gamma", "moving_variance")):
            values = rng.uniform(0.5, 1.5, shape)
        else:
            values = rng.normal(0, 0.3, shape)
        variable.assign(values.astype(np.float32))
    return model


def picture(size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (1, *size, 3), np.uint8)


def run(path: Path, image: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    return session.run(None, {"image": image})[0]


def keras_answer(model: keras.Model, preprocessing: Preprocessing, image: np.ndarray) -> np.ndarray:
    """Keras on pixels that NumPy prepared: BGR reversed for RGB, then (pixel - mean) * scale."""
    pixels = image[..., ::-1] if preprocessing.channel_order == "rgb" else image
    pixels = (pixels.astype(np.float32) - np.array(preprocessing.mean, np.float32)) * np.array(
        preprocessing.scale, np.float32
    )
    return np.asarray(model(pixels, training=False))


def assert_equals_keras(path: Path, model: keras.Model, preprocessing: Preprocessing, image: np.ndarray) -> np.ndarray:
    expected = keras_answer(model, preprocessing, image)
    answer = run(path, image)
    assert (answer.dtype, answer.shape) == (expected.dtype, expected.shape)
    assert np.ptp(expected) > 0
    assert np.abs(answer - expected).max() <= 1e-5 * np.ptp(expected)
    return answer


@pytest.mark.parametrize("name", ["fcn8s-vgg16", "fcn8s-lite0"])
def test_export_equals_keras_with_weights_embedded_or_kept_out(name, monkeypatch, tmp_path):
    architecture = Architecture.parse(name)
    model = randomise(build_model(architecture, classes=5, size=SIZE, fc_channels=8))
    answers = []
    limits = {"some": export.EMBED_LIMIT_BYTES, "all out": 0} | ({"none": 1 << 40} if "lite0" in name else {})
    for case, limit in limits.items():
        monkeypatch.setattr(export, "EMBED_LIMIT_BYTES", limit)
        graph = export_onnx(model, architecture.preprocessing, SIZE)
        assert [value.name for value in graph.graph.inputs] == ["image"]
        path = tmp_path / f"{case}.onnx"
        save_onnx(graph, path)
        answers.append(assert_equals_keras(path, model, architecture.preprocessing, picture()))
    for answer in answers[1:]:
        assert np.abs(answer - answers[0]).max() <= 1e-5 * np.ptp(answers[0])


def tiny_model(size: tuple[int, int] | tuple[None, None] = SIZE) -> keras.Model:
    """Every kind of weight: plain, depthwise, separable by a batch norm, deconvolution; asymmetric kernels."""
    image = keras.Input((*size, 3))
    x = keras.layers.Conv2D(6, (3, 2), strides=2, padding="same", name="first")(image)
    x = keras.layers.DepthwiseConv2D((2, 3), padding="same", depth_multiplier=2, name="depthwise")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Conv2D(4, 1, activation="relu", name="second")(x)
    x = keras.layers.Conv2DTranspose(5, (4, 6), strides=2, padding="same", name="deconvolution")(x)
    return randomise(keras.Model(image, x, name="tiny"))


@pytest.mark.parametrize("limit", [0, 1 << 40], ids=["kept_out", "embedded"])
@pytest.mark.parametrize("channel_order", ["rgb", "bgr"])
@pytest.mark.parametrize("size", [(64, 96), (32, 160), (96, 32)])
def test_bytes_are_preprocessed_in_the_graph(channel_order, size, limit, monkeypatch, tmp_path):
    monkeypatch.setattr(export, "EMBED_LIMIT_BYTES", limit)
    model = tiny_model(size)
    preprocessing = Preprocessing(channel_order, RGB.mean, RGB.scale)
    save_onnx(export_onnx(model, preprocessing, size), tmp_path / "tiny.onnx")
    assert_equals_keras(tmp_path / "tiny.onnx", model, preprocessing, picture(size))


def test_model_of_any_size_is_exported_at_one(tmp_path):
    model = tiny_model((None, None))
    graph = export_onnx(model, RGB, (32, 64))
    assert graph.graph.inputs[0].shape == (1, 32, 64, 3)
    assert graph.graph.outputs[0].shape == (1, 32, 64, 5)
    save_onnx(graph, tmp_path / "tiny.onnx")
    assert_equals_keras(tmp_path / "tiny.onnx", model, RGB, picture((32, 64)))


def test_file_is_opset_17_with_bytes_in_and_full_scores_out(tmp_path):
    save_onnx(export_onnx(tiny_model(), RGB, SIZE), tmp_path / "tiny.onnx")
    proto = onnx.load(tmp_path / "tiny.onnx")
    onnx.checker.check_model(proto, full_check=True)
    assert proto.ir_version == 8
    assert {entry.domain: entry.version for entry in proto.opset_import}[""] == 17
    (given_in,), (given_out,) = proto.graph.input, proto.graph.output
    assert (given_in.name, given_in.type.tensor_type.elem_type) == ("image", onnx.TensorProto.UINT8)
    assert (given_out.name, given_out.type.tensor_type.elem_type) == ("full_scores", onnx.TensorProto.FLOAT)
    assert [side.dim_value for side in given_in.type.tensor_type.shape.dim] == [1, *SIZE, 3]


@pytest.mark.parametrize("name", ["fcn8s-vgg16", "fcn8s-lite0"])
def test_every_kernel_is_a_constant_in_onnx_layout_and_the_big_ones_stay_in_keras(name):
    architecture = Architecture.parse(name)
    model = build_model(architecture, classes=5, size=SIZE, fc_channels=8)
    graph: Any = export_onnx(model, architecture.preprocessing, SIZE).graph
    convolutions = [node for node in graph if node.op_type in ("Conv", "ConvTranspose")]
    for node in convolutions:
        kernel = node.inputs[1].const_value
        assert isinstance(kernel, KerasWeight) == (kernel.nbytes > export.EMBED_LIMIT_BYTES), node.name
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Conv2DTranspose)
    assert len(convolutions) == sum(isinstance(layer, kinds) for layer in model.layers)
    assert sum(node.op_type == "Transpose" for node in graph) == 2  # of the image and of the scores, not of weights


def test_big_models_keep_their_weights_in_a_file_beside(monkeypatch, tmp_path):
    model = tiny_model()
    monkeypatch.setattr(export, "EMBED_LIMIT_BYTES", 0)
    constants: Any = export_onnx(model, RGB, SIZE).graph.initializers.values()
    weights_bytes = sum(value.const_value.nbytes for value in constants)
    monkeypatch.setattr(export, "INLINE_LIMIT_BYTES", weights_bytes)
    inline = save_onnx(export_onnx(model, RGB, SIZE), tmp_path / "inline.onnx")
    monkeypatch.setattr(export, "INLINE_LIMIT_BYTES", weights_bytes - 1)
    external = save_onnx(export_onnx(model, RGB, SIZE), tmp_path / "external.onnx")
    assert inline == [tmp_path / "inline.onnx"]
    assert external == [tmp_path / "external.onnx", tmp_path / "external.onnx.data"]
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in inline + external}
    onnx.checker.check_model(str(external[0]), full_check=True)
    locations = {
        entry.value
        for tensor in onnx.load(external[0], load_external_data=False).graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    assert locations == {"external.onnx.data"}
    np.testing.assert_array_equal(run(external[0], picture()), run(inline[0], picture()), strict=True)
    assert_equals_keras(external[0], model, RGB, picture())


def test_weights_are_read_when_the_graph_is_saved(monkeypatch, tmp_path):
    monkeypatch.setattr(export, "EMBED_LIMIT_BYTES", 0)
    model = tiny_model()
    graph = export_onnx(model, RGB, SIZE)
    model.get_layer("first").kernel.assign(2 * model.get_layer("first").kernel)
    save_onnx(graph, tmp_path / "tiny.onnx")
    assert_equals_keras(tmp_path / "tiny.onnx", model, RGB, picture())


def test_exporting_leaves_the_model_as_it_was():
    model = tiny_model()
    before = [np.asarray(variable.value) for variable in model.variables]
    export_onnx(model, RGB, SIZE)
    for variable, array in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(np.asarray(variable.value), array)


@st.composite
def layout_changes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[tuple[str, tuple[int, ...]], ...]]:
    """A shape of one to four sides, and up to three transposes and reshapes of it."""
    shape = start = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    changes = []
    for operation in draw(st.lists(st.sampled_from(["transpose", "reshape"]), max_size=3)):
        if operation == "transpose":
            argument = tuple(draw(st.permutations(range(len(shape)))))
            shape = tuple(shape[axis] for axis in argument)
        else:
            size = int(np.prod(shape))
            first = draw(st.sampled_from([side for side in range(1, size + 1) if size % side == 0]))
            argument = draw(st.sampled_from([(first, size // first), (first, 1, -1), (size,)]))
            shape = np.empty(shape).reshape(argument).shape
        changes.append((operation, argument))
    return start, tuple(changes)


@settings(max_examples=150, deadline=None)
@given(case=layout_changes(), slab_bytes=st.integers(1, 200))
def test_file_holds_the_same_bytes_as_the_array_at_every_slab_boundary(case, slab_bytes):
    shape, changes = case
    variable = keras.Variable(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    expected = np.asarray(variable.value)
    weight = KerasWeight(variable, "w")
    for operation, argument in changes:
        weight = weight.changed(operation, argument)
        expected = expected.transpose(argument) if operation == "transpose" else expected.reshape(argument)
    assert tuple(weight.shape) == expected.shape
    np.testing.assert_array_equal(weight.numpy(), expected, strict=True)
    file = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras_weight, "_SLAB_BYTES", slab_bytes)
        weight.tofile(file)
    assert file.getvalue() == np.ascontiguousarray(expected).tobytes() == weight.tobytes()


def test_slabs_are_no_bigger_than_asked(monkeypatch):
    class Recorder(io.BytesIO):
        written: list[int]

        def write(self, data) -> int:
            self.written.append(len(memoryview(data).cast("B")))
            return super().write(data)

    monkeypatch.setattr(keras_weight, "_SLAB_BYTES", 100)
    weight = KerasWeight(keras.Variable(np.zeros((10, 6), np.float32)), "w")  # rows of 24 bytes: four fit
    file = Recorder()
    file.written = []
    weight.tofile(file)
    assert file.written == [96, 96, 48]


class Bessel(keras.layers.Layer):
    """Stands for any layer whose operation ONNX does not have."""

    def call(self, x):
        import tensorflow as tf

        return tf.math.bessel_i0e(x)


class PythonCode(keras.layers.Layer):
    """Stands for any layer that is not a TensorFlow graph."""

    def call(self, x):
        import tensorflow as tf

        return tf.ensure_shape(tf.numpy_function(lambda array: array, [x], tf.float32), x.shape)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


@pytest.mark.parametrize(("layer", "operation"), [(Bessel, "BesselI0e"), (PythonCode, "PyFunc")])
def test_layer_without_an_onnx_form_is_refused_in_one_sentence(layer, operation):
    image = keras.Input((*SIZE, 3))
    model = keras.Model(image, layer()(keras.layers.Conv2D(2, 1)(image)), name="exotic")
    with pytest.raises(UserError) as caught:
        export_onnx(model, RGB, SIZE)
    message = str(caught.value)
    assert "exotic" in message
    assert operation in message
    assert "\n" not in message


def test_graph_reads_back_as_the_model_that_was_written(tmp_path):
    graph = export_onnx(tiny_model(), RGB, SIZE)
    save_onnx(graph, tmp_path / "tiny.onnx")
    again = ir.load(tmp_path / "tiny.onnx")
    assert [node.op_type for node in again.graph] == [node.op_type for node in graph.graph]
    assert again.graph.name == "tiny"
