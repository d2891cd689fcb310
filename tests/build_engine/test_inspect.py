"""fcn-build inspect: what it shows is what lies there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import sys

import onnx
import pytest

from fcnedge.build_engine.inspect import describe_bundle, precision_table
from fcnedge.runtime.errors import BundleError


def test_description_is_what_lies_in_the_folder(lite0_bundle):
    description = describe_bundle(lite0_bundle)
    assert (description.name, description.arch) == ("fcn8s-lite0", "fcn8s-lite0")
    assert description.classes == ("class0", "class1", "class2", "class3", "class4")
    assert (description.size, description.fit, description.head) == ("96x64", "stretch", "bilinear, stride 8")
    assert {file.name for file in description.files} == {"model.fp32.onnx", "report.json"}
    for file in description.files:
        data = (lite0_bundle / file.name).read_bytes()
        assert (file.bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    precisions = {file.name: file.precision for file in description.files}
    assert precisions == {"model.fp32.onnx": "fp32", "report.json": None}
    assert description.report == json.loads((lite0_bundle / "report.json").read_text(encoding="utf-8"))


def test_nodes_are_counted_as_onnx_counts_them(lite0_bundle):
    nodes = {file.name: file.nodes for file in describe_bundle(lite0_bundle).files}
    graph = onnx.load(str(lite0_bundle / "model.fp32.onnx")).graph
    assert nodes == {"model.fp32.onnx": len(graph.node), "report.json": None}
    assert len(graph.node) == describe_bundle(lite0_bundle).report["nodes"]["after"]


def test_nodes_are_left_out_without_onnx_ir(lite0_bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    assert all(file.nodes is None for file in describe_bundle(lite0_bundle).files)


def test_text_shows_files_agreement_fusions_and_refusals(lite0_bundle):
    text = describe_bundle(lite0_bundle).text()
    report = json.loads((lite0_bundle / "report.json").read_text(encoding="utf-8"))
    assert f"{lite0_bundle} (verified: sizes and hashes agree)" in text
    assert "fcn8s-lite0 (fcn8s-lite0), 5 classes" in text
    for name, rule in report["fusion"]["rules"].items():
        assert any(line.split() == [name, str(rule["applied"])] for line in text.splitlines())
        for refusal in rule["refused"]:
            assert refusal["reason"] in text
    assert "agreement with Keras" in text
    assert "labels_equal" in text


def test_damaged_bundle_is_refused(lite0_bundle, tmp_path):
    copy = shutil.copytree(lite0_bundle, tmp_path / "copy")
    with (copy / "report.json").open("a", encoding="utf-8") as file:
        file.write(" ")
    with pytest.raises(BundleError, match=r"report\.json has \d+ bytes where model\.json says \d+"):
        describe_bundle(copy)


def test_bundle_without_report_is_described(lite0_bundle, tmp_path):
    copy = shutil.copytree(lite0_bundle, tmp_path / "copy")
    manifest = json.loads((copy / "model.json").read_text(encoding="utf-8"))
    del manifest["files"]["report.json"]
    (copy / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    description = describe_bundle(copy)
    assert description.report == {}
    assert "agreement" not in description.text()


VARIANT = {
    "precision": "int8",
    "bytes": 3_250_000,
    "share_of_fp32": 0.275,
    "labels_equal": 0.98765,
    "score_sqnr_db": None,
    "int8_layers": ["a"],
    "float_layers": [{"node": name, "reason": "depthwise."} for name in "bcdef"] + [{"node": "g", "reason": "score."}],
    "float32_layers": [],
}


def test_precision_table_shows_what_was_measured_and_leaves_free_what_was_not():
    report = {"fp32_bytes": 11_800_000, "precisions": {"int8": VARIANT}, "ranges": None, "accuracy": None}
    head, fp32, int8 = (line.split() for line in precision_table(report).splitlines())
    assert head == ["precision", "MB", "of", "fp32", "labels", "equal", "SQNR", "dB"]
    assert fp32 == ["fp32", "11.80"]
    assert int8 == ["int8", "3.25", "27.5%", "98.77%"]


def test_precision_table_shows_miou_drop_and_exceptions():
    report = {
        "fp32_bytes": 11_800_000,
        "precisions": {"int8": {**VARIANT, "score_sqnr_db": 27.34}},
        "ranges": {"origin": "shipped with m", "method": "percentile", "images": 512},
        "accuracy": {
            "split": "val",
            "pictures": 302,
            "subset": ["cat", "dog"],
            "miou": {"fp32": 0.6, "int8": 0.5975},
            "drop_points": {"int8": 0.25},
            "max_drop": 1.0,
            "exceptions": ["b", "c"],
            "chosen_on": "train, 192 pictures",
        },
    }
    _, fp32, int8, *rest = precision_table(report).splitlines()
    assert fp32.split() == ["fp32", "11.80", "60.00"]
    assert int8.split() == ["int8", "3.25", "27.5%", "98.77%", "27.3", "59.75", "0.25"]
    assert rest == [
        "ranges: shipped with m, percentile of 512 pictures",
        "mIoU: val, 302 pictures at their own size, cat, dog",
        "left in float to hold --max-drop 1, chosen on train, 192 pictures: b, c",
    ]


def test_layers_left_in_float_are_shown_by_reason(lite0_bundle):
    description = describe_bundle(lite0_bundle)
    report = {**description.report, "precisions": {"int8": VARIANT}}
    lines = dataclasses.replace(description, report=report).text().splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("not in int8"))
    assert [line.split("  ")[0] for line in lines[start + 1 : start + 3]] == ["b, c, d and 2 more", "g"]
    assert [line.split()[-1] for line in lines[start + 1 : start + 3]] == ["depthwise.", "score."]
