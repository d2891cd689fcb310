"""Sidecars of engines: read back as written, and refused by the field that is wrong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from fcnedge.runtime.engine_sidecar import (
    EngineSidecar,
    TensorSpec,
    engine_name,
    parse_sidecar,
    read_sidecar,
    sidecar_path,
)
from fcnedge.runtime.errors import BundleError

SIDECAR = EngineSidecar(
    engine="int8.tensorrt-10.3.0.sm87.engine",
    sha256="ab" * 32,
    bytes=1234,
    library="tensorrt",
    version="10.3.0",
    gpu="Orin",
    compute_capabilities=("8.7",),
    precision="int8",
    route="strongly typed",
    layers={"int8": 40, "float16": 12},
    inspected_by="engine inspector",
    inputs=(TensorSpec("image", "uint8", (1, 384, 384, 3)),),
    outputs=(TensorSpec("scores", "float16", (1, 21, 48, 48)),),
    graph={"model.int8.onnx": "cd" * 32},
    workspace_mb=256,
    dla=False,
    fcnedge="0.1.0",
    seconds=12.5,
)


def edited(**fields: Any) -> str:
    """SIDECAR's JSON with some fields replaced; `...` leaves a field out."""
    data = json.loads(SIDECAR.to_json()) | fields
    return json.dumps({name: value for name, value in data.items() if value is not ...})


@pytest.mark.parametrize(
    "sidecar",
    [
        SIDECAR,
        dataclasses.replace(SIDECAR, gpu=None, compute_capabilities=("8.6", "12.0"), library="tensorrt_rtx"),
        dataclasses.replace(SIDECAR, layers=None, inspected_by=None, dla=True, route="calibration cache"),
    ],
)
def test_sidecar_is_read_back_as_written(sidecar: EngineSidecar, tmp_path: Path):
    engine = tmp_path / sidecar.engine
    sidecar_path(engine).write_text(sidecar.to_json(), encoding="utf-8")
    assert read_sidecar(engine) == sidecar


def test_sidecar_lies_beside_its_engine():
    assert sidecar_path(Path("engines/a.engine")) == Path("engines/a.engine.json")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("engine", 3),
        ("engine", ...),
        ("sha256", "ab"),
        ("sha256", "AB" * 32),
        ("bytes", 0),
        ("bytes", True),
        ("library", "onnxruntime"),
        ("version", ""),
        ("gpu", ...),
        ("gpu", 8.7),
        ("compute_capabilities", []),
        ("compute_capabilities", ["sm87"]),
        ("compute_capabilities", "8.7"),
        ("precision", "fp8"),
        ("route", "guessed"),
        ("layers", ...),
        ("layers", {"int8": -1}),
        ("layers", {"int8": 1.5}),
        ("inspected_by", None),
        ("inspected_by", "nobody"),
        ("inputs", []),
        ("inputs", ["image"]),
        ("inputs", [{"name": "image", "dtype": "uint8", "shape": [1, -1]}]),
        ("outputs", [{"name": "scores", "shape": [1]}]),
        ("graph", {}),
        ("graph", {"model.int8.onnx": "cd"}),
        ("workspace_mb", -1),
        ("dla", 0),
        ("fcnedge", None),
        ("seconds", "fast"),
        ("seconds", -1),
        ("format", 2),
        ("format", ...),
    ],
)
def test_each_wrong_field_is_refused_in_one_sentence(field: str, value: Any):
    with pytest.raises(BundleError) as caught:
        parse_sidecar(edited(**{field: value}), "x.engine.json")
    sentence = str(caught.value)
    assert sentence.startswith("x.engine.json")
    assert "\n" not in sentence
    assert field in sentence


@pytest.mark.parametrize("field", ["layers", "graph"])
@pytest.mark.parametrize("name", ["\x1b[2J", "x" * 5000, ""])
def test_names_that_a_sidecar_chooses_are_checked_and_never_printed_raw(field: str, name: str):
    value = {"layers": 1, "graph": "ab" * 32}[field]
    with pytest.raises(BundleError, match="is not a ") as caught:
        parse_sidecar(edited(**{field: {name: value}}), "x.engine.json")
    assert str(caught.value).startswith(f"x.engine.json: {field}: '")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


def test_inspection_without_layers_is_refused():
    with pytest.raises(BundleError, match="inspected_by must be null where layers is null"):
        parse_sidecar(edited(layers=None), "x.engine.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", b"\xff\xfe\x00", '{"format": NaN}', '{"format": 1, "format": 1}'])
def test_what_is_no_sidecar_is_refused(text):
    with pytest.raises(BundleError):
        parse_sidecar(text, "x.engine.json")


def test_field_that_occurs_twice_is_refused_under_the_sidecars_own_name():
    with pytest.raises(
        BundleError, match=r"^x\.engine\.json: 'format' occurs twice in one object; the bundle was edited"
    ):
        parse_sidecar('{"format": 1, "format": 1}', "x.engine.json")


def test_every_cut_off_sidecar_is_refused():
    text = SIDECAR.to_json().rstrip()
    for length in range(0, len(text), 7):
        with pytest.raises(BundleError):
            parse_sidecar(text[:length], "x.engine.json")


def test_engine_without_sidecar_is_refused(tmp_path: Path):
    (tmp_path / "x.engine").write_bytes(b"engine")
    with pytest.raises(BundleError, match=r"x\.engine has no x\.engine\.json beside it"):
        read_sidecar(tmp_path / "x.engine")


def test_sidecar_of_another_engine_is_refused(tmp_path: Path):
    (tmp_path / "x.engine.json").write_text(SIDECAR.to_json(), encoding="utf-8")
    with pytest.raises(BundleError, match=r"speaks of 'int8\.tensorrt-10\.3\.0\.sm87\.engine', not of 'x\.engine'"):
        read_sidecar(tmp_path / "x.engine")


def test_sidecar_that_cannot_be_read_is_refused(tmp_path: Path):
    (tmp_path / "x.engine.json").mkdir()
    with pytest.raises(BundleError, match=r"x\.engine\.json cannot be read"):
        read_sidecar(tmp_path / "x.engine")


def test_name_holds_all_that_decides_whether_it_runs():
    assert engine_name("int8", "tensorrt", "10.3.0", ["8.7"], dla=False) == "int8.tensorrt-10.3.0.sm87.engine"
    assert (
        engine_name("fp16", "tensorrt_rtx", "1.7.1.116", ["8.6", "12.0"], dla=True)
        == "fp16.tensorrt_rtx-1.7.1.116.sm86-sm120.dla.engine"
    )
