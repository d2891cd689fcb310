from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from fcnedge.build_engine.engines.recipe import choose_recipe

# Flags by release, of those that matter here, from the help texts of trtexec 8.5.2 and 10, and from
# https://docs.nvidia.com/deeplearning/tensorrt/11.4.1/api/migration/tensorrt-10x-to-11x-trtexec.html
ALWAYS = {"--onnx", "--saveEngine", "--memPoolSize", "--timingCacheFile"}
KNOWN = {
    "8.5": ALWAYS | {"--fp16", "--int8", "--calib", "--buildOnly"},
    "10": ALWAYS | {"--fp16", "--int8", "--calib", "--stronglyTyped", "--skipInference"},
    "11": ALWAYS | {"--skipInference"},
}


def lines_of(capsys: pytest.CaptureFixture[str], tools, *words: object) -> dict[str, list[str]]:
    """Release → words of its command line, as a shell splits them."""
    capsys.readouterr()
    tools.export("trtexec", *words)
    printed = capsys.readouterr().out.splitlines()
    heads = {line.removeprefix("# TensorRT "): at for at, line in enumerate(printed) if line.startswith("# TensorRT ")}
    return {version: shlex.split(printed[at + 1]) for version, at in heads.items()}


@pytest.mark.parametrize(
    ("precision", "version", "graph", "flags"),
    [
        ("fp32", "8.5", "model.fp32.onnx", []),
        ("fp32", "10", "model.fp32.onnx", ["--stronglyTyped"]),
        ("fp32", "11", "model.fp32.onnx", []),
        ("fp16", "8.5", "model.fp16.onnx", ["--fp16"]),
        ("fp16", "10", "model.fp16.onnx", ["--stronglyTyped"]),
        ("fp16", "11", "model.fp16.onnx", []),
        ("int8", "8.5", "model.int8.onnx", ["--int8", "--fp16"]),
        ("int8", "10", "model.int8.tensorrt.onnx", ["--stronglyTyped"]),
        ("int8", "11", "model.int8.tensorrt.onnx", []),
    ],
)
def test_each_release_is_told_the_precision_in_its_own_words(
    typed_bundle, tools, capsys, precision, version, graph, flags
):
    line = lines_of(capsys, tools, typed_bundle.path, "--precision", precision)[version]
    ending = "--buildOnly" if version == "8.5" else "--skipInference"
    assert line == [
        "trtexec",
        f"--onnx={typed_bundle.path / graph}",
        f"--saveEngine=fcn8s-lite0.{precision}.engine",
        *flags,
        "--memPoolSize=workspace:256",
        ending,
    ]
    assert {word.partition("=")[0] for word in line[1:]} <= KNOWN[version]


def test_calibration_cache_goes_with_flags_and_the_fp32_graph(typed_bundle, tools, capsys, tmp_path: Path):
    cache = typed_bundle.path / "calibration.cache"
    words = [typed_bundle.path, "--precision", "int8", "--calibration-cache", cache]
    lines = lines_of(capsys, tools, *words, "-o", tmp_path / "my engine", "--timing-cache", "t", "--workspace", 64)
    assert list(lines) == ["8.5", "10"]
    for version, line in lines.items():
        assert line[1:-1] == [
            f"--onnx={typed_bundle.path / 'model.fp32.onnx'}",
            f"--saveEngine={tmp_path / 'my engine'}",
            "--int8",
            "--fp16",
            f"--calib={cache}",
            "--memPoolSize=workspace:64",
            "--timingCacheFile=t",
        ]
        assert {word.partition("=")[0] for word in line[1:]} <= KNOWN[version]
    said = tools.refusal(capsys, "trtexec", *words, "--version", "11")
    assert "TensorRT 11 has no calibrators" in said


def test_cache_for_another_precision_and_missing_graphs_are_refused(typed_bundle, lite0_bundle, tools, capsys):
    cache = typed_bundle.path / "calibration.cache"
    said = tools.refusal(capsys, "trtexec", typed_bundle.path, "--calibration-cache", cache)
    assert said.startswith("a calibration cache gives INT8 ranges, but --precision is fp32")
    said = tools.refusal(capsys, "trtexec", lite0_bundle, "--precision", "int8")
    assert "holds no int8 graph, only fp32" in said


def test_head_stays_behind_unless_it_is_in_the_graph(typed_bundle, labels_bundle, tools, capsys):
    for bundle, stays in ((typed_bundle, True), (labels_bundle, False)):
        tools.export("trtexec", bundle.path, "--version", "10")
        assert ("The head: the engine gives scores" in capsys.readouterr().out) is stays


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize(
    ("version", "typed", "flagged"), [("8.5", False, True), ("10", True, True), ("11", True, False)]
)
def test_graph_and_flags_are_those_of_fcn_build_engine(typed_bundle, tools, capsys, precision, version, typed, flagged):
    library = SimpleNamespace(
        title="TensorRT", has_strong_typing=typed, has_precision_flags=flagged, has_calibrators=flagged
    )
    recipe = choose_recipe(library, precision, dla=False, calibration_cache=False)
    graph = typed_bundle.model(recipe.graph, "tensorrt" if recipe.strongly_typed else None)
    line = lines_of(capsys, tools, typed_bundle.path, "--precision", precision)[version]
    assert line[1] == f"--onnx={graph}"
    assert {word[2:].upper() for word in line if word in ("--fp16", "--int8")} == set(recipe.flags)
