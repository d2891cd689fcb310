"""The ONNX Runtime backend runs what model.json describes and nothing else."""

from __future__ import annotations

import hashlib
import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fcnedge.runtime import BackendError, Bundle, Segmenter, UserError
from fcnedge.runtime.backends import OnnxRuntimeBackend

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra cpu is not installed")

GRAPH = "model.fp32.onnx"


def alter(folder: Path, change: Callable[[onnx.ModelProto], object]) -> Bundle:
    """The bundle with another graph, its hash made to fit: what a broken or hostile builder would write."""
    model = onnx.load(folder / GRAPH)
    change(model)
    return with_graph(folder, model.SerializeToString())


def with_graph(folder: Path, data: bytes) -> Bundle:
    (folder / GRAPH).write_bytes(data)
    text = json.loads((folder / "model.json").read_text())
    text["files"][GRAPH] |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (folder / "model.json").write_text(json.dumps(text))
    return Bundle.load(folder)


def refusal(bundle: Bundle) -> str:
    with pytest.raises(BackendError) as caught:
        OnnxRuntimeBackend(bundle)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_scores_are_the_convolution_of_the_image(tiny_bundle):
    """Against float64: per class, the mean over an 8x8 cell of ±(pixel - 127.5), + where the class has the channel."""
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3), np.uint8)
    scores = OnnxRuntimeBackend(Bundle.load(tiny_bundle)).infer(image)
    cells = image[0].reshape(4, 8, 6, 8, 3).mean(axis=(1, 3)) - 127.5
    signs = np.array([[1 if colour >> bit & 1 else -1 for bit in range(3)] for colour in range(8)])
    assert (scores.shape, scores.dtype) == ((1, 8, 4, 6), np.float32)
    np.testing.assert_allclose(scores[0], np.einsum("yxc,kc->kyx", cells, signs), atol=1e-3)


def test_name_and_precision_are_those_that_run(tmp_path, write_bundle):
    backend = OnnxRuntimeBackend(Bundle.load(write_bundle(tmp_path / "b", graph="m.onnx", precision="int8")))
    assert (backend.name, backend.precision) == ("onnxruntime", "int8")


def test_graph_in_a_folder_of_the_bundle_runs(tmp_path, write_bundle):
    backend = OnnxRuntimeBackend(Bundle.load(write_bundle(tmp_path / "b", graph="graphs/model.fp16.onnx")), "fp32")
    assert backend.precision == "fp32"
    assert backend.infer(np.zeros((1, 32, 48, 3), np.uint8)).shape == (1, 8, 4, 6)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_reach_the_session(tiny_bundle, threads):
    with Segmenter(tiny_bundle, "onnxruntime", threads=threads) as segment:
        assert isinstance(segment.backend, OnnxRuntimeBackend)
        assert segment.backend._session.get_session_options().intra_op_num_threads == threads


def test_without_a_wish_onnxruntime_chooses_the_threads(tiny_bundle):
    options = OnnxRuntimeBackend(Bundle.load(tiny_bundle))._session.get_session_options()
    assert options.intra_op_num_threads == 0  # ONNX Runtime's own "one per core"


def test_closed_backend_says_so(tiny_bundle):
    backend = OnnxRuntimeBackend(Bundle.load(tiny_bundle))
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="the onnxruntime backend is closed"):
        backend.infer(np.zeros((1, 32, 48, 3), np.uint8))


def test_image_of_another_size_is_an_error_of_one_line(tiny_bundle):
    with pytest.raises(BackendError, match="onnxruntime failed on this frame: ") as caught:
        OnnxRuntimeBackend(Bundle.load(tiny_bundle)).infer(np.zeros((1, 8, 8, 3), np.uint8))
    assert len(str(caught.value).splitlines()) == 1


# Graphs that are not what model.json says


def retype(value: onnx.ValueInfoProto, kind: int) -> None:
    value.type.tensor_type.elem_type = kind


def resize(value: onnx.ValueInfoProto, axis: int, size: int | str) -> None:
    dimension = value.type.tensor_type.shape.dim[axis]
    if isinstance(size, str):
        dimension.dim_param = size
    else:
        dimension.dim_value = size


def rename(model: onnx.ModelProto, old: str, new: str) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.name = new if value.name == old else value.name
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]


def more_rows(model: onnx.ModelProto) -> None:
    resize(model.graph.input[0], 1, 40)
    resize(model.graph.output[0], 2, 5)


def any_batch(model: onnx.ModelProto) -> None:
    resize(model.graph.input[0], 0, "batch")
    resize(model.graph.output[0], 0, "batch")


def another_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("threshold", TensorProto.FLOAT, [1]))


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda model: retype(model.graph.input[0], TensorProto.FLOAT), "image tensor(float) [1, 32, 48, 3]"),
        (lambda model: rename(model, "image", "input_1"), "input_1 tensor(uint8) [1, 32, 48, 3]"),
        (more_rows, "image tensor(uint8) [1, 40, 48, 3]"),
        (any_batch, "image tensor(uint8) ['batch', 32, 48, 3]"),
        (another_input, "image tensor(uint8) [1, 32, 48, 3], threshold tensor(float) [1]"),
    ],
)
def test_graph_that_takes_something_else_is_refused(tiny_bundle, change, got):
    message = refusal(alter(tiny_bundle, change))
    assert f"the graph takes {got}, model.json says image tensor(uint8) [1, 32, 48, 3]; rebuild the bundle." in message


def another_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3, 32, 48]))


def as_doubles(model: onnx.ModelProto) -> None:
    model.graph.node[-1].output[0] = "narrow"
    model.graph.node.append(helper.make_node("Cast", ["narrow"], ["scores"], to=TensorProto.DOUBLE))
    retype(model.graph.output[0], TensorProto.DOUBLE)


def one_class_less(model: onnx.ModelProto) -> None:
    for constant in model.graph.initializer:
        array = onnx.numpy_helper.to_array(constant)[:7]
        constant.CopyFrom(onnx.numpy_helper.from_array(array, constant.name))
    resize(model.graph.output[0], 1, 7)


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (one_class_less, "scores tensor(float) [1, 7, 4, 6]"),
        (as_doubles, "scores tensor(double) [1, 8, 4, 6]"),
        (lambda model: rename(model, "scores", "full_scores"), "full_scores tensor(float) [1, 8, 4, 6]"),
        (another_output, "scores tensor(float) [1, 8, 4, 6], pixels tensor(float) [1, 3, 32, 48]"),
    ],
)
def test_graph_that_gives_something_else_is_refused(tiny_bundle, change, got):
    message = refusal(alter(tiny_bundle, change))
    expected = "scores tensor(float) [1, 8, 4, 6] or scores tensor(float16) [1, 8, 4, 6]"
    assert f"the graph gives {got}, model.json says {expected}; rebuild the bundle." in message


def test_scores_where_labels_were_promised_are_refused(tiny_bundle):
    text = json.loads((tiny_bundle / "model.json").read_text())
    text["head"]["kind"] = "labels"
    (tiny_bundle / "model.json").write_text(json.dumps(text))
    assert "model.json says labels tensor(uint8) [1, 32, 48]" in refusal(Bundle.load(tiny_bundle))


def test_half_precision_scores_are_taken(tiny_bundle):
    def halve(model: onnx.ModelProto) -> None:
        model.graph.node[-1].output[0] = "wide"
        model.graph.node.append(helper.make_node("Cast", ["wide"], ["scores"], to=TensorProto.FLOAT16))
        retype(model.graph.output[0], TensorProto.FLOAT16)

    with Segmenter(alter(tiny_bundle, halve), "onnxruntime") as segment:
        assert (segment(np.full((50, 50, 3), (0, 255, 0), np.uint8)) == 2).all()


# Graphs that do not run, with hashes that fit


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Transmogrify"


def loose_end(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[0] = "nobody"


def short_weights(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]


def from_the_future(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 999


@pytest.mark.parametrize(
    "change",
    [
        unknown_operator,
        loose_end,
        short_weights,
        from_the_future,
        lambda model: model.graph.ClearField("node"),
        lambda model: model.ClearField("graph"),
        lambda model: model.ClearField("opset_import"),
    ],
)
def test_graph_that_onnxruntime_cannot_run_is_one_sentence(tiny_bundle, change):
    message = refusal(alter(tiny_bundle, change))
    assert "onnxruntime" in message
    assert GRAPH in message


def test_damaged_graph_is_one_sentence_and_never_a_crash(tiny_bundle, capfd):
    """A hash proves that nobody changed the file since, not that it was good. Damage to weights alone goes unseen."""
    good = (tiny_bundle / GRAPH).read_bytes()
    weights = max((constant.raw_data for constant in onnx.load(tiny_bundle / GRAPH).graph.initializer), key=len)
    start = good.index(weights)
    structure = [place for place in range(len(good)) if not start <= place < start + len(weights)]
    rng = np.random.default_rng(5)
    messages = []
    for _ in range(60):
        data = bytearray(good)
        data[structure[rng.integers(len(structure))]] = rng.integers(256)
        try:
            backend = OnnxRuntimeBackend(with_graph(tiny_bundle, bytes(data)))
            backend.infer(np.zeros((1, 32, 48, 3), np.uint8))
        except UserError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert all(len(message.splitlines()) == 1 for message in messages)
    printed = capfd.readouterr()
    if "enable_fallback" in inspect.signature(onnxruntime.capi.onnxruntime_inference_collection.Session).parameters:
        assert printed == (
            "",
            "",
        )  # older versions print some errors as well as raising them, and cannot be told not to


def test_missing_onnxruntime_names_the_extra(tiny_bundle):
    program = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from fcnedge.runtime import Segmenter, UserError\n"
        "try: Segmenter(sys.argv[1], 'onnxruntime')\n"
        "except UserError as error: print(error)\n"
    )
    command = [sys.executable, "-c", program, str(tiny_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    assert done.stdout == "onnxruntime is not installed; install it with: pip install 'fcnedge[cpu]'\n"
