"""Real exports of PyTorch, TensorFlow and JAX become bundles with the masks of the framework that made the file."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from fcnedge.build_engine.cli import main
from fcnedge.build_engine.importers.onnx_references import _enlarged
from fcnedge.build_engine.inspect import describe_bundle
from fcnedge.runtime import Bundle, Segmenter

SIZE = (64, 96)
CLASSES = 21
MEAN, SCALE = (123.675, 116.28, 103.53), (1 / 58.395, 1 / 57.12, 1 / 57.375)
PREPARED = ("--rgb", "--mean", "123.675,116.28,103.53", "--scale", ",".join(map(repr, SCALE)))
WHOLE = ("--size", f"{SIZE[1]}x{SIZE[0]}")


def blobs(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return cv2.resize(random.integers(0, 256, (6, 9, 3), np.uint8), SIZE[::-1])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(2):
        assert cv2.imwrite(str(folder / f"{index}.png"), blobs(index))
    return folder


def rgb(image: np.ndarray) -> np.ndarray:
    """(1, H, W, 3) float32, as torchvision normalises it."""
    return ((image[..., ::-1] - np.array(MEAN)) * np.array(SCALE)).astype(np.float32)[None]


def built(path: Path, pictures: Path, *options: str) -> tuple[Path, dict]:
    """The bundle and its report."""
    bundle = path.with_suffix(".bundle")
    assert main(["model", str(path), "-o", str(bundle), "--verify", str(pictures), "--force", *options]) == 0
    return bundle, json.loads((bundle / "report.json").read_text(encoding="utf-8"))


def refusal(capsys, path: Path, *options: str) -> str:
    capsys.readouterr()
    assert main(["model", str(path), "-o", str(path.with_suffix(".bundle")), *options]) != 0
    assert not path.with_suffix(".bundle").exists()
    return capsys.readouterr().err


def assert_masks_are(bundle: Path, pictures: Path, scores_of, precision: str = "fp32") -> None:
    """Equal wherever the framework's best class leads by more than 1e-4 of the range; scores_of: image → (C, H, W)."""
    with Segmenter(bundle, backend="onnxruntime", precision=precision) as segmenter:
        for file in sorted(pictures.iterdir()):
            image = cv2.imread(str(file))
            assert image is not None
            scores = scores_of(image)
            top = np.sort(scores, axis=0)
            clear = top[-1] - top[-2] > 1e-4 * np.ptp(scores)
            assert clear.mean() > 0.9
            assert len(np.unique(scores.argmax(0))) > 2, "one class everywhere proves little"
            np.testing.assert_array_equal(segmenter(image)[clear], scores.argmax(0)[clear])


# --- PyTorch


class TorchNet:
    """A small 21-class ResNet FCN, its export, and its own word on pictures."""

    def __init__(self, tail: str) -> None:
        torch = pytest.importorskip("torch", reason="the extra pretrained is not installed")
        nn, functional = torch.nn, torch.nn.functional
        self.torch = torch
        torch.manual_seed(0)

        class Block(nn.Module):
            def __init__(self, have: int, want: int, stride: int) -> None:
                super().__init__()
                self.conv1, self.bn1 = nn.Conv2d(have, want, 3, stride, 1, bias=False), nn.BatchNorm2d(want)
                self.conv2, self.bn2 = nn.Conv2d(want, want, 3, 1, 1, bias=False), nn.BatchNorm2d(want)
                self.down = nn.Sequential(nn.Conv2d(have, want, 1, stride, bias=False), nn.BatchNorm2d(want))

            def forward(self, x):
                inner = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
                return functional.relu(inner + self.down(x))

        class Fcn(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv1, self.bn1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8)
                self.pool = nn.MaxPool2d(3, 2, 1)
                self.layers = nn.Sequential(Block(8, 8, 1), Block(8, 12, 2))
                self.score = nn.Conv2d(12, CLASSES, 1)

            def scores(self, x):
                return self.score(self.layers(self.pool(functional.relu(self.bn1(self.conv1(x))))))

            def full(self, x):
                aligned = tail == "align_corners"
                return functional.interpolate(self.scores(x), x.shape[-2:], mode="bilinear", align_corners=aligned)

            def forward(self, x):
                if tail == "scores":
                    return self.scores(x)
                full = self.full(x)
                return {"labels": full.argmax(1), "two": (full, -full)}.get(tail, full)

        self.model = Fcn().eval()
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        with torch.no_grad():  # so that no class wins everywhere
            scores = self.model.scores(torch.from_numpy(rgb(blobs(0))).permute(0, 3, 1, 2))
            self.model.score.bias -= scores.mean((0, 2, 3))

    def export(self, path: Path, *, opset: int = 17, dynamic: bool = True, names: tuple[str, ...] = ("out",)) -> Path:
        axes = {"input": {0: "batch", 2: "height", 3: "width"}} if dynamic else None
        with warnings.catch_warnings():  # PyTorch says that it has another exporter, tests see to that elsewhere
            warnings.simplefilter("ignore")
            self.torch.onnx.export(
                self.model, (self.torch.zeros(1, 3, *SIZE),), str(path), dynamo=False, opset_version=opset,
                input_names=["input"], output_names=list(names), dynamic_axes=axes,
            )  # fmt: skip
        return path

    def scores_of(self, image: np.ndarray) -> np.ndarray:
        """(21, H, W) in PyTorch itself."""
        with self.torch.no_grad():
            return self.model.full(self.torch.from_numpy(rgb(image)).permute(0, 3, 1, 2))[0].numpy()


@pytest.mark.parametrize("tail", ["full", "labels", "scores"])
@pytest.mark.parametrize(("opset", "dynamic"), [(17, True), (17, False), (11, True)])
def test_resnet_fcn_of_pytorch_keeps_its_masks_and_its_tail_is_the_head(tail, opset, dynamic, pictures, tmp_path):
    net = TorchNet(tail)
    bundle, report = built(net.export(tmp_path / "net.onnx", opset=opset, dynamic=dynamic), pictures, *PREPARED, *WHOLE)
    assert_masks_are(bundle, pictures, net.scores_of)
    manifest = Bundle.load(bundle).manifest
    assert (manifest.head.kind, manifest.head.stride, manifest.head.offset) == ("bilinear", 8, (0.0, 0.0))
    assert (len(manifest.classes), manifest.arch, manifest.name) == (CLASSES, "onnx", "net")
    assert report["fusion"]["rules"]["input_layout"]["applied"] == 1
    assert report["compared_with"] == "net.onnx"
    kinds = {node.op_type for node in onnx.load(bundle / "model.fp32.onnx").graph.node}
    assert kinds <= {"Cast", "Transpose", "Sub", "Conv", "Relu", "MaxPool", "Add"}, "nothing of shapes is left"
    assert any("converted from opset 11" in note for note in report["notes"]) == (opset == 11)


def test_upsample_before_opset_11_is_asymmetric(pictures, tmp_path):
    """ONNX's own converter would make half_pixel of it."""
    net = TorchNet("full")
    path = net.export(tmp_path / "old.onnx", opset=9, dynamic=False)
    assert "Upsample" in {node.op_type for node in onnx.load(path).graph.node}
    bundle, report = built(path, pictures, *PREPARED)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert_masks_are(
        bundle, pictures, lambda image: session.run(None, {"input": rgb(image).transpose(0, 3, 1, 2)})[0][0]
    )
    assert Bundle.load(bundle).manifest.head.offset == (3.5, 3.5)
    assert any("converted from opset 9" in note for note in report["notes"])


def test_new_exporter_of_pytorch(pictures, tmp_path):
    net = TorchNet("full")
    pytest.importorskip("onnxscript", reason="PyTorch's new exporter needs onnxscript")
    torch, path = net.torch, tmp_path / "new.onnx"
    sides = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.model, (torch.zeros(1, 3, *SIZE),), str(path), dynamo=True, dynamic_shapes={"x": sides}, verbose=False
        )
    bundle, _ = built(path, pictures, *PREPARED, *WHOLE)
    assert_masks_are(bundle, pictures, net.scores_of)
    assert Bundle.load(bundle).manifest.head.stride == 8


def test_align_corners_stays_in_the_graph_and_inspect_says_why(pictures, tmp_path):
    net = TorchNet("align_corners")
    bundle, _ = built(net.export(tmp_path / "net.onnx"), pictures, *PREPARED, *WHOLE)
    assert_masks_are(bundle, pictures, net.scores_of)
    assert Bundle.load(bundle).manifest.head.kind == "labels"
    assert "align_corners" in describe_bundle(bundle).text()


def test_other_precisions_of_an_imported_bundle(pictures, tmp_path):
    net = TorchNet("full")
    path = net.export(tmp_path / "net.onnx")
    bundle, _ = built(path, pictures, *PREPARED, *WHOLE)
    from fcnedge.calibration.cli import main as calibrate

    ranges = tmp_path / "ranges.json"
    assert calibrate(["ranges", str(bundle), "--data", str(pictures), "-o", str(ranges)]) == 0
    bundle, report = built(path, pictures, *PREPARED, *WHOLE, "--precision", "fp32,fp16,int8", "--ranges", str(ranges))
    assert Bundle.load(bundle).manifest.precisions == ("fp32", "fp16", "int8")
    assert report["precisions"]["fp16"]["labels_equal"] > 0.99
    assert all(each["score_sqnr_db"] > 15 for each in report["precisions"].values())


def test_size_need_be_no_multiple_of_32(pictures, tmp_path):
    net = TorchNet("full")
    bundle, _ = built(net.export(tmp_path / "net.onnx"), pictures, *PREPARED, "--size", "104x72")
    manifest = Bundle.load(bundle).manifest
    assert ((manifest.input.height, manifest.input.width), manifest.head.stride) == ((72, 104), 8)


def test_layout_that_the_shape_does_not_tell_is_settled_by_flag(pictures, tmp_path, capsys):
    net = TorchNet("full")
    path = net.export(tmp_path / "net.onnx")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "colours"
    onnx.save(model, path)
    assert "settle it with --layout" in refusal(capsys, path, *WHOLE)
    bundle, _ = built(path, pictures, *PREPARED, *WHOLE, "--layout", "nchw")
    assert_masks_are(bundle, pictures, net.scores_of)


def test_several_outputs_are_settled_by_name(pictures, tmp_path, capsys):
    path = TorchNet("two").export(tmp_path / "net.onnx", names=("out", "aux"))
    assert "several outputs, out, aux; choose one with --output-name" in refusal(capsys, path, *WHOLE)
    assert "no output main, only out, aux" in refusal(capsys, path, *WHOLE, "--output-name", "main")
    net = TorchNet("full")
    bundle, _ = built(path, pictures, *PREPARED, *WHOLE, "--output-name", "aux")
    assert_masks_are(bundle, pictures, lambda image: -net.scores_of(image))


def test_what_a_file_does_not_say_is_told(pictures, tmp_path, capsys):
    path = TorchNet("full").export(tmp_path / "net.onnx", dynamic=False)
    built(path, pictures)
    assert "assumed: channel order RGB (--channel-order), mean 0 (--mean), scale 1" in capsys.readouterr().out
    model = onnx.load(path)
    for key, value in {"BitmapPixelFormat": "Bgr8", "NominalPixelRange": "Normalized_1_1"}.items():
        model.metadata_props.add(key=f"Image.{key}", value=value)
    onnx.save(model, path)
    bundle, report = built(path, pictures)
    preprocessing = Bundle.load(bundle).manifest.preprocessing
    assert (preprocessing.channel_order, preprocessing.mean[0], preprocessing.scale[0]) == ("bgr", 127.5, 1 / 127.5)
    assert report["notes"] == []


def test_fixed_size_is_taken_and_another_refused(tmp_path, capsys):
    path = TorchNet("full").export(tmp_path / "net.onnx", dynamic=False)
    assert "takes pictures of 96x64 only, --size is 128x64" in refusal(capsys, path, "--size", "128x64")
    assert "scores 21 classes, --classes names 4" in refusal(capsys, path, "--classes", "4")


# --- TensorFlow, through tf2onnx: NHWC, another normalisation


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory):
    """Give (tail) → an .onnx with input (N, 64, 96, 3) in 0..1, and the Keras model it was made of."""

    def export(tail: str):
        import keras
        import tensorflow as tf
        import tf2onnx
        from keras import layers

        keras.utils.clear_session()
        keras.utils.set_random_seed(1)
        pixels = keras.Input((*SIZE, 3))
        x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(pixels)
        x = layers.DepthwiseConv2D(3, strides=2, padding="same")(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
        score = layers.Conv2D(5, 1, name="score")
        x = score(x)
        trunk = keras.Model(pixels, x)
        mean = trunk.predict_on_batch(blobs(0)[None, ..., ::-1] / 255).mean((0, 1, 2))
        score.bias.assign(-mean)
        if tail == "resize":
            x = layers.UpSampling2D(4, interpolation="bilinear")(x)
        else:
            x = layers.Conv2DTranspose(5, 8, strides=4, padding="same", use_bias=False)(x)
        model = keras.Model(pixels, layers.Softmax()(x))
        path = tmp_path_factory.mktemp("keras") / f"{tail}.onnx"
        signature = [tf.TensorSpec((None, *SIZE, 3), tf.float32, name="pixels")]
        tf2onnx.convert.from_function(tf.function(lambda x: model(x)), signature, opset=15, output_path=str(path))
        return path, lambda image: model.predict_on_batch(image[None, ..., ::-1] / 255)[0].transpose(2, 0, 1)

    return export


@pytest.mark.parametrize(("tail", "head"), [("resize", "bilinear"), ("learned", "labels")])
def test_nhwc_export_of_tensorflow_keeps_its_masks(tail, head, keras_file, pictures):
    path, scores_of = keras_file(tail)
    bundle, report = built(path, pictures, "--rgb", "--mean", "0", "--scale", repr(1 / 255))
    assert_masks_are(bundle, pictures, scores_of)
    assert Bundle.load(bundle).manifest.head.kind == head
    assert report["fusion"]["rules"]["input_layout"]["applied"] == 1
    assert report["notes"] == []


# --- JAX, through jax2onnx: Flax's convolutions, NHWC scores resized or deconvolved by a kernel that lies mirrored


class FlaxNet:
    """A small 21-class FCN, its export, and its own word on pictures."""

    def __init__(self, tail: str) -> None:
        reason = "the extra frameworks is not installed"
        self.jax2onnx = pytest.importorskip("jax2onnx", reason=reason)
        jax = pytest.importorskip("jax", reason=reason)
        nnx = pytest.importorskip("flax.nnx", reason=reason)
        rngs = nnx.Rngs(0)

        class Fcn(nnx.Module):
            def __init__(self) -> None:
                self.conv1 = nnx.Conv(3, 8, (3, 3), strides=2, use_bias=False, rngs=rngs)
                self.bn1 = nnx.BatchNorm(8, rngs=rngs)
                self.grouped = nnx.Conv(8, 8, (3, 3), kernel_dilation=2, feature_group_count=8, rngs=rngs)
                self.score = nnx.Conv(8, CLASSES, (1, 1), rngs=rngs)
                self.up = nnx.ConvTranspose(CLASSES, CLASSES, (8, 8), strides=(4, 4), padding="SAME", rngs=rngs)

            def scores(self, x):
                x = nnx.relu(self.bn1(self.conv1(x)))
                return self.score(nnx.max_pool(x + nnx.relu(self.grouped(x)), window_shape=(2, 2), strides=(2, 2)))

            def __call__(self, x):
                if tail == "learned":
                    return self.up(self.scores(x))
                # jax2onnx knows no antialias; enlarging has none
                return jax.image.resize(self.scores(x), (1, *SIZE, CLASSES), "bilinear", antialias=False)

        self.model = Fcn()
        self.model.eval()
        mean, var = (jax.random.uniform(jax.random.key(seed), 8) for seed in (1, 2))
        self.model.bn1.mean[...], self.model.bn1.var[...] = 0.2 * mean - 0.1, 0.5 + var
        self.model.score.bias[...] -= self.model.scores(rgb(blobs(0))).mean(
            (0, 1, 2)
        )  # so that no class wins everywhere

    def export(self, path: Path, *, layout: str = "nhwc", opset: int = 17) -> Path:
        first = [0] if layout == "nchw" else None
        with warnings.catch_warnings():  # jax2onnx reads Flax's variables in a way that Flax is giving up
            warnings.simplefilter("ignore", DeprecationWarning)
            self.jax2onnx.to_onnx(
                self.model, [(1, *SIZE, 3)], opset=opset, inputs_as_nchw=first, outputs_as_nchw=first,
                return_mode="file", output_path=str(path),
            )  # fmt: skip
        return path

    def scores_of(self, image: np.ndarray) -> np.ndarray:
        """(21, H, W) in JAX itself."""
        return np.asarray(self.model(rgb(image)))[0].transpose(2, 0, 1)


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("tail", ["resize", "learned"])
def test_flax_fcn_of_jax_keeps_its_masks(tail, layout, pictures, tmp_path):
    net = FlaxNet(tail)
    bundle, report = built(net.export(tmp_path / "net.onnx", layout=layout), pictures, *PREPARED)
    assert_masks_are(bundle, pictures, net.scores_of)
    assert len(Bundle.load(bundle).manifest.classes) == CLASSES
    assert report["fusion"]["rules"]["input_layout"]["applied"] == 1


def test_opset_that_jax2onnx_takes_by_itself_is_refused(tmp_path, capsys):
    path = FlaxNet("resize").export(tmp_path / "net.onnx", opset=23)
    assert "opset 23, newer than 21; export it with opset 17" in refusal(capsys, path)


# --- bad input


def small(path: Path, nodes=None, *, shape=(1, 3, 64, 96), kind=1, opset=17, domains=(), **save) -> Path:
    """A one-convolution file of 3 classes."""
    kernel = onnx.numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "kernel")
    nodes = nodes or [helper.make_node("Conv", ["x", "kernel"], ["y"])]
    given = [helper.make_tensor_value_info("x", kind, shape)]
    model = helper.make_model(
        helper.make_graph(nodes, "small", given, [helper.make_tensor_value_info("y", 1, None)], [kernel]),
        opset_imports=[helper.make_opsetid(name, number) for name, number in (("", opset), *domains)],
        ir_version=10,
    )
    onnx.save(model, path, **save)
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shape": (4, 3, 64, 96)}, "reads 4 pictures at a time"),
        ({"shape": (1, 1, 64, 96)}, "not three colours"),
        ({"shape": ("n", "c", "h", "w")}, "settle it with --layout"),
        ({"shape": (1, 3, 64, 3)}, "settle it with --layout"),
        ({"shape": (3, 64)}, "four dimensions"),
        ({"kind": 10}, "FLOAT16, not float32 or uint8"),
        ({"opset": 22}, "opset 22, newer than 21; export it with opset 17"),
        (
            {"nodes": [helper.make_node("Foo", ["x"], ["y"], domain="mmdeploy")], "domains": [("mmdeploy", 1)]},
            "mmdeploy:Foo",
        ),
        ({"nodes": [helper.make_node("Softmax", ["x"], ["y"])], "shape": (1, 3, 64, 96)}, "name them with --classes"),
    ],
)
def test_files_that_are_refused(changes, said, tmp_path, capsys):
    assert said in refusal(capsys, small(tmp_path / "small.onnx", **changes))


def test_weights_outside_the_folder_are_refused(tmp_path, capsys):
    inside = tmp_path / "inside"
    inside.mkdir()
    options = {"save_as_external_data": True, "location": "w.data", "size_threshold": 0}
    path = small(inside / "small.onnx", **options)
    (inside / "w.data").rename(tmp_path / "w.data")
    assert "which is not beside it" in refusal(capsys, path)
    (inside / "w.data").symlink_to(tmp_path / "w.data")
    assert "outside its folder" in refusal(capsys, path)
    (inside / "w.data").unlink()
    path.write_bytes(path.read_bytes().replace(b"\x06w.data", b"\x06../w.d"))
    assert "outside its folder" in refusal(capsys, path)


@pytest.mark.parametrize("content", [b"", b"not an onnx file", b"\x08\x0a"])
def test_what_is_no_onnx_file(content, tmp_path, capsys):
    path = tmp_path / "some.onnx"
    path.write_bytes(content)
    error = refusal(capsys, path)
    assert str(path) in error
    assert "Traceback" not in error


def test_small_scores_are_enlarged_as_opencv_does():
    scores = np.random.default_rng(0).normal(size=(3, 8, 12)).astype(np.float32)
    expected = cv2.resize(scores.transpose(1, 2, 0), (96, 64), interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1)
    np.testing.assert_allclose(_enlarged(scores, SIZE), expected, atol=1e-5)
