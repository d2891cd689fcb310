"""MatConvNet networks: read as they are saved, by both versions of the file, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from fcnedge.build_engine.importers import matconvnet
from fcnedge.build_engine.importers.origin import ImportFlags, Origin, origin_of
from fcnedge.runtime.errors import UserError

SIZE = (64, 96)
PADDINGS = ("caffe", "same")


def origin(path: Path, **flags) -> Origin:
    return origin_of(path, ImportFlags(**flags))


def scores_of(path: Path, image: np.ndarray, **flags) -> np.ndarray:
    """(H, W, C) of the imported Keras model on an image (H, W, 3) uint8 BGR."""
    model, preprocessing = matconvnet.load(origin(path, **flags), image.shape[:2])
    return np.asarray(model(preprocessing.apply(image)[None])[0])


def assert_same_scores(scores, expected):
    assert scores.shape == expected.shape
    assert np.abs(scores - expected).max() < 1e-5 * np.ptp(expected)


# --- numbers


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("stride", [32, 16, 8])
def test_published_network_gives_the_scores_of_an_independent_forward_pass(stride, padding, dagnn, tmp_path):
    image = dagnn.blobs(SIZE)
    dag = dagnn.published(stride)
    path = dagnn.write_v7(tmp_path / "net.mat", dag)
    expected = dagnn.forward(
        dag if padding == "caffe" else dagnn.same_padded(dag), image[..., ::-1] - np.array(dagnn.MEAN_RGB)
    )
    assert_same_scores(scores_of(path, image, padding=padding), expected)


def test_without_a_flag_it_is_padded_as_published(dagnn, tmp_path):
    image = dagnn.blobs(SIZE)
    path = dagnn.write_v7(tmp_path / "net.mat", dagnn.published(16))
    np.testing.assert_array_equal(scores_of(path, image), scores_of(path, image, padding="caffe"))
    assert np.abs(scores_of(path, image) - scores_of(path, image, padding="same")).max() > 0


@pytest.mark.parametrize("crops", [((3, 5), (7, 8), (29, 33)), ((90, 0), (0, 90), (31, 500))])
def test_asymmetric_crops_and_crops_beyond_what_is_there(crops, dagnn, tmp_path):
    image = dagnn.blobs((96, 64))
    dag = dagnn.published(8, crops=crops)
    expected = dagnn.forward(dag, image[..., ::-1] - np.array(dagnn.MEAN_RGB))
    assert_same_scores(scores_of(dagnn.write_v7(tmp_path / "net.mat", dag), image), expected)


@pytest.mark.parametrize("spelling", ["f b", "_filter _bias"])
@pytest.mark.parametrize("kind", ["v7", "compressed", "in a struct", "v7.3"])
def test_every_way_to_save_a_network_reads_the_same(kind, spelling, dagnn, tmp_path):
    image = dagnn.blobs((32, 32))
    dag = dagnn.published(32, spelling=spelling, channels=(3, 3, 4, 4, 5, 6))
    if kind == "v7.3":
        path = dagnn.write_v73(tmp_path / "net.mat", dag)
    else:
        inside = "net" if kind == "in a struct" else None
        path = dagnn.write_v7(tmp_path / "net.mat", dag, compressed=kind == "compressed", inside=inside)
    facts = matconvnet.describe(origin(path))
    assert (facts.arch, facts.classes, facts.class_count) == ("matconvnet fcn32s", dagnn.NAMES, 4)
    expected = dagnn.forward(dag, image[..., ::-1] - np.array(dagnn.MEAN_RGB))
    assert_same_scores(scores_of(path, image), expected)


def test_network_of_the_toolbox_with_grouped_kernels_and_a_loss(dagnn, tmp_path):
    image = dagnn.blobs(SIZE)
    dag = dagnn.toolbox()
    path = dagnn.write_v7(tmp_path / "net-epoch-50.mat", dag, inside="net")
    facts = matconvnet.describe(origin(path))
    assert (facts.arch, facts.classes, facts.class_count) == ("matconvnet fcn8s", None, 4)
    expected = dagnn.forward(dag, image[..., ::-1] - np.array(dagnn.MEAN_RGB))
    assert_same_scores(scores_of(path, image), expected)
    np.testing.assert_array_equal(scores_of(path, image, padding="same"), scores_of(path, image))


def test_softmax_dropout_and_a_biased_deconvolution(dagnn, tmp_path):
    image = dagnn.blobs((32, 32))
    dag = dagnn.published(16, channels=(3, 3, 4, 4, 5, 6), learned=True)
    kind, name, inputs, output, _, block = next(each for each in dag.layers if each[1] == "upsample")
    dag.params["upsampleb"] = dagnn.Random(5).bias(4)
    place = next(index for index, each in enumerate(dag.layers) if each[1] == "upsample")
    dag.layers[place] = (kind, name, inputs, output, ["upsamplef", "upsampleb"], block | {"hasBias": True})
    dag.add("DropOut", "drop", "prediction", "dropped", rate=0.5)
    dag.add("SoftMax", "prob", "dropped", "prob")
    expected = dagnn.forward(dag, image[..., ::-1] - np.array(dagnn.MEAN_RGB))
    np.testing.assert_allclose(expected.sum(-1), 1)
    # probabilities of scores some hundreds apart: their error is the scores', as a share of their range
    found = scores_of(dagnn.write_v7(tmp_path / "net.mat", dag), image)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_output_may_be_chosen_by_name_of_value_or_layer(dagnn, tmp_path):
    dag = dagnn.published(32, channels=(3, 3, 4, 4, 5, 6))
    dag.add("SoftMax", "prob", "prediction", "probability")
    dag.add("ReLU", "other", "prediction", "rectified")
    path = dagnn.write_v7(tmp_path / "net.mat", dag)
    image = dagnn.blobs((32, 32))
    with pytest.raises(
        UserError, match=r"has the outputs probability, rectified; choose the scores with --output-name"
    ):
        scores_of(path, image)
    found = scores_of(path, image, output_name="other")
    np.testing.assert_array_equal(found, scores_of(path, image, output_name="rectified"))
    assert found.min() == 0
    with pytest.raises(UserError, match=r"has no output nothing; its last is rectified"):
        scores_of(path, image, output_name="nothing")


# --- meta


@pytest.mark.parametrize(
    ("mean", "told"),
    [
        (np.reshape([3.0, 2.0, 1.0], (1, 1, 3)), False),
        (np.array([[3.0], [2.0], [1.0]]), False),
        (np.broadcast_to([3.0, 2.0, 1.0], (5, 4, 3)).astype(np.float32), False),
        (np.stack([np.full((2, 2), 3.0), np.full((2, 2), 2.0), np.array([[0.0, 2.0], [1.0, 1.0]])], axis=2), True),
    ],
)
def test_average_image_becomes_the_mean_per_channel(mean, told, dagnn, tmp_path, caplog):
    dag = dagnn.published(32, channels=(1,) * 6)
    dag.meta["normalization"]["averageImage"] = mean
    path = dagnn.write_v7(tmp_path / "net.mat", dag)
    with caplog.at_level("INFO", logger="fcnedge.build_engine.importers"):
        _, preprocessing = matconvnet.read_graph(origin(path))
    assert (preprocessing.channel_order, preprocessing.mean) == ("rgb", (3.0, 2.0, 1.0))
    assert [("by up to 1.0 from the colour" in message) for message in caplog.messages] == [True] * told


def test_flags_overrule_the_file(dagnn, tmp_path):
    path = dagnn.write_v7(tmp_path / "net.mat", dagnn.published(32, channels=(1,) * 6))
    flags = {"mean": (1.0, 2.0, 3.0), "channel_order": "bgr", "scale": (0.5, 0.25, 0.125)}
    _, preprocessing = matconvnet.load(origin(path, **flags), (32, 32))
    assert preprocessing.channel_order == "bgr"
    assert (preprocessing.mean, preprocessing.scale) == ((3.0, 2.0, 1.0), (0.125, 0.25, 0.5))


def test_file_without_a_mean_says_so(dagnn, tmp_path, caplog):
    dag = dagnn.published(32, channels=(1,) * 6)
    dag.meta = {}
    path = dagnn.write_v7(tmp_path / "net.mat", dag)
    with caplog.at_level("INFO", logger="fcnedge.build_engine.importers"):
        _, preprocessing = matconvnet.read_graph(origin(path))
    assert preprocessing.mean == (0.0, 0.0, 0.0)
    assert caplog.messages == ["net.mat has no mean, so none is subtracted; set it with --mean."]


def test_names_of_another_number_of_classes_are_not_the_networks(dagnn, tmp_path):
    """A network fine-tuned from a classifier keeps the classifier's meta."""
    dag = dagnn.published(32, channels=(1,) * 6)
    dag.meta["classes"]["description"] = dagnn.cell([f"class of ImageNet {index}" for index in range(1000)])
    facts = matconvnet.describe(origin(dagnn.write_v7(tmp_path / "net.mat", dag)))
    assert (facts.classes, facts.class_count) == (None, 4)


def test_weights_are_not_read_to_describe_a_file(dagnn, tmp_path):
    dag = dagnn.published(8)
    dag.params = {"other": np.ones((1, 1))}
    path = dagnn.write_v7(tmp_path / "net.mat", dag)
    # size is told for each layer but those without: score layers of this file have one, too
    assert matconvnet.describe(origin(path)).class_count == 4


# --- what is refused


def refusal(path: Path, **flags) -> str:
    """The sentence that loading the file ends in."""
    with pytest.raises(UserError) as caught:
        matconvnet.load(origin(path, **flags), (32, 32))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x00" * 600, b"PK\x03\x04" + b"\x00" * 600, b"\x80\x04\x95" * 300]
)
def test_what_is_not_a_mat_file(content, tmp_path):
    path = tmp_path / "net.mat"
    path.write_bytes(content)
    expected = f"{path} is not a .mat file: it does not begin as MATLAB's files do; check what it is."
    assert refusal(path) == expected
    with pytest.raises(UserError, match=r"is not a \.mat file"):
        matconvnet.describe(origin(path))


@pytest.mark.parametrize("version", ["v7", "compressed", "v7.3"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_file(version, share, dagnn, tmp_path):
    dag = dagnn.published(32, channels=(3, 3, 4, 4, 5, 6))
    path = tmp_path / "net.mat"
    if version == "v7.3":
        dagnn.write_v73(path, dag)
    else:
        dagnn.write_v7(path, dag, compressed=version == "compressed")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    message = refusal(path)
    assert "is a damaged .mat file" in message or "holds no MatConvNet network" in message or "is missing" in message


def test_simplenn_classifier_is_said_to_be_one(dagnn, tmp_path):
    import scipy.io

    layers = dagnn.cell(
        [{"type": "conv", "name": "conv1", "weights": dagnn.cell([np.ones((3, 3)), np.ones((1, 3))])}] * 2
    )
    path = tmp_path / "imagenet-vgg-verydeep-16.mat"
    scipy.io.savemat(path, {"layers": layers, "meta": {"classes": {}}})
    assert "is a SimpleNN network, a classifier; only DagNN segmentation networks" in refusal(path)


@pytest.mark.parametrize("variables", [{"x": np.eye(3)}, {"layers": np.eye(3)}, {"net": np.eye(2)}, {"layers": "a"}])
def test_mat_file_of_something_else(variables, tmp_path):
    import scipy.io

    path = tmp_path / "data.mat"
    scipy.io.savemat(path, variables)
    assert "holds no MatConvNet network" in refusal(path)


def test_missing_parameter_is_named(dagnn, tmp_path):
    dag = dagnn.published(32)
    del dag.params["fc6f"]
    message = refusal(dagnn.write_v7(tmp_path / "net.mat", dag))
    assert "the layer fc6 cannot be read: its parameter fc6f is missing from params." in message


def changed(dag, name, **block):
    """`dag` with other settings of one layer."""
    place = next(index for index, layer in enumerate(dag.layers) if layer[1] == name)
    layer = dag.layers[place]
    dag.layers[place] = (*layer[:5], layer[5] | block)
    return dag


@pytest.mark.parametrize(
    ("layer", "block", "words"),
    [
        ("conv1_2", {"size": np.array([[3.0, 3, 4, 7]])}, "conv1_2f are (3, 3, 4, 4), its size says (3, 3, 4, 7)"),
        ("conv1_2", {"pad": np.ones((1, 3))}, "pad has 3 numbers, expected 1, 2 or 4"),
        ("conv1_2", {"pad": 0.5}, "pad is array([[0.5]]), expected whole numbers"),
        ("conv1_2", {"pad": "wide"}, "pad is 'wide', expected whole numbers"),
        ("conv1_2", {"stride": np.ones((1, 4))}, "stride has 4 numbers, expected 1 or 2"),
        ("pool1", {"method": "median"}, "its method is median, expected max or avg"),
        ("score_fr", {"hasBias": True, "size": np.zeros((0, 0))}, None),
        ("upsample", {"hasBias": True}, "it names no parameter for its bias"),
        ("upsample", {"numGroups": 4.0}, "in 4 group(s) take 4 channels"),
        ("upsample", {"crop": 500.0}, "its crop (500, 500, 500, 500) leaves nothing of"),
        ("conv1_2", {"pad": -1.0}, "its pads is (-1, -1, -1, -1), expected 0 to 1048576"),
        ("conv1_2", {"stride": 0.0}, "its stride is (0, 0), expected 1 to 1048576"),
        ("conv1_2", {"dilate": 0.0}, "its dilation is (0, 0), expected 1"),
        ("conv1_2", {"size": np.full((1, 4), -1.0)}, "conv1_2f are (3, 3, 4, 4), its size says (-1, -1, -1, -1)"),
        ("conv1_2", {"pad": np.array([[np.ones((1, 2)), "x"]], object)}, "pad is [array([[1., 1.]]), 'x'], expected"),
        ("conv1_2", {"hasBias": "yes"}, "hasBias is 'yes', expected true or false"),
        ("relu1_1", {"leak": -1.0}, "leak is array([[-1.]]), expected a number from 0 up"),
        ("relu1_1", {"leak": "a"}, "leak is 'a', expected a number from 0 up"),
        ("pool1", {"stride": 0.0}, "its stride is (0, 0), expected 1"),
        ("pool1", {"poolSize": np.zeros((1, 2))}, "its kernel is (0, 0), expected 1"),
        ("pool1", {"method": np.eye(40)}, "its method is array([[1., 0., 0."),
        ("upsample", {"upsample": 0.0}, "its stride is (0, 0), expected 1"),
        ("upsample", {"numGroups": 0.0}, "its groups is 0, expected 1"),
        ("upsample", {"crop": -1.0}, "its crop is (-1, -1, -1, -1), expected 0"),
        ("score_crop", {"crop": -1.0}, "its before is (-1, -1), expected 0"),
    ],
)
def test_settings_that_make_no_sense_are_named(layer, block, words, dagnn, tmp_path):
    dag = changed(dagnn.published(32, channels=(4, 3, 3, 3, 3, 3)), layer, **block)
    path = dagnn.write_v7(tmp_path / "net.mat", dag)
    if words is None:
        matconvnet.load(origin(path), (32, 32))
    elif block.get("numGroups") == 4:
        # four groups of filters that are (h, w, 4, 4) each give 16 channels, and Crop keeps them: 16 classes
        model, _ = matconvnet.load(origin(path), (32, 32))
        assert model.output_shape[-1] == 16
    else:
        message = refusal(path)
        assert words in message
        assert f"the layer {layer} " in message


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("conv2_1f", (3, 3, 3, 4), "the layer conv2_1 "),
        ("fc7b", (7, 1), "its bias fc7b has 7 numbers for 3 channels"),
        ("conv1_1b", (0, 0), "its parameter conv1_1b holds no numbers"),
    ],
)
def test_shapes_that_disagree_are_both_given(name, shape, words, dagnn, tmp_path):
    dag = dagnn.published(32, channels=(4, 3, 3, 3, 3, 3))
    dag.params[name] = np.ones(shape, np.float32)
    message = refusal(dagnn.write_v7(tmp_path / "net.mat", dag))
    assert words in message
    if name == "conv2_1f":
        assert "(3, 3, 3, 4)" in message
        assert "(3, 3, 4, 3)" in message


def test_channels_that_do_not_connect_are_both_given(dagnn, tmp_path):
    dag = changed(dagnn.published(32, channels=(4, 3, 3, 3, 3, 3)), "conv2_1", size=np.zeros((0, 0)))
    dag.params["conv2_1f"] = np.ones((3, 3, 3, 3), np.float32)
    message = refusal(dagnn.write_v7(tmp_path / "net.mat", dag))
    assert "the layer conv2_1 does not fit into its network: its filters (3, 3, 3, 3) take 3 channels" in message
    assert "its input has 4" in message


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("inputs", 3.0, "holds a layer whose inputs is no text; save the network again"),
        ("params", [np.eye(2)], "holds a layer whose params is no text"),
        ("inputs", [], "the layer conv1_1 cannot be built: it reads nothing, expected 1 or more inputs"),
        ("outputs", [], "the layer conv1_1 has 0 outputs, expected one"),
        ("type", np.eye(2), "holds a layer whose type is no text"),
    ],
)
def test_connections_that_are_no_names(field, value, words, dagnn, tmp_path):
    import scipy.io

    path = dagnn.write_v7(tmp_path / "net.mat", dagnn.published(32))
    net = {name: value for name, value in scipy.io.loadmat(path).items() if not name.startswith("__")}
    net["layers"][field][0, 0] = dagnn.cell(value) if isinstance(value, list) else value
    scipy.io.savemat(path, net)
    assert words in refusal(path)


def test_network_of_grey_pictures_is_not_taken_for_groups(dagnn, tmp_path):
    dag = changed(dagnn.published(32, channels=(4, 3, 3, 3, 3, 3)), "conv1_1", size=np.array([[3.0, 3, 1, 4]]))
    dag.params["conv1_1f"] = dag.params["conv1_1f"][:, :, :1]
    message = refusal(dagnn.write_v7(tmp_path / "net.mat", dag))
    assert "its filters (3, 3, 1, 4) take 1 channels in 1 group(s), its input has 3." in message


def test_unknown_layer_is_named_with_what_is_known(dagnn, tmp_path):
    dag = dagnn.published(32)
    dag.add("LRN", "norm", "prediction", "normed")
    message = refusal(dagnn.write_v7(tmp_path / "net.mat", dag))
    assert "the layer norm is a dagnn.LRN, which fcnedge cannot read; it reads Conv, ConvTranspose, Pooling" in message


def test_network_that_reads_two_pictures(dagnn, tmp_path):
    dag = dagnn.published(32)
    dag.add("Sum", "sum", "prediction depth", "out")
    assert "net.mat reads data, depth where one picture is expected" in refusal(
        dagnn.write_v7(tmp_path / "net.mat", dag)
    )


def test_network_without_its_last_crop(dagnn, tmp_path):
    dag = dagnn.published(32)
    dag.layers.pop()
    message = refusal(dagnn.write_v7(tmp_path / "net.mat", dag))
    assert "gives scores of " in message
    assert "for a picture of 32x32; fcnedge needs one score per pixel." in message


def test_hdf5_without_h5py_names_the_extra(dagnn, tmp_path, monkeypatch):
    path = dagnn.write_v73(tmp_path / "net.mat", dagnn.published(32, channels=(1,) * 6))
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert refusal(path) == (
        "h5py, which reads .mat files of version 7.3, is not installed; install it with: pip install 'fcnedge[import]'"
    )


@pytest.mark.parametrize("kind", ["external link", "soft link", "external storage"])
def test_hdf5_file_reads_nothing_outside_itself(kind, dagnn, tmp_path):
    import h5py

    other = dagnn.write_v73(tmp_path / "other.mat", dagnn.published(32, channels=(1,) * 6))
    path = dagnn.write_v73(tmp_path / "net.mat", dagnn.published(32, channels=(1,) * 6))
    with h5py.File(path, "r+") as file:
        del file["meta"]
        if kind == "external link":
            file["meta"] = h5py.ExternalLink(str(other), "/meta")
        elif kind == "soft link":
            file["meta"] = h5py.SoftLink("/params")
        else:
            file.create_dataset("meta", (9,), "u1", external=[(str(other), 0, 9)])
    assert "takes meta from another place, which MATLAB does not do; save it as one file." in refusal(path)


def test_function_handle_is_not_data(tmp_path, dagnn):
    """As h5py finds them: a class that holds no numbers."""
    import h5py

    path = dagnn.write_v73(tmp_path / "net.mat", dagnn.published(32, channels=(1,) * 6))
    with h5py.File(path, "r+") as file:
        file["meta"].create_dataset("handle", data=np.zeros(3)).attrs["MATLAB_class"] = np.bytes_("function_handle")
    assert (
        "holds a value of class function_handle, which only MATLAB can read; save the network as a struct"
        in refusal(path)
    )
