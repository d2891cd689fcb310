"""A bundle is verified as a whole: what is damaged, swapped, missing or outside is refused in one sentence."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fcnedge.runtime.bundle import Bundle, sha256_of
from fcnedge.runtime.errors import BundleError

GRAPH = "model.fp32.onnx"


def refusal(path: Path | str) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.load(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def edit_manifest(folder: Path, **changes: Any) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def listed(data: bytes, precision: str | None = None) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "precision": precision}


def replace_listed(folder: Path, name: str, data: bytes, precision: str | None = None) -> None:
    """Write a file and list it as it is: an attacker's bundle, consistent in itself."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    files = json.loads((folder / "model.json").read_text())["files"]
    edit_manifest(folder, files=files | {name: listed(data, precision)})


def test_bundle_that_verifies_is_loaded(tiny_bundle):
    for path in (tiny_bundle, str(tiny_bundle), f"{tiny_bundle}/"):
        bundle = Bundle.load(path)
        assert bundle.manifest.name == "tiny"
        assert bundle.model().samefile(tiny_bundle / GRAPH)
        assert bundle.model("fp32") == bundle.model()


def test_bundle_is_found_from_a_relative_path(tiny_bundle, monkeypatch):
    monkeypatch.chdir(tiny_bundle.parent)
    assert Bundle.load("tiny").model().read_bytes() == (tiny_bundle / GRAPH).read_bytes()


def test_file_that_is_not_listed_is_no_concern(tiny_bundle):
    (tiny_bundle / "notes.txt").write_text("mine")
    assert "notes.txt" not in Bundle.load(tiny_bundle).manifest.files


def test_sha256_is_hashlibs_for_a_file_larger_than_one_piece(tmp_path):
    data = np.random.default_rng(0).bytes((1 << 20) + 12345)
    (tmp_path / "x").write_bytes(data)
    assert sha256_of(tmp_path / "x") == hashlib.sha256(data).hexdigest()


# Files that are not what model.json says


@pytest.mark.parametrize("left", [0, 1, -1])
def test_truncated_file_is_refused_with_both_sizes(tiny_bundle, left):
    data = (tiny_bundle / GRAPH).read_bytes()
    (tiny_bundle / GRAPH).write_bytes(data[:left])
    message = refusal(tiny_bundle)
    assert f"{GRAPH} has {len(data[:left])} bytes where model.json says {len(data)}; copy the bundle again" in message


def test_changed_byte_is_refused_with_both_hashes(tiny_bundle):
    data = bytearray((tiny_bundle / GRAPH).read_bytes())
    before = hashlib.sha256(data).hexdigest()
    data[len(data) // 2] ^= 1
    (tiny_bundle / GRAPH).write_bytes(data)
    message = refusal(tiny_bundle)
    assert f"{GRAPH} was changed after the build" in message
    assert hashlib.sha256(data).hexdigest()[:12] in message
    assert before[:12] in message
    assert "rebuild the bundle or copy it again" in message


def test_two_files_exchanged_are_refused(tmp_path, write_bundle):
    """Of equal length, so that only the hash can tell."""
    folder = write_bundle(tmp_path / "b", files={"a.bin": b"first", "b.bin": b"other"})
    (folder / "a.bin").write_bytes(b"other")
    (folder / "b.bin").write_bytes(b"first")
    assert "a.bin was changed after the build" in refusal(folder)


def test_exchanged_entries_of_the_manifest_are_refused(tmp_path, write_bundle):
    folder = write_bundle(tmp_path / "b", files={"other.onnx": b"x"})
    files = json.loads((folder / "model.json").read_text())["files"]
    edit_manifest(folder, files=files | {GRAPH: files["other.onnx"], "other.onnx": files[GRAPH]})
    assert f"{GRAPH} has " in refusal(folder)


@pytest.mark.parametrize("name", [GRAPH, "report.json"])
def test_missing_file_is_refused(tiny_bundle, name):
    (tiny_bundle / name).unlink()
    assert f"{name} is missing, model.json lists it; copy the bundle again" in refusal(tiny_bundle)


def test_edited_manifest_is_refused(tiny_bundle):
    edit_manifest(tiny_bundle, classes=["only one"])
    assert "classes must be a list of 2 to 255 entries" in refusal(tiny_bundle)


# Paths


def test_link_out_of_the_folder_is_refused(tiny_bundle, tmp_path):
    """The very same bytes: what matters is where they lie."""
    (tiny_bundle / GRAPH).rename(tmp_path / "outside.onnx")
    (tiny_bundle / GRAPH).symlink_to("../outside.onnx")
    assert f"{GRAPH} leads out of the bundle or is not a file; it is refused" in refusal(tiny_bundle)


def test_linked_folder_out_of_the_folder_is_refused(tmp_path, write_bundle):
    folder = write_bundle(tmp_path / "b", files={"engines/a.plan": b"plan"})
    (folder / "engines").rename(tmp_path / "engines")
    (folder / "engines").symlink_to(tmp_path / "engines")
    assert "a.plan leads out of the bundle" in refusal(folder)


def test_manifest_that_is_a_link_out_of_the_folder_is_refused(tiny_bundle, tmp_path):
    (tiny_bundle / "model.json").rename(tmp_path / "elsewhere.json")
    (tiny_bundle / "model.json").symlink_to(tmp_path / "elsewhere.json")
    assert "model.json leads out of the bundle" in refusal(tiny_bundle)


def test_links_inside_the_folder_and_to_the_folder_are_followed(tiny_bundle, tmp_path):
    (tiny_bundle / GRAPH).rename(tiny_bundle / "real.onnx")
    (tiny_bundle / GRAPH).symlink_to("real.onnx")
    (tmp_path / "link").symlink_to("tiny")
    assert Bundle.load(tmp_path / "link").model().samefile(tiny_bundle / "real.onnx")


def test_links_in_a_circle_are_refused(tiny_bundle):
    (tiny_bundle / GRAPH).unlink()
    (tiny_bundle / GRAPH).symlink_to(GRAPH)
    assert GRAPH in refusal(tiny_bundle)


def test_dangling_link_is_refused(tiny_bundle):
    (tiny_bundle / GRAPH).unlink()
    (tiny_bundle / GRAPH).symlink_to("nowhere")
    assert f"{GRAPH} is missing" in refusal(tiny_bundle)


def test_folder_or_pipe_in_place_of_a_file_is_refused(tiny_bundle):
    (tiny_bundle / GRAPH).unlink()
    (tiny_bundle / GRAPH).mkdir()
    assert f"{GRAPH} leads out of the bundle or is not a file" in refusal(tiny_bundle)
    (tiny_bundle / GRAPH).rmdir()
    os.mkfifo(tiny_bundle / GRAPH)  # opening one would wait for ever
    assert f"{GRAPH} leads out of the bundle or is not a file" in refusal(tiny_bundle)


def test_missing_folder_says_how_to_build_one(tmp_path):
    assert f"there is no bundle at {tmp_path / 'x'}; build one with: fcn-build model" in refusal(tmp_path / "x")


def test_file_instead_of_a_folder_is_refused(tiny_bundle):
    assert "there is no bundle at " in refusal(tiny_bundle / GRAPH)


def test_folder_without_a_manifest_is_refused(tmp_path):
    assert "is not a bundle: it has no model.json" in refusal(tmp_path)


def test_manifest_that_is_a_folder_is_refused(tmp_path):
    (tmp_path / "model.json").mkdir()
    assert "is not a bundle: it has no model.json" in refusal(tmp_path)


def test_path_that_no_system_takes_is_refused():
    assert "cannot be read (" in refusal("x" * 5000)


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["model.json", GRAPH, "."])
def test_what_may_not_be_read_is_refused(tiny_bundle, name):
    (tiny_bundle / name).chmod(0)
    try:
        assert "cannot be read (Permission denied); check its permissions" in refusal(tiny_bundle)
    finally:
        (tiny_bundle / name).chmod(0o700)


@pytest.mark.parametrize("name", ["model.json", GRAPH])
def test_error_while_reading_is_refused(tiny_bundle, name, monkeypatch):
    """As a dying memory card gives it; for root too, who may read what is forbidden."""
    real_open = Path.open

    def failing(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.name == name:
            raise OSError(5, "Input/output error")
        return real_open(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", failing)
    assert f"{name} cannot be read (Input/output error)" in refusal(tiny_bundle)


# Choosing a graph


def test_precision_that_is_not_held_says_what_is(tiny_bundle):
    with pytest.raises(BundleError, match=r"holds no fp16 graph, only fp32; choose precision fp32 or auto\.$"):
        Bundle.load(tiny_bundle).model("fp16")


def test_auto_takes_the_most_exact_graph(tmp_path, write_bundle):
    folder = write_bundle(tmp_path / "b", graph="model.int8.onnx", precision="int8")
    replace_listed(folder, "model.fp16.onnx", (folder / "model.int8.onnx").read_bytes(), "fp16")
    bundle = Bundle.load(folder)
    assert [bundle.model(name).name for name in ("auto", "fp16", "int8")] == [
        "model.fp16.onnx",
        "model.fp16.onnx",
        "model.int8.onnx",
    ]
    with pytest.raises(BundleError, match="only fp16 and int8"):
        bundle.model("fp32")


def test_graph_of_a_target_is_taken_where_there_is_one(tmp_path, write_bundle):
    folder = write_bundle(tmp_path / "b")
    graph = (folder / GRAPH).read_bytes()
    for name, words in (
        ("model.int8.onnx", {"precision": "int8"}),
        ("model.int8.tensorrt.onnx", {"precision": "int8", "target": "tensorrt"}),
        ("model.int8.tensorrt.onnx.data", {"precision": "int8", "target": "tensorrt"}),
    ):
        replace_listed(folder, name, graph)
        files = json.loads((folder / "model.json").read_text())["files"]
        edit_manifest(folder, files=files | {name: files[name] | words})
    bundle = Bundle.load(folder)
    assert bundle.manifest.precisions == ("fp32", "int8")
    assert [bundle.model("int8", target).name for target in (None, "vnni", "tensorrt")] == [
        "model.int8.onnx",
        "model.int8.onnx",
        "model.int8.tensorrt.onnx",
    ]
    assert bundle.model("fp32", "tensorrt") == bundle.model("fp32")
    files = bundle.manifest.files
    assert bundle.graph_files(bundle.model("int8", "tensorrt")) == {
        name: files[name] for name in ("model.int8.tensorrt.onnx", "model.int8.tensorrt.onnx.data")
    }
    assert list(bundle.graph_files(bundle.model("int8"))) == ["model.int8.onnx"]


def test_graph_that_serves_one_target_alone_is_none_for_the_others(tmp_path, write_bundle):
    folder = write_bundle(tmp_path / "b")
    files = json.loads((folder / "model.json").read_text())["files"]
    edit_manifest(folder, files={GRAPH: files[GRAPH] | {"target": "tensorrt"}})
    bundle = Bundle.load(folder)
    assert bundle.manifest.precisions == ()
    assert bundle.model("fp32", "tensorrt").name == GRAPH
    with pytest.raises(BundleError, match="holds no graph that runs anywhere; rebuild it with fcn-build"):
        bundle.model()


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_bundle_without_a_graph_says_so(tmp_path, write_bundle, precision):
    with pytest.raises(BundleError, match="holds no graph that runs anywhere"):
        Bundle.load(write_bundle(tmp_path / "b", graph=None)).model(precision)


# What a graph may read beside itself


def graph_reading(location: str) -> bytes:
    """An ONNX graph whose only weight lies in another file."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


@pytest.mark.parametrize(
    "location",
    [
        "../secret.bin",
        "{parent}/secret.bin",
        "link.bin",
        "hard.bin",
        "unlisted.bin",
        "folder/../../secret.bin",
        "linked-folder/secret.bin",
        "./weights.bin",
        "../{name}/weights.bin",
        "weights.bin/",
        "WEIGHTS.BIN",
        "/proc/self/environ",
        "*/_ORT_MEM_ADDR_/*",
        "\x1b[2J\n",
        "",
    ],
)
def test_graph_that_reads_what_is_not_listed_is_refused(tiny_bundle, tmp_path, location):
    (tmp_path / "secret.bin").write_bytes(bytes(12))
    (tiny_bundle / "unlisted.bin").write_bytes(bytes(12))
    (tiny_bundle / "folder").mkdir()
    (tiny_bundle / "link.bin").symlink_to("../secret.bin")
    (tiny_bundle / "hard.bin").hardlink_to(tmp_path / "secret.bin")
    (tiny_bundle / "linked-folder").symlink_to("..")
    replace_listed(tiny_bundle, "weights.bin", bytes(12))
    location = location.format(parent=tmp_path, name=tiny_bundle.name)
    replace_listed(tiny_bundle, GRAPH, graph_reading(location), "fp32")
    assert f"{GRAPH} reads the file {location!a}, which model.json does not list" in refusal(tiny_bundle)


def test_listed_link_out_of_the_folder_is_refused_whatever_reads_it(tiny_bundle, tmp_path):
    (tmp_path / "secret.bin").write_bytes(bytes(12))
    replace_listed(tiny_bundle, "weights.bin", bytes(12))
    replace_listed(tiny_bundle, GRAPH, graph_reading("weights.bin"), "fp32")
    (tiny_bundle / "weights.bin").unlink()
    (tiny_bundle / "weights.bin").symlink_to("../secret.bin")
    assert "weights.bin leads out of the bundle" in refusal(tiny_bundle)


@pytest.mark.parametrize("folder", ["", "deep/"])
def test_weights_beside_the_graph_are_read_when_listed(tiny_bundle, folder):
    ort = pytest.importorskip("onnxruntime")
    weights = np.array([1, 2, 3], np.float32)
    replace_listed(tiny_bundle, f"{folder}weights.bin", weights.tobytes())
    replace_listed(tiny_bundle, f"{folder}{GRAPH}", graph_reading("weights.bin"), "fp32")
    path = Bundle.load(tiny_bundle).path / f"{folder}{GRAPH}"
    (sums,) = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": weights})
    assert sums.tolist() == [2, 4, 6]


@pytest.mark.parametrize("name", ["weights.bin", "deep/weights.bin"])
def test_weights_are_looked_for_beside_their_graph(tiny_bundle, name):
    """ONNX counts locations from the graph's own folder: the same name elsewhere in the bundle is another file."""
    replace_listed(tiny_bundle, name, bytes(12))
    other = GRAPH if name.startswith("deep/") else f"deep/{GRAPH}"
    replace_listed(tiny_bundle, other, graph_reading("weights.bin"), "fp32")
    assert "which model.json does not list" in refusal(tiny_bundle)


@pytest.mark.parametrize("data", [b"", b"no graph at all", b"\x3a\xff\xff\xff\xff\x0f", bytes(100)])
def test_listed_file_that_is_no_onnx_is_refused(tiny_bundle, data):
    replace_listed(tiny_bundle, GRAPH, data, "fp32")
    assert f"{GRAPH} is not an ONNX graph" in refusal(tiny_bundle)


def test_graph_with_its_weights_inside_reads_nothing(tiny_bundle):
    assert onnx.load(tiny_bundle / GRAPH).graph.initializer, "the tiny graph has weights"
    assert set(Bundle.load(tiny_bundle).manifest.files) == {GRAPH, "report.json"}
