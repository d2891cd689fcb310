"""The README's numbers are those of the committed result files, and nothing else of it is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fcnedge.benchmarks import readme_numbers
from fcnedge.benchmarks.readme_numbers import numbers, with_numbers

README = readme_numbers.ROOT / "README.md"
RESULTS = (
    *("sizes.json", "accuracy.json", "head.json", "build-fcn8s-vgg16.json"),
    *("compare.json", "latency.json"),
)
TEXT = "# x\n<!-- numbers: written by a script -->\nold\n\nold too\n<!-- end of numbers -->\n## Install\nold\n"

ROW = {
    "model": "m",
    "size": "96x64 stretch",
    "subset": ["cat", "dog"],
    "pictures": 302,
    "miou": 0.5125,
    "miou_subset": 0.6789,
    "pixel_accuracy": 0.9012,
    "iou": {"cat": 0.5, "dog": 0.7, "cow": 0.3},
    "p50_ms": 12.4,
}
SIZES = {"machine": "a machine", "threads": 2, "rows": [ROW, ROW | {"size": "64x64 stretch", "p50_ms": 9.6}]}
ACCURACY_ROW = {
    "size": "384x384 stretch",
    "precision": "fp32",
    "backend": "openvino",
    "graph_bytes": 13_576_571,
    "miou_subset": 0.80533,
    "drop_points": -0.0,
    "labels_equal": 1.0,
    "p50_ms": 24.9,
    "iou": {"cat": 0.9, "bus": 0.0, "cow": 0.3, "sofa": 0.2994, "chair": 0.0506},
}
INT8_ROW = {"precision": "int8", "graph_bytes": 3_729_588, "miou_subset": 0.8, "drop_points": 0.533}
INT8_ROW |= {"iou": {"cat": 0.1}}
ACCURACY = {"rows": [ACCURACY_ROW, ACCURACY_ROW | INT8_ROW | {"labels_equal": 0.996}]}
HEAD = {"pictures": 100, "ratio": 34.4, "sparse_ms": 1.94, "dense_ms": 66.8, "unequal_pixels": 0}
BUILD = {
    "weights_bytes": 537_000_000,
    "size": "512x512",
    "seconds": {"export": 30.0, "fuse": 12.4},
    "peak_rss_bytes": 2_340_000_000,
    "agreement": {"pixels_unequal": 0, "pixels_compared": 1_048_576},
}
COMPARED = {"name": "ours", "p50_ms": 5.6, "ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0, "miou7": 0.8044}
BY_HAND = {"name": "by hand", "p50_ms": 28.42, "ratio": 5.12, "ratio_low": 4.96, "ratio_high": 5.23, "miou7": 0.8042}
SLOW = {"name": "slow", "p50_ms": 7029.0, "ratio": 1151.5, "ratio_low": 1064.9, "ratio_high": 1319.9, "miou7": None}
GONE = {"name": "gone", "p50_ms": None, "ratio": None, "ratio_low": None, "ratio_high": None, "miou7": None}
COMPARE = {"threads": 2, "frame_size": "500x375", "reference": "ours", "rows": [SLOW, BY_HAND, GONE, COMPARED]}
LATENCY = {
    "model": {"backend": "openvino", "precision": "fp32"},
    "source": {"frame_sizes": ["480x360"]},
    "stages": {"end_to_end": {"p50_ms": 10.3, "p99_ms": 12.64}},
    "throughput_fps": 94.8,
}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder of result files that stands for benchmarks/results."""
    for name, content in zip(RESULTS, (SIZES, ACCURACY, HEAD, BUILD, COMPARE, LATENCY), strict=True):
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.setattr(readme_numbers, "RESULTS", tmp_path)
    return tmp_path


def test_only_what_stands_between_the_markers_is_replaced():
    new = with_numbers(TEXT, "| 1 |\n")
    assert new == "# x\n<!-- numbers: written by a script -->\n| 1 |\n<!-- end of numbers -->\n## Install\nold\n"


def test_replacing_twice_changes_nothing_more():
    once = with_numbers(TEXT, "| 1 |\n")
    assert with_numbers(once, "| 1 |\n") == once


@pytest.mark.parametrize("marker", ["<!-- numbers:", "<!-- end of numbers -->"])
def test_text_without_its_markers_is_an_error(marker):
    with pytest.raises(ValueError, match="substring not found"):
        with_numbers(TEXT.replace(marker, ""), "new")


def test_numbers_come_from_the_files(results):
    text = numbers()
    for line in (
        "| 96x64 stretch | 67.9 | 51.2 (3 classes) | 90.1 | 12 |",
        "| 64x64 stretch | 67.9 | 51.2 (3 classes) | 90.1 | 10 |",
        "| fp32 | openvino | 13.6 | 80.53 | 0.00 | 100.00 | 25 |",
        "| int8 | openvino | 3.7 | 80.00 | 0.53 | 99.60 | 25 |",
    ):
        assert line in text.splitlines()
    assert "2 threads of a machine" in text
    assert "mean over cat, dog: " in text
    assert "the 302 pictures" in text
    assert "**34x faster**" in text
    assert "(1.9 against 67 ms, one thread), pixels that differ: 0." in text
    assert "(537 MB of weights) at 512x512 took 42 s and 2.34 GB of memory, and 0 of 1,048,576 compared labels" in text


def test_classes_under_30_percent_are_named_worst_first(results):
    sentence = "**Weak classes**, with an IoU under 30% at 384x384 stretch in FP32: bus 0.0%, chair 5.1%, sofa 29.9%."
    lines = numbers().splitlines()
    assert lines[lines.index(sentence) - 1] == lines[lines.index(sentence) + 1] == ""


def test_other_ways_stand_in_the_order_of_their_times(results):
    lines = [
        line for line in numbers().splitlines() if line.startswith(("| ours |", "| by hand |", "| slow |", "| gone"))
    ]
    assert lines == [
        "| ours | 5.6 | 1 | 80.4 |",
        "| by hand | 28.4 | 5.1 (5.0 to 5.2) | 80.4 |",
        "| slow | 7029.0 | 1152 (1065 to 1320) | not scored |",
    ]


def test_latency_is_one_sentence(results):
    assert "480x360 frames: decoded, segmented and painted in 10.3 ms (p99 12.6), 95 frames per second" in numbers()


def test_without_weak_classes_none_are_named(results):
    rows = [row | {"iou": {"cat": 0.9, "cow": 0.3}} for row in (ACCURACY_ROW, ACCURACY_ROW | INT8_ROW)]
    (results / "accuracy.json").write_text(json.dumps(ACCURACY | {"rows": rows}), encoding="utf-8")
    assert "Weak" not in numbers()


def test_numbers_stand_apart_from_the_markers(results):
    """Markdown needs an empty line before a table and after it."""
    assert numbers().startswith("\n")
    assert numbers().endswith("\n\n")


def test_check_tells_by_its_exit_code_whether_the_readme_is_up_to_date(results, tmp_path, monkeypatch):
    info = readme_numbers.read_info(readme_numbers.WEIGHTS_FOLDER / "fcn8s-lite0-voc.safetensors")
    shipped = ROW | {"size": f"{info.size[1]}x{info.size[0]} {info.fit}"}
    (results / "sizes.json").write_text(json.dumps(SIZES | {"rows": [ROW, shipped]}), encoding="utf-8")
    monkeypatch.setattr(readme_numbers, "ROOT", tmp_path)
    monkeypatch.setattr(readme_numbers, "CARD", tmp_path / "card.md")
    for name in ("README.md", "card.md"):
        (tmp_path / name).write_text(TEXT, encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["readme_numbers.py", "--check"])
    assert readme_numbers.main() == 3
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == TEXT
    monkeypatch.setattr("sys.argv", ["readme_numbers.py"])
    assert readme_numbers.main() == 0
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == with_numbers(TEXT, numbers())
    card = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert "| cow | 30.0 |" in card.splitlines()
    assert "mIoU-7 67.9% over cat, dog; 51.2% over all 3 classes" in card
    monkeypatch.setattr("sys.argv", ["readme_numbers.py", "--check"])
    assert readme_numbers.main() == 0


def test_committed_readme_shows_the_committed_numbers():
    missing = [name for name in RESULTS if not (readme_numbers.RESULTS / name).is_file()]
    if missing:
        pytest.skip(f"benchmarks/results has no {', '.join(missing)} yet")
    text = README.read_text(encoding="utf-8")
    assert with_numbers(text, numbers()) == text, "run: python benchmarks/readme_numbers.py"
    card = readme_numbers.CARD.read_text(encoding="utf-8")
    assert with_numbers(card, readme_numbers.card_numbers()) == card, "run: python benchmarks/readme_numbers.py"


def test_committed_readme_has_the_markers():
    text = README.read_text(encoding="utf-8")
    assert with_numbers(text, "x") != text
