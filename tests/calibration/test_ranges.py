"""ranges.json: what is written is read, and everything that is not exactly right is refused in one sentence."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from fcnedge.calibration.fingerprint import GraphFingerprint, WeightPrint
from fcnedge.calibration.ranges import Ranges, TensorRange, printable_name, read_ranges
from fcnedge.runtime.errors import UserError

GRAPH = GraphFingerprint("a" * 64, {"stem input 1": WeightPrint(0.05, -1.25)})
RANGES = Ranges(
    method="percentile",
    percentile=99.999,
    images=512,
    skipped=("2007_000032",),
    list_sha256="b" * 64,
    preprocessing_sha256="c" * 64,
    graph=GRAPH,
    tensors={
        "stem": TensorRange(-3.5, 7.25, 6.5),
        "dead/Relu:0": TensorRange(0.0, 0.0, 0.0),
        "tiny": TensorRange(-1e-38, 0.0, 1e-39),
    },
    versions={"fcnedge": "0.1.0"},
)
DATA = json.loads(RANGES.to_json())


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "deep" / "ranges.json"
    RANGES.write(path)
    assert read_ranges(path) == RANGES
    assert [file.name for file in path.parent.iterdir()] == ["ranges.json"]


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("2007_000032", "2007_000032"),
        ("Straße 1, été.jpg", "Straße 1, été.jpg"),
        ("a\udcff.jpg", "a\\udcff.jpg"),  # the byte 0xff, as Python reads file names that are not UTF-8
        ("12.30\u202fUhr.png", "12.30\\u202fUhr.png"),  # macOS puts U+202F into names of screenshots
        ("a\nb\t\x1b[31m", "a\\nb\\t\\x1b[31m"),
        ("\U000e0001", "\\U000e0001"),
        ("\udc80" * 255, ("\\udc80" * 255)[:249] + "…" + ("\\udc80" * 255)[-250:]),
    ],
    ids=ascii,
)
def test_any_file_name_can_be_written_and_read(tmp_path, name, written):
    ranges = dataclasses.replace(RANGES, skipped=(printable_name(name),))
    assert ranges.skipped == (written,)
    ranges.write(tmp_path / "ranges.json")
    assert read_ranges(tmp_path / "ranges.json") == ranges


def test_method_without_percentile_is_read():
    data = DATA | {"method": "entropy", "percentile": None}
    assert Ranges.parse(json.dumps(data)).percentile is None


def at(*path: str, value: Any = ...) -> Callable[[dict[str, Any]], None]:
    """Set the field at `path`, or delete it without a value."""

    def spoil(data: dict[str, Any]) -> None:
        for name in path[:-1]:
            data = data[name]
        if value is ...:
            del data[path[-1]]
        else:
            data[path[-1]] = value

    return spoil


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (at("format", value=2), "has format 2, this fcnedge reads format 1"),
        (at("format"), "format must be a whole number from 0 to 1000000000, got nothing"),
        (at("method", value="median"), "method must be minmax or percentile or entropy or mse, got 'median'"),
        (at("method", value=None), "method must be a printable text"),
        (at("percentile", value=0), "percentile must be a number from "),
        (at("percentile", value=100.1), "percentile must be a number from "),
        (at("percentile", value=None), "percentile must be a number from "),
        (at("method", value="minmax"), "percentile must be null for the method minmax, got 99.999"),
        (at("images", value=0), "images must be a whole number from 1 "),
        (at("images", value=True), "images must be a whole number from 1 "),
        (at("images", value=512.0), "images must be a whole number from 1 "),
        (at("skipped", value="x"), "skipped must be a list of printable texts"),
        (at("skipped", value=["a\nb"]), "skipped must be a list of printable texts"),
        (at("list_sha256", value="b" * 63), "list_sha256 must be 64 hexadecimal digits"),
        (at("preprocessing_sha256"), "preprocessing_sha256 must be 64 hexadecimal digits, got nothing"),
        (at("graph", value=[]), "graph must be an object"),
        (at("graph", "structure", value="A" * 64), "graph: structure must be 64 hexadecimal digits"),
        (at("graph", "weights", value={}), "graph: weights is empty"),
        (
            at("graph", "weights", "stem input 1", "magnitude", value=-1),
            "stem input 1: magnitude must be a number from",
        ),
        (at("graph", "weights", "stem input 1", "projection", value="1"), "stem input 1: projection must be a number"),
        (at("tensors", value={}), "tensors is empty"),
        (at("tensors", "stem", value=3), "tensors: stem must be an object, got 3"),
        (at("tensors", "a\nb", value={}), r"tensors: 'a\nb' is not a tensor's name"),
        (at("tensors", "stem", "minimum"), "tensors: stem: minimum must be a number from"),
        (at("tensors", "stem", "minimum", value=8), "tensors: stem: maximum must be at least the minimum 8, got 7.25"),
        (at("tensors", "stem", "maximum", value=True), "tensors: stem: maximum must be a number from"),
        (at("tensors", "stem", "threshold", value=float("nan")), "tensors: stem: threshold must be a number from 0 to"),
        (at("tensors", "stem", "threshold", value=float("inf")), "tensors: stem: threshold must be a number from 0 to"),
        (at("tensors", "stem", "threshold", value=10**400), "tensors: stem: threshold must be a number from 0 to"),
        (at("tensors", "stem", "threshold", value=-1), "tensors: stem: threshold must be a number from 0 to"),
        (
            at("tensors", "stem", "threshold", value=0),
            "stem: threshold must be positive, or 0 with minimum and maximum",
        ),
        (at("tensors", "dead/Relu:0", "threshold", value=1), "threshold must be positive, or 0 with minimum and max"),
        (at("versions", value={"numpy": 2}), "versions: numpy must be a printable text"),
        (at("versions"), "versions must be an object, got nothing"),
        (at("versions", value={"\x1b[2J": "1"}), r"versions: '\x1b[2J' is not a package name"),
        (at("versions", value={"x" * 501: "1"}), "is not a package name"),
    ],
)
def test_wrong_field_is_refused_by_its_name(spoil, complaint):
    data = copy.deepcopy(DATA)
    spoil(data)
    with pytest.raises(UserError) as caught:
        Ranges.parse(json.dumps(data), "my.json")
    assert complaint in str(caught.value)
    assert str(caught.value).startswith("my.json")
    assert str(caught.value).endswith("; collect the ranges again with fcn-calibrate ranges.")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "\xff", "[" * 100_000, '{"format": 1, "format": 1}'])
def test_other_text_is_refused(text):
    with pytest.raises(UserError, match=r"^ranges\.json (is not valid JSON \(|must be a JSON object)"):
        Ranges.parse(text)


def test_bytes_that_are_not_utf8_are_refused():
    with pytest.raises(UserError, match=r"is not valid JSON"):
        Ranges.parse(b"\x80\x81")


def test_every_cut_of_the_file_is_refused():
    text = RANGES.to_json().rstrip()
    for length in range(len(text)):
        with pytest.raises(UserError):
            Ranges.parse(text[:length])


def test_missing_file_says_how_to_get_one(tmp_path):
    with pytest.raises(UserError, match=r"there are no ranges at .*gone\.json; collect them with fcn-calibrate ranges"):
        read_ranges(tmp_path / "gone.json")


def test_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\); check its permissions"):
        read_ranges(tmp_path)
    with pytest.raises(UserError, match=r"cannot be written \(Is a directory\)"):
        RANGES.write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_ranges_fit_their_own_graph():
    RANGES.check(GraphFingerprint("a" * 64, {"stem input 1": WeightPrint(0.05 * (1 + 5e-4), -1.2505)}))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (GraphFingerprint("d" * 64, GRAPH.weights), "its structure differs (layers, names or sizes)"),
        (GraphFingerprint("a" * 64, {"stem input 1": WeightPrint(0.0502, -1.25)}), "first 'stem input 1'"),
        (GraphFingerprint("a" * 64, {"stem input 1": WeightPrint(0.05, -1.252)}), "first 'stem input 1'"),
        (GraphFingerprint("a" * 64, {}), "its layers differ, 'stem input 1' became nothing"),
    ],
)
def test_ranges_of_another_graph_are_refused_by_what_differs(other, words):
    with pytest.raises(UserError) as caught:
        RANGES.check(other)
    assert str(caught.value).startswith("these ranges were collected on another graph: ")
    assert words in str(caught.value)
    assert str(caught.value).endswith("; collect the ranges again with fcn-calibrate ranges.")
