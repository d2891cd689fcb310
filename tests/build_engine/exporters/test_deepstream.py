from __future__ import annotations

import configparser
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fcnedge.build_engine.bundle_writer import file_specs, write_manifest

# https://docs.nvidia.com/metropolis/deepstream/dev-guide/sdk-api/gstnvinfer__property__parser_8h_source.html and
# https://docs.nvidia.com/metropolis/deepstream/dev-guide/text/DS_plugin_gst-nvinfer.html, group [property]
DOCUMENTED = {
    "batch-size",
    "classifier-threshold",
    "cluster-mode",
    "custom-lib-path",
    "enable-dla",
    "force-implicit-batch-dim",
    "gie-unique-id",
    "gpu-id",
    "infer-dims",
    "input-tensor-from-meta",
    "int8-calib-file",
    "interval",
    "labelfile-path",
    "layer-device-precision",
    "maintain-aspect-ratio",
    "mean-file",
    "model-color-format",
    "model-engine-file",
    "net-scale-factor",
    "network-input-order",
    "network-mode",
    "network-type",
    "num-detected-classes",
    "offsets",
    "onnx-file",
    "output-blob-names",
    "output-instance-mask",
    "output-io-formats",
    "output-tensor-meta",
    "process-mode",
    "scaling-compute-hw",
    "scaling-filter",
    "secondary-reinfer-interval",
    "segmentation-output-order",
    "segmentation-threshold",
    "symmetric-padding",
    "tensor-meta-pool-size",
    "use-dla-core",
    "workspace-size",
}


def read_config(folder: Path) -> dict[str, str]:
    """[property] of the configuration. GKeyFile's groups, comments and key=value are configparser's too."""
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.read(folder / "config_infer.txt", encoding="utf-8")
    assert parser.sections() == ["property"]
    return dict(parser["property"])


def as_nvinfer_feeds(picture: np.ndarray, config: dict[str, str]) -> np.ndarray:
    """(H, W, 3) BGR → (1, 3, H, W) float32, net-scale-factor * (x - offsets) in model-color-format's order."""
    planes = {"0": picture[..., ::-1], "1": picture}[config["model-color-format"]].transpose(2, 0, 1)
    offsets = np.array([float(value) for value in config["offsets"].split(";")], np.float32)
    scale = np.float32(config["net-scale-factor"])
    return (scale * (planes.astype(np.float32) - offsets[:, None, None]))[None]


def as_nvinfer_parses(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """(C, H, W) → (H, W): the first class above the threshold that no other exceeds, -1 where there is none."""
    classes = np.full(probabilities.shape[1:], -1)
    best = np.full(probabilities.shape[1:], -1, np.float32)
    for index, plane in enumerate(probabilities):
        better = (plane > best) & (plane > threshold)
        classes[better] = index
        best[better] = plane[better]
    return classes


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_stock_preprocessing_and_parser_give_the_bundles_labels(
    typed_bundle, pictures, tools, expect_labels, precision, tmp_path: Path
):
    tools.export("deepstream", typed_bundle.path, "-o", tmp_path / "ds", "--precision", precision)
    config = read_config(tmp_path / "ds")
    fed = [as_nvinfer_feeds(picture, config) for picture in pictures]
    threshold = float(config["segmentation-threshold"])
    masks = [as_nvinfer_parses(tools.run(tmp_path / "ds" / config["onnx-file"], each)[0], threshold) for each in fed]
    # of INT8 the graph is the fp32 one: TensorRT takes the ranges from the cache
    expect_labels(np.stack(masks), pictures, typed_bundle.model("fp32" if precision == "int8" else precision))


def test_every_key_is_documented_and_describes_the_model(typed_bundle, tools, tmp_path: Path):
    tools.export("deepstream", typed_bundle.path, "-o", tmp_path / "ds", "--precision", "int8")
    config = read_config(tmp_path / "ds")
    assert set(config) <= DOCUMENTED
    model = onnx.load(tmp_path / "ds" / config["onnx-file"])
    onnx.checker.check_model(model, full_check=True)
    (image,), (output,) = model.graph.input, model.graph.output
    sides = [side.dim_value for side in image.type.tensor_type.shape.dim]
    assert [int(side) for side in config["infer-dims"].split(";")] == sides[1:]
    assert config["output-blob-names"] == output.name
    assert int(config["num-detected-classes"]) == output.type.tensor_type.shape.dim[1].dim_value
    for tensor in (image, output):
        assert tensor.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert (config["network-type"], config["network-mode"]) == ("2", "1")
    for key in ("labelfile-path", "int8-calib-file", "onnx-file"):
        assert (tmp_path / "ds" / config[key]).is_file()
    names = (tmp_path / "ds" / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert names == list(typed_bundle.manifest.classes)


def test_calibration_cache_speaks_of_tensors_that_the_graph_has(typed_bundle, tools, tmp_path: Path):
    tools.export("deepstream", typed_bundle.path, "-o", tmp_path / "ds", "--precision", "int8")
    graph = onnx.load(tmp_path / "ds" / "model.onnx").graph
    present = {value.name for value in graph.input} | {name for node in graph.node for name in node.output}
    lines = (tmp_path / "ds" / "calibration.cache").read_text(encoding="utf-8").splitlines()[1:]
    named = {line.rpartition(":")[0] for line in lines}
    # raw pixels, which the configuration's offsets replace
    assert named - present <= {"image_float", "image_planes"}
    assert "image_centred" in named & present


def test_frames_at_a_time_go_into_graph_and_configuration(typed_bundle, pictures, tools, tmp_path: Path):
    tools.export("deepstream", typed_bundle.path, "-o", tmp_path / "ds", "--batch", 3)
    config = read_config(tmp_path / "ds")
    assert (config["batch-size"], config["model-engine-file"]) == ("3", "model.onnx_b3_gpu0_fp32.engine")
    fed = np.concatenate([as_nvinfer_feeds(picture, config) for picture in pictures])
    together = tools.run(tmp_path / "ds" / "model.onnx", fed)
    assert together.shape == (3, 5, 64, 96)
    alone = [tools.run(tmp_path / "ds" / "model.onnx", each[None]) for each in fed]
    assert np.array_equal(together, np.concatenate(alone))
    assert sorted(path.name for path in (tmp_path / "ds").iterdir()) == [
        "README.txt",
        "config_infer.txt",
        "export.json",
        "labels.txt",
        "model.onnx",
    ]


def test_offsets_are_the_mean_in_the_order_of_the_channels(
    typed_bundle, pictures, tools, expect_labels, tmp_path: Path
):
    folder = tmp_path / "tinted"
    shutil.copytree(typed_bundle.path, folder)
    proto = onnx.load(folder / "model.fp32.onnx")
    name = next(node.input[1] for node in proto.graph.node if node.output[0] == "image_centred")
    mean = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    tint = np.array([90, 127, 160.5], np.float32).reshape(1, 3, 1, 1)
    mean.CopyFrom(onnx.numpy_helper.from_array(tint, name))
    onnx.save(proto, folder / "model.fp32.onnx")
    write_manifest(folder, replace(typed_bundle.manifest, files=file_specs(folder, typed_bundle.manifest.files)))
    tools.export("deepstream", folder, "-o", tmp_path / "ds")
    config = read_config(tmp_path / "ds")
    assert (config["offsets"], config["model-color-format"]) == ("90;127;160.5", "1")
    fed = [as_nvinfer_feeds(picture, config) for picture in pictures]
    masks = [as_nvinfer_parses(tools.run(tmp_path / "ds" / "model.onnx", each)[0], 0.0) for each in fed]
    expect_labels(np.stack(masks), pictures, folder / "model.fp32.onnx")


def test_what_is_not_carried_over_is_said_in_folder_and_output(typed_bundle, tools, capsys, tmp_path: Path):
    tools.export("deepstream", typed_bundle.path, "-o", tmp_path / "ds", "--precision", "fp16")
    printed = capsys.readouterr().out
    texts = [(tmp_path / "ds" / name).read_text(encoding="utf-8") for name in ("README.txt", "config_infer.txt")]
    for word in ("network's size", "The palette", "Types per layer"):
        assert all(word in " ".join(text.split()) for text in (printed, *texts))


def test_letterbox_is_kept_but_its_grey_is_not(typed_bundle, tools, capsys, tmp_path: Path):
    folder = tmp_path / "boxed"
    shutil.copytree(typed_bundle.path, folder)
    manifest = (folder / "model.json").read_text(encoding="utf-8")
    (folder / "model.json").write_text(manifest.replace('"stretch"', '"letterbox"'), encoding="utf-8")
    tools.export("deepstream", folder, "-o", tmp_path / "ds")
    config = read_config(tmp_path / "ds")
    assert (config["maintain-aspect-ratio"], config["symmetric-padding"]) == ("1", "0")
    assert "The letterbox's grey" in capsys.readouterr().out


def test_labels_head_and_missing_ranges_are_refused(labels_bundle, lite0_bundle, tools, capsys, tmp_path: Path):
    output = tmp_path / "ds"
    said = tools.refusal(capsys, "deepstream", labels_bundle.path, "-o", output)
    assert said.endswith("gst-nvinfer's parser reads float scores; build the bundle with --head bilinear.")
    said = tools.refusal(capsys, "deepstream", lite0_bundle, "-o", output, "--precision", "int8")
    assert "holds no calibration.cache" in said
    assert not output.exists()


@given(hnp.arrays(np.float32, (4, 3, 5), elements=st.floats(-50, 50, width=32)))
def test_softmax_is_why_no_pixel_is_left_without_a_class(scores):
    exponents = np.exp(scores - scores.max(axis=0))
    masks = as_nvinfer_parses(exponents / exponents.sum(axis=0), 0.0)
    assert masks.min() >= 0
    assert np.all(as_nvinfer_parses(np.minimum(scores, -1), 0.0) == -1)  # what raw scores may come to
