"""The least cost of a frame, and the tables of docs/gpu.md."""

from __future__ import annotations

import re

import pytest

from fcnedge.benchmarks import roofline
from fcnedge.benchmarks.roofline import BOARDS, Network, read_lite0, read_networks, read_vgg16, stages, tables

NETWORK = Network("net", (512, 512), 8, 1000, 10**9, 10**8)


def test_bytes_and_operations_follow_from_the_shapes():
    by_name = {stage.name: stage for stage in stages(NETWORK)}
    assert by_name["frame to GPU"].link == 720 * 1280 * 3
    assert by_name["network, INT8"].memory == 1000 + 512 * 512 * 3 + 21 * 64 * 64 * 2
    assert by_name["network, FP16"].memory == 2000 + 512 * 512 * 3 + 21 * 64 * 64 * 2
    assert by_name["network, FP16"].multiply_adds == 9 * 10**8
    assert by_name["network, FP16"].cuda_multiply_adds == 10**8
    assert by_name["scores to labels"].memory == 21 * 64 * 64 * 2 + 720 * 1280


def test_network_of_the_committed_build_has_the_known_multiply_adds():
    network = read_vgg16()
    assert network.size == (512, 512)
    assert network.stride == 8
    assert network.multiply_adds == pytest.approx(111e9, rel=0.01)  # FCN-8s on VGG16 at 512x512
    assert network.weights == pytest.approx(134e6, rel=0.01)


def test_default_model_of_the_committed_prediction_is_lite0():
    network = read_lite0()
    assert (network.name, network.size) == ("fcn8s-lite0-voc", (384, 384))
    assert network.weights == pytest.approx(3.39e6, rel=0.01)  # EfficientNet-lite0 without its classifier, and the head
    assert network.multiply_adds == pytest.approx(1.13e9, rel=0.01)
    assert 0.05 < network.depthwise_multiply_adds / network.multiply_adds < 0.15


def test_the_page_has_the_tables_of_the_script():
    text = roofline.PAGE.read_text(encoding="utf-8")
    begin = text.index("\n", text.index(roofline.BEGIN)) + 1
    block = text[begin : text.index(roofline.END)]
    assert block == tables(read_networks(), roofline._measured(block))
    assert all(f"**{board.title}**" in block for board in BOARDS)


def test_measured_numbers_survive_a_rewrite(tmp_path, monkeypatch):
    page = tmp_path / "gpu.md"
    page.write_text(f"before\n{roofline.BEGIN} x -->\n{roofline.END}\nafter\n", encoding="utf-8")
    monkeypatch.setattr(roofline, "PAGE", page)
    monkeypatch.setattr("sys.argv", ["roofline.py", "--check"])
    assert roofline.main() == 3
    monkeypatch.setattr("sys.argv", ["roofline.py"])
    assert roofline.main() == 0
    text = page.read_text(encoding="utf-8")
    before, network, rest = text.partition("### FCN-8s on VGG16")
    others, board, rest = rest.partition("**Jetson AGX Xavier**")
    rest = re.sub(r"(\| preprocess \| \S+ \|)  \|", r"\1 1.25 |", rest, count=1)
    noted = before + network + others + board + rest
    assert noted.count("| 1.25 |") == 1
    page.write_text(noted, encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["roofline.py", "--check"])
    assert roofline.main() == 0
    monkeypatch.setattr("sys.argv", ["roofline.py"])
    roofline.main()
    assert page.read_text(encoding="utf-8") == noted
    assert noted.startswith("before\n")
    assert noted.endswith("\nafter\n")
