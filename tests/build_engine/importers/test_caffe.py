"""Caffe snapshots, written by Google's protobuf from a definition of caffe.proto's own numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from fcnedge.build_engine.importers import caffe
from fcnedge.build_engine.importers.origin import ImportFlags, Origin, origin_of
from fcnedge.runtime.errors import UserError

SIZE = (64, 96)
MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)
CROPS = {"crop3": 5, "crop2": 9, "score_crop": {8: 31, 16: 27, 32: 19}}
V1_NUMBERS = {
    "Convolution": 4, "Deconvolution": 39, "Pooling": 17, "ReLU": 18, "Eltwise": 25, "Crop": 40, "Split": 22,
    "Data": 5, "SoftmaxWithLoss": 21,
}  # fmt: skip

# name: (number, type, repeated, packed) of every field that the tests write
MESSAGES: dict[str, dict[str, tuple]] = {
    "BlobShape": {"dim": (1, "int64", True, True)},
    "BlobProto": {
        "shape": (7, "BlobShape"), "data": (5, "float", True, True), "double_data": (8, "double", True, True),
        "num": (1, "int64"), "channels": (2, "int64"), "height": (3, "int64"), "width": (4, "int64"),
    },
    "UnpackedBlob": {"shape": (7, "BlobShape"), "data": (5, "float", True, False)},
    "ConvolutionParameter": {
        "num_output": (1, "uint64"), "bias_term": (2, "bool"), "pad": (3, "uint64", True),
        "kernel_size": (4, "uint64", True), "stride": (6, "uint64", True), "group": (5, "uint64"),
        "pad_h": (9, "uint64"), "pad_w": (10, "uint64"), "dilation": (18, "uint64", True),
    },
    "PoolingParameter": {"pool": (1, "int64"), "kernel_size": (2, "uint64"), "stride": (3, "uint64")},
    "EltwiseParameter": {"operation": (1, "int64"), "coeff": (2, "float", True)},
    "CropParameter": {"axis": (1, "int64"), "offset": (2, "uint64", True)},
    "ScaleParameter": {"axis": (1, "int64"), "bias_term": (4, "bool")},
    "ReLUParameter": {"negative_slope": (1, "float")},
    "LayerParameter": {
        "name": (1, "string"), "type": (2, "string"), "bottom": (3, "string", True), "top": (4, "string", True),
        "blobs": (7, "BlobProto", True), "convolution_param": (106, "ConvolutionParameter"),
        "pooling_param": (121, "PoolingParameter"), "eltwise_param": (110, "EltwiseParameter"),
        "crop_param": (144, "CropParameter"), "relu_param": (123, "ReLUParameter"),
        "scale_param": (142, "ScaleParameter"),
    },
    "V1LayerParameter": {
        "bottom": (2, "string", True), "top": (3, "string", True), "name": (4, "string"), "type": (5, "int64"),
        "blobs": (6, "BlobProto", True), "convolution_param": (10, "ConvolutionParameter"),
        "pooling_param": (19, "PoolingParameter"),
    },
    "NetParameter": {
        "name": (1, "string"), "layer": (100, "LayerParameter", True), "layers": (2, "V1LayerParameter", True),
    },
}  # fmt: skip


def _types() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="caffe_for_tests.proto", package="caffe_for_tests", syntax="proto2")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, *more) in fields.items():
            made = message.field.add(name=field, number=number, label=3 if more and more[0] else 1)
            if kind in MESSAGES:
                made.type, made.type_name = made.TYPE_MESSAGE, f".caffe_for_tests.{kind}"
            else:
                made.type = getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{kind.upper()}")
            if len(more) > 1:
                made.options.packed = more[1]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = {name: pool.FindMessageTypeByName(f"caffe_for_tests.{name}") for name in MESSAGES}
    return {name: message_factory.GetMessageClass(descriptor) for name, descriptor in names.items()}


CAFFE = _types()


def origin(path: Path, **flags) -> Origin:
    return origin_of(path, ImportFlags(**flags))


def as_caffe(dag, stride: int, *, v1: bool = False, training: bool = False) -> Any:
    """A NetParameter of the network: ReLU in place, offsets in Crop's settings (V1: none); training: data and loss."""
    net = CAFFE["NetParameter"](name="FCN")
    last = {output for _, _, _, output, _, _ in dag.layers}
    tops: dict[str, str] = {}

    def add(kind: str, name: str, bottoms: list[str], outputs: list[str]) -> Any:
        layer = net.layers.add(type=V1_NUMBERS[kind]) if v1 else net.layer.add(type=kind)
        layer.name = name
        layer.bottom.extend(tops.get(bottom, bottom) for bottom in bottoms)
        layer.top.extend(outputs)
        return layer

    if training:
        add("Data", "data", [], ["data", "label"])
        add("Split", "label_split", ["label"], ["label_0", "label_1"])
        add("Split", "data_split", ["data"], ["data_0", "data_1"])
        tops["data"] = "data_1"
    for kind, name, inputs, output, params, block in dag.layers:
        arrays = [dag.params[each] for each in params]
        if kind in ("dagnn.Conv", "dagnn.ConvTranspose"):
            made = add("Convolution" if kind == "dagnn.Conv" else "Deconvolution", name, inputs, [output])
            for array in arrays:
                values = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.reshape(-1)
                write_blob(made.blobs.add(), values, v1=v1)
            settings = made.convolution_param
            settings.num_output, settings.bias_term = arrays[0].shape[3 if kind == "dagnn.Conv" else 2], len(arrays) > 1
            settings.kernel_size.append(arrays[0].shape[0])
            if name == "conv1_1":
                settings.pad_h = settings.pad_w = 100
            elif kind == "dagnn.Conv":
                settings.pad.append(int(np.ravel(block["pad"])[0]))
            else:
                settings.stride.append(int(block["upsample"][0, 0]))
        elif kind == "dagnn.ReLU":
            add("ReLU", name, inputs, [tops.get(inputs[0], inputs[0])])  # in place
            tops[output] = tops.get(inputs[0], inputs[0])
        elif kind == "dagnn.Pooling":
            settings = add("Pooling", name, inputs, [output]).pooling_param
            settings.pool, settings.kernel_size, settings.stride = 0, 2, 2
        elif kind == "dagnn.Sum":
            add("Eltwise", name, inputs, [output])
        else:
            assert kind == "dagnn.Crop"
            made = add("Crop", name, inputs, [output])
            if not v1:
                offset = CROPS[name] if name != "score_crop" else CROPS[name][stride]
                made.crop_param.axis = 2
                made.crop_param.offset.append(offset)
    if training:
        add("Split", "prediction_split", ["prediction"], ["prediction_0", "prediction_1"])
        add("SoftmaxWithLoss", "loss", ["prediction_0", "label_0"], ["loss"])
        add("SoftmaxWithLoss", "other_loss", ["prediction_1", "label_1"], ["other_loss"])
    assert "prediction" in last
    return net


def write_blob(blob: Any, values: np.ndarray, *, v1: bool) -> None:
    if v1:
        shape = (1,) * (4 - values.ndim) + values.shape
        blob.num, blob.channels, blob.height, blob.width = shape
    else:
        blob.shape.dim.extend(values.shape)
    blob.data.extend(np.ascontiguousarray(values).ravel().tolist())


def scores_of(path: Path, image: np.ndarray, **flags) -> np.ndarray:
    model, preprocessing = caffe.load(origin(path, **flags), image.shape[:2])
    return np.asarray(model(preprocessing.apply(image)[None])[0])


def published(dagnn, stride: int, **options):
    """The network, with the crops that its authors published for its stride."""
    last = CROPS["score_crop"][stride]
    return dagnn.published(stride, crops=((5, 5), (9, 9), (last, last)), **options)


def assert_same_scores(scores, expected):
    assert scores.shape == expected.shape
    assert np.abs(scores - expected).max() < 1e-5 * np.ptp(expected)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("v1", [False, True])
@pytest.mark.parametrize("stride", [32, 16, 8])
def test_snapshot_gives_the_scores_of_an_independent_forward_pass(stride, v1, training, dagnn, tmp_path):
    """V1 files say no offsets: they must come out as those that the authors published later."""
    image = dagnn.blobs(SIZE)
    dag = published(dagnn, stride)
    path = tmp_path / "fcn.caffemodel"
    path.write_bytes(as_caffe(dag, stride, v1=v1, training=training).SerializeToString())
    facts = caffe.describe(origin(path))
    assert (facts.arch, facts.classes, facts.class_count) == (f"caffe fcn{stride}s", None, 4)
    assert_same_scores(scores_of(path, image), dagnn.forward(dag, image - np.array(MEAN_BGR)))
    same = dagnn.forward(dagnn.same_padded(dag), image - np.array(MEAN_BGR))
    assert_same_scores(scores_of(path, image, padding="same"), same)


def test_mean_of_the_published_networks_is_taken_and_told(dagnn, tmp_path, caplog):
    path = tmp_path / "fcn.caffemodel"
    path.write_bytes(as_caffe(published(dagnn, 32, channels=(1,) * 6), 32).SerializeToString())
    with caplog.at_level("INFO", logger="fcnedge.build_engine.importers"):
        _, preprocessing = caffe.load(origin(path), (32, 32))
    assert (preprocessing.channel_order, preprocessing.mean) == ("bgr", MEAN_BGR)
    assert "that of the published FCNs is subtracted; set another with --mean" in caplog.text
    caplog.clear()
    _, preprocessing = caffe.load(origin(path, mean=(1.0, 2.0, 3.0)), (32, 32))
    assert (preprocessing.mean, caplog.messages) == ((3.0, 2.0, 1.0), [])


def small(**settings) -> Any:
    """data → one convolution (3 → 2 filters) → what the test adds."""
    net = CAFFE["NetParameter"]()
    layer = net.layer.add(name="score", type="Convolution", bottom=["data"], top=["score"])
    rng = np.random.default_rng(0)
    write_blob(layer.blobs.add(), rng.normal(size=(2, 3, 3, 3)).astype(np.float32), v1=False)
    write_blob(layer.blobs.add(), np.array([0.5, -0.5], np.float32), v1=False)
    layer.convolution_param.pad.append(1)
    for name, value in settings.items():
        getattr(layer.convolution_param, name).append(value) if name != "group" else setattr(
            layer.convolution_param, name, value
        )
    return net


def test_scale_slope_dropout_and_doubles(dagnn, tmp_path):
    net = small()
    doubles = np.array(net.layer[0].blobs[0].data, np.float64)
    net.layer[0].blobs[0].data[:] = []
    net.layer[0].blobs[0].double_data.extend(doubles)
    scale = net.layer.add(name="scale", type="Scale", bottom=["score"], top=["scaled"])
    write_blob(scale.blobs.add(), np.array([2.0, 3.0], np.float32), v1=False)
    write_blob(scale.blobs.add(), np.array([1.0, -1.0], np.float32), v1=False)
    scale.scale_param.bias_term = True
    net.layer.add(name="drop", type="Dropout", bottom=["scaled"], top=["scaled"])
    relu = net.layer.add(name="relu", type="ReLU", bottom=["scaled"], top=["scaled"])
    relu.relu_param.negative_slope = 0.25
    path = tmp_path / "n.caffemodel"
    path.write_bytes(net.SerializeToString())
    image = dagnn.blobs((8, 9))
    filters = doubles.reshape(2, 3, 3, 3).transpose(2, 3, 1, 0)
    dag = dagnn.Dag(params={"f": filters, "b": np.array([0.5, -0.5])})
    dag.add("Conv", "score", "data", "score", "f b", pad=1)
    expected = dagnn.forward(dag, image - np.array(MEAN_BGR)) * [2, 3] + [1, -1]
    assert_same_scores(scores_of(path, image), np.where(expected > 0, expected, expected / 4))


def test_floats_that_are_not_packed(dagnn, tmp_path):
    """As other writers of protocol buffers leave them."""
    net = small()
    packed = net.layer[0].blobs[1].SerializeToString()
    unpacked = CAFFE["UnpackedBlob"](data=net.layer[0].blobs[1].data)
    unpacked.shape.dim.append(2)
    data = net.SerializeToString()
    grown = unpacked.SerializeToString()
    assert grown != packed
    layer = net.layer[0].SerializeToString()
    swapped = layer.replace(bytes([7 << 3 | 2, len(packed)]) + packed, bytes([7 << 3 | 2, len(grown)]) + grown)
    assert swapped != layer
    path, other = tmp_path / "a.caffemodel", tmp_path / "b.caffemodel"
    path.write_bytes(data)
    length = len(swapped)
    other.write_bytes(b"\xa2\x06" + bytes([length & 0x7F | 0x80, length >> 7]) + swapped)  # field 100
    image = dagnn.blobs((8, 9))
    np.testing.assert_array_equal(scores_of(other, image), scores_of(path, image))


def test_pads_of_columns_alone(tmp_path):
    """Caffe: either of pad_h and pad_w is enough, and the other is 0."""
    net = small()
    net.layer[0].blobs[0].shape.dim[:] = [2, 3, 1, 3]
    del net.layer[0].blobs[0].data[18:]
    net.layer[0].convolution_param.pad[:] = []
    net.layer[0].convolution_param.pad_w = 1
    path = tmp_path / "n.caffemodel"
    path.write_bytes(net.SerializeToString())
    model, _ = caffe.load(origin(path), (8, 9))
    assert model.output_shape == (None, 8, 9, 2)


# --- what is refused


def refusal(path: Path, size=(32, 32)) -> str:
    with pytest.raises(UserError) as caught:
        caffe.load(origin(path), size)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("content", [b"", b"hello world", b"\x00" * 100, b"\xff" * 100, b"PK\x03\x04" * 20])
def test_what_is_not_a_caffemodel(content, tmp_path):
    path = tmp_path / "n.caffemodel"
    path.write_bytes(content)
    message = refusal(path)
    assert "is not a .caffemodel file" in message or "cannot be read" in message or "holds no Caffe network" in message


@pytest.mark.parametrize("share", [0.2, 0.7, 0.99])
def test_truncated_snapshot(share, tmp_path):
    path = tmp_path / "n.caffemodel"
    data = small().SerializeToString()
    path.write_bytes(data[: int(share * len(data))])
    assert "is not a .caffemodel file, or a damaged one (field 100 has" in refusal(path)


def test_classifier_is_said_to_be_one(tmp_path):
    net = small()
    net.layer.add(name="fc8", type="InnerProduct", bottom=["score"], top=["fc8"])
    path = tmp_path / "n.caffemodel"
    path.write_bytes(net.SerializeToString())
    assert "has the fully connected layer fc8, as classifiers have; only FCNs are read." in refusal(path)


def add_lrn(net: Any) -> None:
    net.layer.add(name="norm", type="LRN", bottom=["score"], top=["n"])


def add_maximum(net: Any) -> None:
    layer = net.layer.add(name="e", type="Eltwise", bottom=["score", "score"], top=["n"])
    layer.eltwise_param.operation = 2


def lose_the_bias(net: Any) -> None:
    net.layer[0].blobs.pop()


def lose_a_number(net: Any) -> None:
    net.layer[0].blobs[0].data.pop()


def tell_another_shape(net: Any) -> None:
    net.layer[0].blobs[1].shape.dim[0] = 3


def tell_other_groups(net: Any) -> None:
    net.layer[0].convolution_param.group = 3


def tell_three_pads(net: Any) -> None:
    net.layer[0].convolution_param.pad.extend([1, 1])


def tell_no_step(net: Any) -> None:
    net.layer[0].convolution_param.stride.append(0)


def tell_endless_pads(net: Any) -> None:
    net.layer[0].convolution_param.pad[:] = []
    net.layer[0].convolution_param.pad_h, net.layer[0].convolution_param.pad_w = 1, 1 << 40


def crop_to_nothing(net: Any) -> None:
    net.layer.add(name="crop", type="Crop", bottom=["score"], top=["cropped"])


def tell_another_pad(net: Any) -> None:
    net.layer[0].convolution_param.pad.append(0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (add_lrn, "the layer norm is a LRN; fcnedge reads Convolution, Deconvolution"),
        (add_maximum, "only plain sums are read"),
        (lose_the_bias, "the layer score cannot be read: it holds 1 weights, expected 2"),
        (lose_a_number, "a weight has 53 numbers, its shape (2, 3, 3, 3) needs 54"),
        (tell_another_shape, "a weight has 2 numbers, its shape (3,) needs 3"),
        (tell_other_groups, "take 9 channels in 3 group(s), its input has 3"),
        (tell_no_step, "the layer score cannot be built: its stride is (0, 0), expected 1 to 1048576"),
        (tell_endless_pads, "its pads is (1, 1, 1099511627776, 1099511627776), expected 0 to"),
        (crop_to_nothing, "the layer crop cannot be built: it reads score, expected 2 or more inputs"),
        (tell_three_pads, "a setting has 3 numbers for rows and columns"),
        (tell_another_pad, "gives scores of 30x32 pixels for a picture of 32x32"),
    ],
)
def test_settings_that_make_no_sense_are_named(change, words, tmp_path):
    net = small()
    change(net)
    path = tmp_path / "n.caffemodel"
    path.write_bytes(net.SerializeToString())
    assert words in refusal(path)


def test_crop_that_cannot_align_its_inputs(tmp_path):
    net = small()
    pool = net.layer.add(name="pool", type="Pooling", bottom=["score"], top=["pooled"])
    pool.pooling_param.kernel_size = pool.pooling_param.stride = 2
    net.layer.add(name="crop", type="Crop", bottom=["score", "pooled"], top=["cropped"])
    path = tmp_path / "n.caffemodel"
    path.write_bytes(net.SerializeToString())
    assert "the crop crop cannot align its inputs: pixels 1 apart" in refusal(path)
