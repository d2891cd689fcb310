"""model.json: what is exactly right comes back equal, everything else is one sentence and never another exception."""

from __future__ import annotations

import bisect
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fcnedge.runtime.bundle import Bundle
from fcnedge.runtime.errors import BundleError
from fcnedge.runtime.manifest import MAX_JSON_BYTES, FileSpec, HeadSpec, InputSpec, Manifest
from fcnedge.runtime.preprocessing import Preprocessing

HASH = "0123456789abcdef" * 4
MANIFEST = Manifest(
    name="pavement",
    arch="fcn8s-lite0",
    classes=("background", "Straße", "道"),
    palette=((0, 0, 0), (128, 64, 255), (1, 2, 3)),
    input=InputSpec(320, 512, "letterbox"),
    preprocessing=Preprocessing("rgb", (127.0, 127.5, 0.0), (0.0078125, 1.0, 2.0)),
    head=HeadSpec("bilinear", 8, 16, (-4.0, 0.5)),
    files={"model.fp32.onnx": FileSpec(HASH, 11749736, "fp32"), "engines/a.plan": FileSpec(HASH, 0, None)},
    versions={"fcnedge": "0.1.0", "python": "3.11.7"},
)
VALID = json.loads(MANIFEST.to_json())
Place = tuple[str | int, ...]


def paths(data: Any, here: Place = ()) -> Iterator[Place]:
    """Every place in a JSON document, the root first."""
    yield here
    children = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in children:
        yield from paths(value, (*here, key))


def changed(path: Place, value: Any) -> Any:
    """The valid document with `value` at `path`."""
    if not path:
        return value
    document = copy.deepcopy(VALID)
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return document


def without(path: Place) -> Any:
    document = copy.deepcopy(VALID)
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    del parent[path[-1]]
    return document


def refusal(text: str | bytes) -> str:
    with pytest.raises(BundleError) as caught:
        Manifest.parse(text)
    return one_sentence(caught.value)


def one_sentence(error: BundleError) -> str:
    message = str(error)
    assert message.isprintable(), ascii(message)  # neither line ends nor any other control character, no surrogates
    assert 20 < len(message) < 700
    assert message.endswith(".")
    return message


def test_what_is_written_is_read_back_equal() -> None:
    assert Manifest.parse(MANIFEST.to_json()) == MANIFEST
    assert Manifest.parse(MANIFEST.to_json().encode()) == MANIFEST


def test_precisions_are_those_of_graphs_most_exact_first() -> None:
    files = {
        "b.onnx": FileSpec(HASH, 1, "int8"),
        "a.onnx": FileSpec(HASH, 1, "fp32"),
        "engines/x.plan": FileSpec(HASH, 1, "fp16"),
        "report.json": FileSpec(HASH, 1),
    }
    document = json.loads(MANIFEST.to_json()) | {"files": {name: vars(spec) for name, spec in files.items()}}
    assert Manifest.parse(json.dumps(document)).precisions == ("fp32", "int8")


OPTIONAL = ("precision", "target")
REQUIRED = [path for path in paths(VALID) if path and isinstance(path[-1], str)]
REQUIRED = [path for path in REQUIRED if path[-1] not in (*OPTIONAL, "points")]
REQUIRED = [path for path in REQUIRED if path[0] not in ("files", "versions") or len(path) == 1 or len(path) == 3]


@pytest.mark.parametrize("path", REQUIRED, ids=lambda path: ".".join(map(str, path)))
def test_missing_field_is_named(path: Place) -> None:
    message = refusal(json.dumps(without(path)))
    assert f": {path[-1]} must be " in message
    assert "got nothing" in message


@pytest.mark.parametrize("field", OPTIONAL)
def test_precision_and_target_may_be_left_out(field: str) -> None:
    assert Manifest.parse(json.dumps(without(("files", "engines/a.plan", field)))) == MANIFEST


def test_bundles_of_before_say_nothing_of_score_points() -> None:
    assert Manifest.parse(json.dumps(without(("head", "points")))) == MANIFEST
    assert MANIFEST.score_points == (40, 64)


def test_score_points_may_differ_from_the_sides_by_the_stride() -> None:
    manifest = Manifest.parse(json.dumps(changed(("head", "points"), [43, 66])))
    assert manifest.score_points == manifest.head.points == (43, 66)


WRONG: dict[str, tuple[Place, list[Any]]] = {
    "format": (("format",), [None, "1", 1.0, True, -1, [], 10**10]),
    "name": (("name",), [None, 3, "", "x" * 201, "a\nb", "a\x1b[2J", "a\x7f", "\ud800", "\u202e", ["x"], {}]),
    "arch": (("arch",), [None, False, "", "\t", "\x00"]),
    "classes": (("classes",), [None, "ab", [], ["a"], ["a", ""], ["a", 3], ["a", "b\n"], ["c"] * 256, {"a": 1}]),
    "palette": (
        ("palette",),
        [None, [], VALID["palette"][:2], [[0, 0, 0]] * 4, [[0, 0, 0], [0, 0, 0], [0, 0]], ["abc"] * 3, [{"0": 1}] * 3],
    ),
    "palette colours": (("palette",), [[[0, 0, bad]] * 3 for bad in (256, -1, 1.0, True, None, "0", [0])]),
    "points": (("head", "points"), [[], [1], [1, 2, 3], [0, 1], [1, 16385], [1.0, 2], [True, 2], "ab", 3, {}]),
    "input": (("input",), [None, [], "512x320", 3]),
    "height": (("input", "height"), [None, 0, -8, 16385, 320.0, "320", True, 10**4000]),
    "width": (("input", "width"), [None, 0, -8, 16385, 512.0, "512", False, [512]]),
    "fit": (("input", "fit"), [None, "crop", "STRETCH", ["stretch"], {"stretch": 1}, 0]),
    "preprocessing": (("preprocessing",), [None, [], "rgb"]),
    "channel_order": (("preprocessing", "channel_order"), [None, "RGB", "grb", ["rgb"]]),
    "mean": (("preprocessing", "mean"), [None, [], [1, 2], [1, 2, 3, 4], [1, 2, "3"], [1, 2, True], [1, 2, 1e7], 5]),
    "scale": (("preprocessing", "scale"), [None, [1, 2], [1, 2, None], [1, 2, [3]], [1, 2, -1e7], [1, 2, 10**4000]]),
    "head": (("head",), [None, [], "bilinear"]),
    "kind": (("head", "kind"), [None, "nearest", "Bilinear", ["labels"]]),
    "stride": (("head", "stride"), [None, 0, -8, 1025, 8.0, "8", True]),
    "kernel": (("head", "kernel"), [None, 0, -16, 2049, 16.0, "16", True]),
    "offset": (("head", "offset"), [None, [], [0], [0, 0, 0], [0, 4097], [0, "0"], [0, None], 0]),
    "files": (("files",), [None, [], "model.onnx"]),
    "model.fp32.onnx": (("files", "model.fp32.onnx"), [None, [], HASH]),
    "sha256": (("files", "model.fp32.onnx", "sha256"), [None, "", HASH[:-1], HASH + "0", HASH.upper(), "g" * 64, 5]),
    "bytes": (("files", "model.fp32.onnx", "bytes"), [None, -1, 1.0, "1", True, (1 << 50) + 1]),
    "precision": (("files", "model.fp32.onnx", "precision"), ["fp64", "FP32", "", 32, [], {}]),
    "target": (("files", "model.fp32.onnx", "target"), ["cuda", "VNNI", "", 1, [], {}]),
    "versions": (("versions",), [None, [], "0.1.0"]),
    "python": (("versions", "python"), [None, 3, "", "3\n11", ["3"]]),
}


@pytest.mark.parametrize(
    ("field", "path", "value"),
    [(field, path, value) for field, (path, values) in WRONG.items() for value in values],
    ids=lambda value: ascii(value)[:30],
)
def test_wrong_value_is_refused_by_name(field: str, path: Place, value: Any) -> None:
    assert f": {field.split()[0]} must be " in refusal(json.dumps(changed(path, value)))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize("field", ["mean", "scale", "offset"])
def test_numbers_that_are_none_are_refused(field: str, number: str) -> None:
    """Python's json reads NaN and Infinity, which JSON does not have, and takes 1e999 for infinity."""
    group, count = ("head", 2) if field == "offset" else ("preprocessing", 3)
    text = json.dumps(changed((group, field), ["HERE"] * count)).replace('"HERE"', number)
    assert f": {field} must be {count} finite numbers" in refusal(text)


@pytest.mark.parametrize("version", [0, 1, 10**9])
def test_other_format_version_says_what_to_do(version: int) -> None:
    message = refusal(json.dumps(changed(("format",), version)))
    assert f"the bundle has format {version}, this fcnedge reads format 2" in message
    assert "rebuild it with fcn-build or install" in message


@pytest.mark.parametrize("root", [None, True, 0, 1.5, "text", [], [VALID]])
def test_root_must_be_an_object(root: Any) -> None:
    assert "model.json must be a JSON object, got " in refusal(json.dumps(root))


@pytest.mark.parametrize("place", ["", '"input": ', '"files": '])
def test_name_that_occurs_twice_is_refused(place: str) -> None:
    """JSON leaves open which of the two counts; a hash that one program checks and another does not is no check."""
    group = VALID if not place else VALID[place.split('"')[1]]
    name = next(iter(group))
    text = MANIFEST.to_json().replace(place + "{", place + "{" + f"{json.dumps(name)}: {json.dumps(group[name])},", 1)
    assert json.loads(text) == VALID
    assert f"'{name}' occurs twice" in refusal(text)


NAMES_OUTSIDE = [
    "../model.onnx",
    "..",
    ".",
    "./model.onnx",
    "a/../b",
    "a/..",
    "/etc/passwd",
    "//host/share",
    "a//b",
    "a/",
    "a/b/c",
    "a\\b",
    "..\\b",
    "C:\\x",
    "C:x",
    "\\\\host\\share",
    "",
    " ",
    "a b",
    "a\n",
    "a\x00.onnx",
    ".hidden",
    "-rf",
    "ａ.onnx",
    "\ud800",
    "a" * 129,
]


@pytest.mark.parametrize("name", NAMES_OUTSIDE, ids=ascii)
def test_file_name_that_is_not_plainly_inside_is_refused(name: str) -> None:
    document = changed(("files",), {name: VALID["files"]["model.fp32.onnx"]})
    assert "is not a file name inside the bundle" in refusal(json.dumps(document))


@pytest.mark.parametrize("name", ["", "a\n", "\x1b", "\ud800", "x" * 201])
def test_package_name_that_is_none_is_refused(name: str) -> None:
    assert "is not a package name" in refusal(json.dumps(changed(("versions",), {name: "1"})))


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"name":[', '{"format":1,"name":{"a":'])
def test_nesting_without_end_is_refused(opening: str) -> None:
    assert "is not valid JSON" in refusal(opening * 100_000)


def readable(depth: int) -> bool:
    try:
        json.loads("[" * depth + "]" * depth)
    except RecursionError:
        return False
    return True


@pytest.mark.parametrize("field", ["name", "palette", "files"])
def test_nesting_that_json_still_reads_is_refused(field: str) -> None:
    """Just shallow enough to be read, too deep to be shown: the message must not fail where the parser did not."""
    deepest = bisect.bisect_left(range(200_000), True, key=lambda depth: not readable(depth))
    text = json.dumps(changed((field,), "HERE"))
    for depth in [10, 100, *range(deepest - 20, deepest + 2)]:
        refusal(text.replace('"HERE"', "[" * depth + "]" * depth))


def test_integer_of_a_million_digits_is_refused() -> None:
    refusal(json.dumps(changed(("head", "stride"), "HERE")).replace('"HERE"', "9" * 1_000_000))


def test_text_beyond_the_size_limit_is_refused_unread() -> None:
    assert "more than any model needs" in refusal(b" " * (MAX_JSON_BYTES + 1))


@pytest.mark.parametrize(
    "text",
    [b"", b"\xff\xfe\x00", b"{", b"\x80", MANIFEST.to_json().encode() + b"x", b'{"name": "\n"}', b"\xef\xbb\xbf"],
)
def test_what_is_no_json_is_refused(text: bytes) -> None:
    assert "model.json is not valid JSON" in refusal(text)


# Fuzzing: whatever the bytes, BundleError or a manifest that is exactly right.

TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from([*NAMES_OUTSIDE, "a.onnx", "fp32", "labels", "letterbox", HASH, "\x00", "\ud800", "\u202e", "\n"]),
)
NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([0, 1, 2, 255, 256, 1 << 64, 10**400, float("nan"), float("inf"), 1e308]),
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)
FUZZ = settings(max_examples=150, deadline=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder that holds what VALID lists, but with other hashes."""
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "engines").mkdir()
    (folder / "engines" / "a.plan").write_bytes(b"")
    (folder / "model.fp32.onnx").write_bytes(b"x")
    return folder


def check(folder: Path, text: str | bytes) -> None:
    """BundleError from both doors, or a manifest that survives being written and read again."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    (folder / "model.json").write_bytes(data)
    try:
        loaded: Bundle | None = Bundle.load(folder)
    except BundleError as error:
        one_sentence(error)
        loaded = None
    try:
        manifest = Manifest.parse(data)
    except BundleError as error:
        one_sentence(error)
        assert loaded is None
        return
    assert Manifest.parse(manifest.to_json().encode()) == manifest
    assert len(manifest.palette) == len(manifest.classes)
    for name in manifest.files:
        assert (folder / name).resolve().is_relative_to(folder.resolve())
        assert not set(name) & set("\\:\0")


@FUZZ
@given(value=JSON)
def test_arbitrary_json_is_refused_or_read(folder: Path, value: Any) -> None:
    check(folder, json.dumps(value))


@st.composite
def mutations(draw: st.DrawFn) -> Any:
    """The valid document with one value replaced, one entry deleted or one added, anywhere."""
    document = copy.deepcopy(VALID)
    path = draw(st.sampled_from(list(paths(VALID))))
    action = draw(st.sampled_from(["replace", "delete", "insert"]))
    if action == "replace" or not path:
        return changed(path, draw(JSON))
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    if action == "delete":
        del parent[path[-1]]
    elif isinstance(parent, list):
        parent.insert(draw(st.integers(0, len(parent))), draw(JSON))
    else:
        parent[draw(TEXTS)] = draw(JSON)
    return document


@settings(FUZZ, max_examples=500)
@given(document=mutations())
@example(document=changed(("files",), {}))
def test_one_mutation_is_refused_or_read(folder: Path, document: Any) -> None:
    check(folder, json.dumps(document))


@FUZZ
@given(data=st.binary(max_size=200))
def test_random_bytes_are_refused(folder: Path, data: bytes) -> None:
    check(folder, data)


@FUZZ
@given(data=st.data())
def test_truncated_or_damaged_file_is_refused_or_read(folder: Path, data: st.DataObject) -> None:
    text = MANIFEST.to_json().encode()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    tail = data.draw(st.sampled_from([b"", text[end:]]))
    check(folder, text[:start] + data.draw(st.binary(max_size=4)) + tail)


def test_every_proper_prefix_is_refused() -> None:
    text = MANIFEST.to_json().rstrip().encode()
    for end in range(len(text)):
        refusal(text[:end])
