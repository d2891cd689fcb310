"""fcn-build inspect: what it shows is what lies there."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys

import onnx
import pytest

from fcnedge.build_engine.inspect import describe_bundle
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
