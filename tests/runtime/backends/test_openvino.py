"""The OpenVINO backend runs what model.json describes, in float32, and agrees with ONNX Runtime."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fcnedge.runtime import BackendError, Bundle, Segmenter, UserError, open_source
from fcnedge.runtime.backends import OnnxRuntimeBackend, OpenVinoBackend
from fcnedge.runtime.preprocessing import fit_frame

if importlib.util.find_spec("openvino") is None:  # importorskip would import it, telemetry and all
    pytest.skip("the extra openvino is not installed", allow_module_level=True)

GRAPH = "model.fp32.onnx"
BLACK = np.zeros((1, 32, 48, 3), np.uint8)


def alter(folder: Path, change: Callable[[onnx.ModelProto], object]) -> Bundle:
    """The bundle with another graph, its hash made to fit: what a broken or hostile builder would write."""
    model = onnx.load(folder / GRAPH)
    change(model)
    return with_graph(folder, model.SerializeToString())


def with_graph(folder: Path, data: bytes, **more: bytes) -> Bundle:
    text = json.loads((folder / "model.json").read_text())
    for name, content in {GRAPH: data, **more}.items():
        (folder / name).write_bytes(content)
        entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        text["files"][name] = text["files"].get(name, {"precision": None}) | entry
    (folder / "model.json").write_text(json.dumps(text))
    return Bundle.load(folder)


def refusal(bundle: Bundle) -> str:
    with pytest.raises(BackendError) as caught:
        OpenVinoBackend(bundle)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def in_its_own_process(program: str, *words: object, **environment: str) -> list[str]:
    """Lines that the program prints, in a Python that has not imported openvino."""
    command = [sys.executable, "-c", program, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


# What it computes


def test_scores_are_the_convolution_of_the_image(tiny_bundle):
    """Against float64: per class, the mean over an 8x8 cell of ±(pixel - 127.5), + where the class has the channel.

    Up to 382: bfloat16, whose numbers there lie 2 apart, would be far off, and float16 with its 0.25 as well.
    """
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3), np.uint8)
    scores = OpenVinoBackend(Bundle.load(tiny_bundle)).infer(image)
    cells = image[0].reshape(4, 8, 6, 8, 3).mean(axis=(1, 3)) - 127.5
    signs = np.array([[1 if colour >> bit & 1 else -1 for bit in range(3)] for colour in range(8)])
    assert (scores.shape, scores.dtype) == ((1, 8, 4, 6), np.float32)
    np.testing.assert_allclose(scores[0], np.einsum("yxc,kc->kyx", cells, signs), atol=1e-3)


def test_floats_are_float32_on_every_cpu(tiny_bundle):
    """The CPU of this test may have no bfloat16, and then the numbers alone prove nothing."""
    settings = OpenVinoBackend(Bundle.load(tiny_bundle))._request.get_compiled_model()
    assert settings.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"


def test_labels_head_gives_one_class_per_pixel(tmp_path, write_bundle):
    backend = OpenVinoBackend(Bundle.load(write_bundle(tmp_path / "b", head="labels")))
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3), np.uint8)
    labels = backend.infer(image)
    bits = (image[0] > 127).astype(int)
    assert (labels.shape, labels.dtype) == ((1, 32, 48), np.uint8)
    assert (labels[0] == bits[..., 0] + 2 * bits[..., 1] + 4 * bits[..., 2]).all()


def test_result_is_the_callers_own(tiny_bundle):
    """OpenVINO writes each result to the same memory."""
    backend = OpenVinoBackend(Bundle.load(tiny_bundle))
    dark = backend.infer(BLACK)
    before = dark.copy()
    bright = backend.infer(np.full_like(BLACK, 255))
    assert (dark == before).all()
    assert (dark == -bright).all()


def test_calls_from_many_threads_each_get_their_own_answer(tiny_bundle):
    colours = [np.array([255 * (colour >> bit & 1) for bit in range(3)], np.uint8) for colour in range(8)]
    images = [np.broadcast_to(colours[index % 8], BLACK.shape) for index in range(200)]
    with Segmenter(tiny_bundle, "openvino", threads=1) as segment, ThreadPoolExecutor(8) as pool:
        winners = [scores[0].argmax(axis=0) for scores in pool.map(segment.backend.infer, images)]
    assert [set(winner.ravel()) for winner in winners] == [{index % 8} for index in range(200)]


def test_weights_in_a_file_beside_the_graph_are_read(tmp_path, write_bundle):
    """As bundles of large models have them."""
    folder = write_bundle(tmp_path / "b")
    plain = OpenVinoBackend(Bundle.load(folder)).infer(np.full_like(BLACK, 200))
    model = onnx.load(folder / GRAPH)
    weights = model.graph.initializer[0]
    data = weights.raw_data
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "w.data"), ("offset", "0"), ("length", str(len(data)))):
        weights.external_data.add(key=key, value=value)
    bundle = with_graph(folder, model.SerializeToString(), **{"w.data": data})
    assert (OpenVinoBackend(bundle).infer(np.full_like(BLACK, 200)) == plain).all()


@pytest.mark.slow
def test_shipped_model_agrees_with_onnxruntime_on_the_demo_pictures(tmp_path):
    """Scores differ by float32 rounding; at the frame's size that turns fewer than one label in ten thousand."""
    pytest.importorskip("onnxruntime", reason="the extra cpu is not installed")
    pytest.importorskip("skimage", reason="the extra demo is not installed")
    pytest.importorskip("keras", reason="the extra build is not installed")
    command = [Path(sys.executable).with_name("fcn-build"), "model", "fcn8s-lite0-voc", "-o", tmp_path / "b"]
    subprocess.run(command, check=True, capture_output=True)
    bundle = Bundle.load(tmp_path / "b")
    size, fit = (bundle.manifest.input.height, bundle.manifest.input.width), bundle.manifest.input.fit
    openvino, reference = OpenVinoBackend(bundle, threads=2), OnnxRuntimeBackend(bundle, threads=2)
    unequal = pixels = 0
    for frame in open_source("demo://"):
        image = fit_frame(frame.image, size, fit)[0][None]
        found, expected = openvino.infer(image), reference.infer(image)
        assert np.abs(found - expected).max() <= 1e-5 * np.ptp(expected)
        masks = [Segmenter(bundle, backend)(frame.image) for backend in (openvino, reference)]
        unequal, pixels = unequal + int((masks[0] != masks[1]).sum()), pixels + masks[0].size
        assert len(np.unique(masks[1])) > 1  # something is seen
    assert pixels > 0
    assert unequal <= 1e-4 * pixels


# How it is set up


def test_name_and_precision_are_those_that_run(tmp_path, write_bundle):
    backend = OpenVinoBackend(Bundle.load(write_bundle(tmp_path / "b", graph="m.onnx", precision="int8")))
    assert (backend.name, backend.precision) == ("openvino", "int8")


def test_threads_reach_openvino(tiny_bundle):
    with Segmenter(tiny_bundle, "openvino", threads=1) as segment:
        assert isinstance(segment.backend, OpenVinoBackend)
        settings = segment.backend._request.get_compiled_model()
        assert settings.get_property("INFERENCE_NUM_THREADS") == 1


def test_nothing_is_pinned_reported_or_left_behind(tiny_bundle, tmp_path):
    """Telemetry keeps its identifier in the home folder; a model cache would lie in the working folder."""
    program = (
        "import os, sys\n"
        "os.chdir(sys.argv[2])\n"
        "from fcnedge.runtime import Segmenter\n"
        "with Segmenter(sys.argv[1], 'openvino') as segment:\n"
        "    pinned = segment.backend._request.get_compiled_model().get_property('ENABLE_CPU_PINNING')\n"
        "print(pinned, [name for name in sys.modules if 'openvino_telemetry' in name])\n"
        "import openvino_telemetry\n"  # what the application does itself is its own affair
    )
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    assert in_its_own_process(program, tiny_bundle, work, HOME=str(home)) == ["False []"]
    assert [*home.iterdir(), *work.iterdir()] == []


def test_telemetry_that_was_imported_before_is_put_back(tiny_bundle):
    program = (
        "import sys, types\n"
        "own = sys.modules['openvino_telemetry'] = types.ModuleType('openvino_telemetry')\n"
        "from fcnedge.runtime import Segmenter\n"
        "Segmenter(sys.argv[1], 'openvino')\n"
        "print(sys.modules['openvino_telemetry'] is own)\n"
    )
    assert in_its_own_process(program, tiny_bundle) == ["True"]


def test_missing_openvino_names_the_extra(tiny_bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"^openvino is not installed; install it with: pip install 'fcnedge\[openvino"):
        OpenVinoBackend(Bundle.load(tiny_bundle))


def test_closed_backend_says_so(tiny_bundle):
    backend = OpenVinoBackend(Bundle.load(tiny_bundle))
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="the openvino backend is closed"):
        backend.infer(BLACK)


@pytest.mark.parametrize("image", [np.zeros((1, 8, 8, 3), np.uint8), BLACK[0], BLACK.astype(np.float32)])
def test_image_of_another_kind_is_an_error_of_one_line(tiny_bundle, image):
    """OpenVINO itself would take float32 and cut it down to uint8."""
    with pytest.raises(BackendError, match=r"the image is .*, the graph takes uint8 \(1, 32, 48, 3\)\.$"):
        OpenVinoBackend(Bundle.load(tiny_bundle)).infer(image)


# Graphs that are not what model.json says, and graphs that do not run


def retype(value: onnx.ValueInfoProto, kind: int) -> None:
    value.type.tensor_type.elem_type = kind


def renamed_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = model.graph.node[0].input[0] = "input_1"


def any_batch(model: onnx.ModelProto) -> None:
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


def as_type(kind: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[-1].output[0] = "inner"
        model.graph.node.append(helper.make_node("Cast", ["inner"], ["scores"], to=kind))
        retype(model.graph.output[0], kind)

    return change


def another_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3, 32, 48]))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda model: retype(model.graph.input[0], TensorProto.FLOAT), "takes image tensor(float) [1, 32, 48, 3], "),
        (renamed_input, "takes input_1 tensor(uint8) [1, 32, 48, 3], "),
        (any_batch, "takes image tensor(uint8) ['?', 32, 48, 3], "),
        (as_type(TensorProto.DOUBLE), "gives scores tensor(double) [1, 8, 4, 6], "),
        (another_output, "gives scores tensor(float) [1, 8, 4, 6], pixels tensor(float) [1, 3, 32, 48], "),
    ],
)
def test_graph_with_another_interface_is_refused(tiny_bundle, change, complaint):
    assert complaint in refusal(alter(tiny_bundle, change))


def test_half_precision_scores_are_taken(tiny_bundle):
    with Segmenter(alter(tiny_bundle, as_type(TensorProto.FLOAT16)), "openvino") as segment:
        assert segment.backend.infer(BLACK).dtype == np.float16
        assert (segment(np.full((50, 50, 3), (0, 255, 0), np.uint8)) == 2).all()


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Transmogrify"


def loose_end(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[0] = "nobody"


def short_weights(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (unknown_operator, "Transmogrify"),
        (loose_end, "nobody"),
        (short_weights, "'weight'"),
        (lambda model: model.graph.ClearField("node"), '"scores"'),
    ],
)
def test_graph_that_openvino_cannot_run_is_one_sentence_with_the_culprit(tiny_bundle, change, reason, capfd):
    message = refusal(alter(tiny_bundle, change))
    assert message.startswith("openvino 20")
    assert f"cannot run {tiny_bundle / GRAPH}: " in message
    assert reason in message.partition(GRAPH)[2]
    assert "src/" not in message
    assert capfd.readouterr() == ("", "")


def test_damaged_graph_is_one_sentence_and_never_a_crash(tiny_bundle, capfd):
    """A hash proves that nobody changed the file since, not that it was good."""
    good = (tiny_bundle / GRAPH).read_bytes()
    weights = max((constant.raw_data for constant in onnx.load(tiny_bundle / GRAPH).graph.initializer), key=len)
    start = good.index(weights)
    structure = [place for place in range(len(good)) if not start <= place < start + len(weights)]
    rng = np.random.default_rng(5)
    messages = []
    for _ in range(30):
        data = bytearray(good)
        data[structure[rng.integers(len(structure))]] = rng.integers(256)
        try:
            OpenVinoBackend(with_graph(tiny_bundle, bytes(data)), threads=1).infer(BLACK)
        except UserError as error:
            messages.append(str(error))
    assert len(messages) > 5
    assert all(len(message.splitlines()) == 1 for message in messages)
    assert capfd.readouterr() == ("", "")
