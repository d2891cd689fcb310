"""The least cost of a frame, and the tables of docs/gpu.md."""

from __future__ import annotations

import re

import pytest

from fcnedge.benchmarks import roofline
from fcnedge.benchmarks.roofline import BOARDS, Board, Network, Stage, read_network, stages, tables

BOARD = Board("B", 1e9, {"fp16": 1.0, "int8": 2.0}, 1e8, "nowhere")
NETWORK = Network((512, 512), 8, 1000, 10**9)


def test_the_slowest_of_memory_link_and_operations_decides():
    assert Stage("memory", memory=2 * 10**6, link=10**5).ideal_ms(BOARD) == pytest.approx(2)
    assert Stage("link", memory=10**6, link=3 * 10**5).ideal_ms(BOARD) == pytest.approx(3)
    assert Stage("operations", memory=1, multiply_adds=2 * 10**9).ideal_ms(BOARD) == pytest.approx(4)
    assert Stage("int8", multiply_adds=2 * 10**9, precision="int8").ideal_ms(BOARD) == pytest.approx(2)


def test_copies_cost_nothing_where_the_memory_is_shared():
    shared = Board("B", 1e9, {"fp16": 1.0}, None, "nowhere")
    assert Stage("frame to GPU", link=10**9).ideal_ms(shared) == 0


def test_bytes_follow_from_the_shapes():
    by_name = {stage.name: stage for stage in stages(NETWORK)}
    assert by_name["frame to GPU"].link == 720 * 1280 * 3
    assert by_name["preprocess"].memory == 720 * 1280 * 3 + 512 * 512 * 3
    assert by_name["network, INT8"].memory == 1000 + 512 * 512 * 3 + 21 * 64 * 64 * 2
    assert by_name["scores to labels"].memory == 21 * 64 * 64 * 2 + 720 * 1280


def test_network_of_the_committed_build_has_the_known_multiply_adds():
    network = read_network()
    assert network.size == (512, 512)
    assert network.stride == 8
    assert network.multiply_adds == pytest.approx(111e9, rel=0.01)  # FCN-8s on VGG16 at 512x512
    assert network.weights == pytest.approx(134e6, rel=0.01)


def test_the_page_has_the_tables_of_the_script():
    text = roofline.PAGE.read_text(encoding="utf-8")
    begin = text.index("\n", text.index(roofline.BEGIN)) + 1
    block = text[begin : text.index(roofline.END)]
    assert block == tables(read_network(), roofline._measured(block))
    assert all(f"**{board.name}**" in block for board in BOARDS)


def test_measured_numbers_survive_a_rewrite(tmp_path, monkeypatch):
    page = tmp_path / "gpu.md"
    page.write_text(f"before\n{roofline.BEGIN} x -->\n{roofline.END}\nafter\n", encoding="utf-8")
    monkeypatch.setattr(roofline, "PAGE", page)
    monkeypatch.setattr("sys.argv", ["roofline.py", "--check"])
    assert roofline.main() == 3
    monkeypatch.setattr("sys.argv", ["roofline.py"])
    assert roofline.main() == 0
    text = page.read_text(encoding="utf-8")
    other_boards, board, rest = text.partition("**AGX Xavier**")
    noted = other_boards + board + re.sub(r"(\| preprocess \| \S+ \|)  \|", r"\1 1.25 |", rest, count=1)
    assert "| 1.25 |" in noted
    page.write_text(noted, encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["roofline.py", "--check"])
    assert roofline.main() == 0
    monkeypatch.setattr("sys.argv", ["roofline.py"])
    roofline.main()
    assert page.read_text(encoding="utf-8") == noted
    assert noted.startswith("before\n")
    assert noted.endswith("\nafter\n")
