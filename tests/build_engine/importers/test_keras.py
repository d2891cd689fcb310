"""Other people's models in every format of Keras: written by Keras, read, and compared with what it computes."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from fcnedge.build_engine.cli import main
from fcnedge.build_engine.importers.origin import ImportFlags, origin_of
from fcnedge.build_engine.model_source import keras_model, resolve_source
from fcnedge.runtime import Bundle, Segmenter
from fcnedge.runtime.errors import UserError

keras = pytest.importorskip("keras")
pytestmark = pytest.mark.filterwarnings("ignore:.*HDF5 file via:UserWarning", "ignore:Do not pass an:UserWarning")

SIZE = (64, 96)
CLASSES = 4


def picture(seed: int) -> np.ndarray:
    """(64, 96, 3) uint8 BGR: smooth blobs, so that there is something to tell apart."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    return cv2.resize(noise, (SIZE[1], SIZE[0]), interpolation=cv2.INTER_CUBIC)


def small_trunk(pixels):
    x = keras.layers.Conv2D(8, 3, 2, padding="same", use_bias=False)(pixels)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.ReLU(6.0)(x)
    x = keras.layers.DepthwiseConv2D(3, 2, padding="same", activation="relu")(x)
    return keras.layers.Conv2D(CLASSES, 1, name="score")(x)


TAILS = {
    "learned": lambda x: keras.layers.Conv2DTranspose(CLASSES, 8, 4, padding="same", activation="softmax")(x),
    "upsampling": lambda x: keras.layers.Softmax()(keras.layers.UpSampling2D(4, interpolation="bilinear")(x)),
    "resizing": lambda x: keras.layers.Resizing(*SIZE)(x),
    "cropped": lambda x: keras.layers.Cropping2D(((2, 2), (3, 1)))(
        keras.layers.UpSampling2D(4, interpolation="bilinear")(keras.layers.ZeroPadding2D(((1, 0), (0, 1)))(x))
    ),
    "coarse": lambda x: x,
    "argmax": lambda x: keras.ops.argmax(keras.layers.UpSampling2D(4, interpolation="bilinear")(x), axis=-1),
}


def network(tail: str, sides=(None, None), trunk=small_trunk):
    """A functional model that normalises by itself; with scores that differ from pixel to pixel."""
    keras.utils.set_random_seed(7)
    pixels = keras.Input((*sides, 3))
    return keras.Model(pixels, TAILS[tail](trunk(keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels))))


def rgb(image: np.ndarray) -> np.ndarray:
    return image[None, ..., ::-1].astype(np.float32)


def loaded(path: Path, size=SIZE, **flags):
    source = resolve_source(str(path), imports=ImportFlags(**flags), size=size)
    return keras_model(source, fc_channels=1, fixed_size=True)


def refused(path: Path, **flags) -> str:
    with pytest.raises(UserError) as caught:
        loaded(path, **flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("ending", [".keras", ".h5"])
@pytest.mark.parametrize("sides", [(None, None), SIZE])
def test_model_of_a_file_computes_what_was_saved(ending, sides, tmp_path):
    model = network("upsampling", sides)
    path = tmp_path / f"my net{ending}"
    model.save(path)
    source = resolve_source(str(path), imports=ImportFlags(), size=None if sides == SIZE else SIZE)
    assert (source.name, source.arch, len(source.classes), source.size) == ("my-net", "keras functional", CLASSES, SIZE)
    read, preprocessing = keras_model(source, fc_channels=1, fixed_size=True)
    np.testing.assert_array_equal(read.predict_on_batch(rgb(picture(1))), model.predict_on_batch(rgb(picture(1))))
    np.testing.assert_array_equal(preprocessing.apply(picture(1))[None], rgb(picture(1)))


def test_fixed_size_gives_way_to_another(tmp_path):
    model, free = network("upsampling", (32, 32)), network("upsampling")
    free.set_weights(model.get_weights())
    model.save(tmp_path / "net.keras")
    read, _ = loaded(tmp_path / "net.keras")
    np.testing.assert_array_equal(read.predict_on_batch(rgb(picture(1))), free.predict_on_batch(rgb(picture(1))))


@pytest.mark.parametrize("name", ["MobileNet", "MobileNetV2", "ResNet50"])
def test_trunks_of_keras_applications_nested_or_not(name, tmp_path):
    options = {} if name == "ResNet50" else {"alpha": 0.25 if name == "MobileNet" else 0.35}
    base = getattr(keras.applications, name)(weights=None, include_top=False, input_shape=(64, 64, 3), **options)
    nested = keras.Sequential(
        [keras.Input((64, 64, 3)), base, keras.layers.Conv2D(CLASSES, 1),
         keras.layers.UpSampling2D(32, interpolation="bilinear")]
    )  # fmt: skip
    flat = keras.Model(base.input, nested.layers[2](nested.layers[1](base.output)))
    image = rgb(picture(2))[:, :64, :64]
    for index, model in enumerate((nested, flat)):
        path = tmp_path / f"{index}.keras"
        model.save(path)
        assert len(resolve_source(str(path), imports=ImportFlags()).classes) == CLASSES
        read, _ = loaded(path, size=(64, 64))
        np.testing.assert_allclose(read.predict_on_batch(image), model.predict_on_batch(image), rtol=1e-5, atol=1e-6)
    if name != "ResNet50":
        assert loaded(tmp_path / "0.keras", size=(96, 64))[0].output_shape == (None, 96, 64, CLASSES)


def test_mixed_precision_is_built_in_float32(tmp_path, caplog):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = network("upsampling")
    finally:
        keras.config.set_dtype_policy("float32")
    model.save(tmp_path / "net.keras")
    caplog.set_level("INFO", "fcnedge.build_engine.importers")
    read, _ = loaded(tmp_path / "net.keras")
    assert {layer.compute_dtype for layer in read.layers} == {"float32"}
    assert "net.keras computes in mixed_float16; it is built in float32." in caplog.text


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(2):
        cv2.imwrite(str(folder / f"{index}.png"), picture(index))
    return folder


def bundle_of(path: Path, pictures: Path, *options: str) -> tuple[Path, dict]:
    bundle = path.parent / "bundle"
    words = ["model", str(path), "-o", str(bundle), "--size", "96x64", "--verify", str(pictures), *options]
    assert main(words) == 0
    return bundle, json.loads((bundle / "report.json").read_text())


def assert_masks_are(bundle: Path, scores_of) -> None:
    """Where the original's best class leads by more than 1e-4 of its range."""
    with Segmenter(bundle, backend="onnxruntime") as segmenter:
        for index in range(2):
            scores = np.asarray(scores_of(rgb(picture(index))))[0]
            top = np.sort(scores, axis=-1)
            decided = top[..., -1] - top[..., -2] > 1e-4 * np.ptp(scores)
            labels = scores.argmax(-1)
            assert decided.mean() > 0.9
            assert len(np.unique(labels)) > 1, "one class everywhere proves little"
            np.testing.assert_array_equal(segmenter(picture(index))[decided], labels[decided])


@pytest.mark.parametrize(
    ("tail", "head"),
    [("learned", "labels"), ("cropped", "labels"), ("argmax", "bilinear"), ("coarse", "bilinear"),
     ("resizing", "bilinear")],
)  # fmt: skip
def test_bundle_gives_the_labels_of_the_original(tail, head, pictures, tmp_path, capsys):
    model = network(tail)
    model.save(tmp_path / "net.keras")
    bundle, report = bundle_of(tmp_path / "net.keras", pictures, "--classes", "background,road,car,tree")
    assert Bundle.load(bundle).manifest.classes == ("background", "road", "car", "tree")
    assert Bundle.load(bundle).manifest.head.kind == head
    assert report["agreement"]["pixels_unequal"] == 0
    assert "is given RGB pixels of 0..255, which its own layers normalise" in capsys.readouterr().out
    scores = model
    if tail == "argmax":
        scores = keras.Model(model.input, model.get_layer(index=-1).output)
    if tail == "coarse":
        scores = keras.Model(model.input, keras.layers.UpSampling2D(4, interpolation="bilinear")(model.output))
        assert any("gives scores of 16 x 24; they are upsampled to 64 x 96" in note for note in report["notes"])
    assert_masks_are(bundle, scores.predict_on_batch)


def test_bilinear_transposed_convolution_becomes_the_head(pictures, tmp_path):
    model = keras.Sequential(
        [keras.Input((None, None, 3)), keras.layers.Conv2D(8, 3, 4, padding="same", activation="relu"),
         keras.layers.Conv2D(CLASSES, 1), keras.layers.Conv2DTranspose(CLASSES, 8, 4, padding="same", use_bias=False)]
    )  # fmt: skip
    taps = 1 - np.abs(np.arange(8) - 3.5) / 4
    model.layers[-1].set_weights([np.einsum("i,j,ab->ijab", taps, taps, np.eye(CLASSES))])
    model.save(tmp_path / "net.h5")
    bundle, report = bundle_of(tmp_path / "net.h5", pictures, "--mean", "123,117,104", "--scale", "0.01")
    assert Bundle.load(bundle).manifest.head.kind == "bilinear"
    assert report["agreement"]["relative_score_diff"] < 1e-5
    mean = np.array([123, 117, 104], np.float32)
    assert_masks_are(bundle, lambda image: model.predict_on_batch((image - mean) * np.float32(0.01)))


def test_saved_model_through_its_serving_signature(pictures, tmp_path):
    model = network("upsampling", SIZE)
    model.export(tmp_path / "net", verbose=False)
    with pytest.raises(UserError, match="runs at 96x64 pixels only, --size is 64x64; leave out --size"):
        loaded(tmp_path / "net", size=(64, 64))
    bundle, report = bundle_of(tmp_path / "net", pictures)
    assert Bundle.load(bundle).manifest.arch == "tensorflow savedmodel"
    assert len(Bundle.load(bundle).manifest.classes) == CLASSES
    assert report["agreement"]["pixels_unequal"] == 0
    assert_masks_are(bundle, model.predict_on_batch)


def test_damaged_signature_of_a_saved_model_is_one_sentence(tmp_path):
    network("upsampling", SIZE).export(tmp_path / "net", verbose=False)
    program = tmp_path / "net" / "saved_model.pb"
    data = program.read_bytes()
    entry = b"\n\x0fserving_default\x12"
    assert data.count(entry) == 1
    program.write_bytes(data.replace(entry, entry[:-1] + b"\x14"))  # wire type 4, which nobody writes
    assert "has a damaged signature serving_default (" in refused(tmp_path / "net")
    program.write_bytes(data)
    (tmp_path / "net" / "variables" / "variables.index").unlink()
    assert "does not run at 96x64 pixels: " in refused(tmp_path / "net")


def test_saved_model_that_reads_files_is_refused(tmp_path):
    tf = pytest.importorskip("tensorflow")

    class Reader(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 64, 96, 3))])
        def serve(self, pixels):
            return pixels + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)

    module = Reader()
    tf.saved_model.save(module, str(tmp_path / "net"), signatures={"serving_default": module.serve})
    assert "reads files or runs Python (ReadFile)" in refused(tmp_path / "net")


def test_saved_model_that_is_too_large_is_refused(tmp_path):
    (tmp_path / "net" / "variables").mkdir(parents=True)
    (tmp_path / "net" / "saved_model.pb").write_bytes(b"no message")
    assert "is no SavedModel of one graph" in refused(tmp_path / "net")
    with (tmp_path / "net" / "variables" / "variables.data-00000-of-00001").open("wb") as file:
        file.truncate(300 << 20)
    assert "has 300 MiB of weights, of a SavedModel at most 200 are read" in refused(tmp_path / "net")


def rewritten(source: Path, target: Path, *, config=None, metadata=None, weights: bytes | None = None) -> Path:
    """`source` with its members changed by functions of their JSON."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name, change in (("config.json", config), ("metadata.json", metadata)):
            data = json.loads(old.read(name))
            new.writestr(name, json.dumps(change(data) if change else data))
        new.writestr("model.weights.h5", old.read("model.weights.h5") if weights is None else weights)
    return target


@pytest.fixture
def saved(tmp_path) -> Path:
    network("upsampling").save(tmp_path / "saved.keras")
    return tmp_path / "saved.keras"


@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_lambda_is_refused_with_the_reason(ending, tmp_path):
    pixels = keras.Input((64, 96, 3))
    keras.Model(pixels, keras.layers.Lambda(lambda x: x / 255, name="to_one")(pixels)).save(tmp_path / f"net{ending}")
    message = refused(tmp_path / f"net{ending}")
    assert "holds what would be run or opened when it is loaded: Lambda 'to_one' (Python code)" in message


@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_every_unknown_layer_is_named_in_one_sentence(ending, tmp_path):
    class Look(keras.layers.Layer):
        def call(self, x):
            return x

    class Gate(keras.layers.Layer):
        def call(self, x):
            return x

    pixels = keras.Input((64, 96, 3))
    x = Gate(name="gate")(Look(name="look")(keras.layers.Conv2D(CLASSES, 1)(pixels)))
    keras.Model(pixels, x).save(tmp_path / f"net{ending}")
    assert "uses what Keras does not have: Look 'look', Gate 'gate';" in refused(tmp_path / f"net{ending}")


def as_keras_2(config: dict) -> dict:
    """A description of Keras 3 in the words of Keras 2: no modules, no policies, groups everywhere, nodes as lists."""
    layers = []
    for layer in config["config"]["layers"]:
        own = {**layer["config"], "dtype": "float32"}
        if "batch_shape" in own:
            own["batch_input_shape"] = own.pop("batch_shape")
        if "Conv2D" in layer["class_name"]:
            own |= {"groups": 1}
        sources = [arg["config"]["keras_history"] for node in layer["inbound_nodes"] for arg in node["args"]]
        nodes = [[[*source, {}] for source in sources]] if sources else []
        layers.append({"class_name": layer["class_name"], "config": own, "name": own["name"], "inbound_nodes": nodes})
    ends = {key: [config["config"][key]] for key in ("input_layers", "output_layers")}
    return {"class_name": "Functional", "config": {"name": "model", "trainable": True, "layers": layers, **ends}}


def test_file_of_keras_2_is_read_by_keras_3(tmp_path):
    model = network("learned", SIZE)
    model.save(tmp_path / "net.h5")
    with h5py.File(tmp_path / "net.h5", "r+") as file:
        file.attrs["model_config"] = json.dumps(as_keras_2(json.loads(file.attrs["model_config"])))
        file.attrs["keras_version"] = "2.15.0"
    with pytest.raises(TypeError, match="groups"):  # or this proves nothing
        keras.models.load_model(tmp_path / "net.h5", compile=False)
    assert len(resolve_source(str(tmp_path / "net.h5"), imports=ImportFlags()).classes) == CLASSES
    read, _ = loaded(tmp_path / "net.h5")
    np.testing.assert_array_equal(read.predict_on_batch(rgb(picture(1))), model.predict_on_batch(rgb(picture(1))))


def test_saved_model_of_keras_2(tmp_path):
    tf_keras = pytest.importorskip("tf_keras", reason="writes models of Keras 2")
    model = tf_keras.Sequential(
        [tf_keras.layers.Conv2D(8, 3, 2, padding="same", activation="relu", input_shape=(None, None, 3)),
         tf_keras.layers.Conv2DTranspose(CLASSES, 4, 2, padding="same")]
    )  # fmt: skip
    for name, options in (("net", {"save_format": "tf"}), ("net.h5", {})):
        model.save(str(tmp_path / name), **options)
        read, _ = loaded(tmp_path / name)
        np.testing.assert_allclose(read.predict_on_batch(rgb(picture(1))), model(rgb(picture(1))), rtol=1e-5, atol=1e-4)


def test_custom_loss_is_of_no_interest(tmp_path):
    def my_loss(truth, scores):
        return keras.ops.mean(scores)

    model = network("upsampling")
    model.compile("adam", my_loss)
    model.save(tmp_path / "net.keras")
    assert loaded(tmp_path / "net.keras")[0].output_shape == (None, *SIZE, CLASSES)


def test_zip_bombs_are_refused_by_their_directory(saved, tmp_path):
    bomb = rewritten(saved, tmp_path / "a.keras", weights=bytes(200 << 20))
    assert "and would unpack to 209," in refused(bomb)
    padded = rewritten(saved, tmp_path / "b.keras", config=lambda data: data | {"x": "a" * (17 << 20)})
    assert "config.json unpacks to 17 MiB, a description has at most 16" in refused(padded)


def test_weights_that_lie_elsewhere_or_unpack_to_too_much_are_refused(saved, tmp_path):
    for change, message in (
        (lambda file: file.create_dataset("x", (1 << 14, 1 << 14), chunks=(64, 64), compression="gzip"), "unpack to"),
        (lambda file: file.__setitem__("x", h5py.ExternalLink("other.h5", "/a")), "/x is a link to another file"),
        (lambda file: file.create_dataset("x", (4,), "f4", external=[("other.raw", 0, 16)]), "/x lies in another file"),
    ):
        with zipfile.ZipFile(saved) as archive:
            content = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(content, "r+") as file:
            change(file)
        assert message in refused(rewritten(saved, tmp_path / "changed.keras", weights=content.getvalue()))


def test_weights_that_do_not_fit(saved, tmp_path):
    def wider(config):
        next(each for each in config["config"]["layers"] if each["name"] == "score")["config"]["filters"] = 5
        return config

    assert "cannot build" in refused(rewritten(saved, tmp_path / "wide.keras", config=wider))
    old = rewritten(saved, tmp_path / "old.keras", metadata=lambda data: data | {"keras_version": "2.15.0"})
    assert "was saved by Keras 2.15.0" in refused(old)


@pytest.mark.parametrize(
    "damage",
    [lambda config: config["config"].pop("output_layers"), lambda config: config["config"]["layers"][2].pop("config"),
     lambda config: config["config"].update(layers=[]), lambda config: config.update(config=3),
     lambda config: config["config"].update(input_layers=[["gone", 0, 0]])],
)  # fmt: skip
def test_damaged_description_is_one_sentence(damage, saved, tmp_path):
    def damaged(config):
        damage(config)
        return config

    assert refused(rewritten(saved, tmp_path / "damaged.keras", config=damaged))


def test_output_that_no_layer_has_is_one_sentence(saved, tmp_path):
    """Keras searches for it until Python's stack ends."""

    def without_index(config):
        del config["config"]["output_layers"][2]
        return config

    message = refused(rewritten(saved, tmp_path / "damaged.keras", config=without_index))
    assert "cannot build" in message
    assert "damaged.keras at 96x64 pixels: " in message


@pytest.mark.parametrize("member", ["config.json", "model.weights.h5"])
def test_damaged_compression_is_one_sentence(member, saved, tmp_path):
    path = rewritten(saved, tmp_path / "damaged.keras")
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo(member)
    start = place.header_offset + 30 + len(member)
    data[start : start + place.compress_size] = b"\xa5" * place.compress_size
    path.write_bytes(data)
    assert refused(path).endswith("; save the model again.")


@pytest.mark.parametrize("place", [0, 8, 48, 64])
def test_damaged_hdf5_header_is_one_sentence(place, tmp_path):
    network("upsampling").save(tmp_path / "net.h5")
    data = bytearray((tmp_path / "net.h5").read_bytes())
    data[place : place + 8] = b"\xfe" * 8
    (tmp_path / "net.h5").write_bytes(data)
    assert refused(tmp_path / "net.h5").endswith("; save the model again.")


def test_weights_alone_are_told_where_they_belong():
    with pytest.raises(UserError, match=r"net\.weights\.h5 holds weights without their layers; name their arch"):
        resolve_source("net.weights.h5", imports=ImportFlags())


def test_what_is_no_keras_file(saved, tmp_path):
    (tmp_path / "text.keras").write_text("hello")
    (tmp_path / "text.h5").write_text("hello")
    saved.with_name("short.keras").write_bytes(saved.read_bytes()[:-200])
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("a.txt", "a")
    network("upsampling").save_weights(tmp_path / "own.weights.h5")
    (tmp_path / "own.weights.h5").rename(tmp_path / "own.h5")
    for name, message in (
        ("text.keras", "it is no zip archive"), ("text.h5", "holds no HDF5 weights"),
        ("short.keras", "is no zip archive"), ("other.keras", "it has no config.json"),
        ("own.h5", "holds weights without their layers"),
    ):  # fmt: skip
        assert message in refused(tmp_path / name)


def test_inputs_outputs_and_classes_that_do_not_serve(tmp_path):
    pixels = keras.Input((64, 96, 3))
    one, two = (keras.layers.Conv2D(2, 1, name=name)(pixels) for name in ("near", "far"))
    path = tmp_path / "net.keras"
    keras.Model(pixels, [one, two]).save(path)
    assert "has several outputs; choose one of near, far with --output-name" in refused(path)
    both = keras.models.load_model(path)
    far = loaded(path, output_name="far")[0]
    image = rgb(picture(1))
    np.testing.assert_array_equal(far.predict_on_batch(image), both.predict_on_batch(image)[1])
    keras.Model(pixels, keras.layers.Conv2D(2, 3)(pixels)).save(path)
    assert "gives scores of 62 x 94 (height x width) for a picture of 64 x 96" in refused(path)
    keras.Model(pixels, keras.layers.Conv2D(1, 1)(pixels)).save(path)
    assert "scores 1 class, a model has 2 to 255; give the background a channel of its own" in refused(path)
    keras.Model(pixels, keras.ops.max(one, axis=-1, keepdims=True)).save(path)
    assert "gives 1 channel per pixel, a model has 2 to 255 classes" in refused(path)
    keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(one)).save(path)
    assert "gives any x 2, expected scores" in refused(path)
    gray = keras.Input((64, 96, 1))
    keras.Model(gray, keras.layers.Conv2D(2, 1)(gray)).save(path)
    assert "pictures with channels last" in refused(path)
    with pytest.raises(UserError, match="--padding says nothing about"):
        origin_of(path, ImportFlags(padding="same"))
