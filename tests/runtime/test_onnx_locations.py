"""The walk through an ONNX file finds every external tensor that onnx's own classes can hold, and refuses the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from fcnedge.runtime.onnx_locations import external_locations


def routes_to_tensors() -> Iterator[tuple[str, ...]]:
    """Every chain of fields from ModelProto to a TensorProto, each message entered once at most per chain."""
    pending: list[tuple[Any, tuple[str, ...], frozenset[str]]] = [(onnx.ModelProto.DESCRIPTOR, (), frozenset())]
    while pending:
        message, route, seen = pending.pop()
        if message.name == "TensorProto":
            yield route
            continue
        inner = [field for field in message.fields if field.message_type is not None and message.name not in seen]
        pending += [(field.message_type, (*route, field.name), seen | {message.name}) for field in inner]


ROUTES = sorted(routes_to_tensors())


def put(message: Any, route: tuple[str, ...], location: str) -> None:
    for name in route:
        inner = getattr(message, name)
        message = inner.add() if hasattr(inner, "add") else inner
    external(message, location)


def external(tensor: TensorProto, location: str) -> TensorProto:
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=location)
    return tensor


def found(path: Path, data: bytes) -> set[str]:
    path.write_bytes(data)
    return external_locations(path)


def test_routes_are_those_that_are_known_to_exist() -> None:
    assert ("graph", "initializer") in ROUTES
    assert ("graph", "node", "attribute", "t") in ROUTES
    assert ("functions", "node", "attribute", "tensors") in ROUTES
    assert ("graph", "sparse_initializer", "values") in ROUTES
    assert ("training_info", "algorithm", "initializer") in ROUTES


@pytest.mark.parametrize("route", ROUTES, ids=".".join)
def test_location_is_found_on_every_route(tmp_path: Path, route: tuple[str, ...]) -> None:
    model = onnx.ModelProto()
    put(model, route, "weights.bin")
    assert found(tmp_path / "m.onnx", model.SerializeToString()) == {"weights.bin"}


def test_location_is_found_under_subgraphs_of_subgraphs(tmp_path: Path) -> None:
    graph = helper.make_graph([], "innermost", [], [], [external(TensorProto(name="w"), "deep.bin")])
    for _ in range(20):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=graph)], "g", [], [])
    model = helper.make_model(graph)
    model.graph.initializer.append(external(TensorProto(), "flat.bin"))
    assert found(tmp_path / "m.onnx", model.SerializeToString()) == {"deep.bin", "flat.bin"}


def test_location_counts_whatever_data_location_says(tmp_path: Path) -> None:
    """Readers differ in which of the two they believe."""
    model = onnx.ModelProto()
    model.graph.initializer.append(external(TensorProto(data_location=TensorProto.DEFAULT), "x"))
    assert found(tmp_path / "m.onnx", model.SerializeToString()) == {"x"}


def test_fields_of_every_encoding_are_stepped_over(tmp_path: Path) -> None:
    """Numbers of four bytes (an attribute's float), of eight (a double that is not packed) and of varying length."""
    model = onnx.ModelProto(ir_version=1 << 40)
    node = model.graph.node.add()
    attribute = node.attribute.add(name="a", f=1.5, i=-1, type=onnx.AttributeProto.TENSOR)
    external(attribute.t, "after.bin")
    entry = onnx.StringStringEntryProto(key="location", value="x").SerializeToString()
    double = bytes([10 << 3 | 1]) + bytes(range(0xF8, 0x100))
    data = model.SerializeToString() + nested(7, nested(5, double + nested(13, entry)))
    assert onnx.ModelProto.FromString(data).graph.initializer[0].double_data
    assert found(tmp_path / "m.onnx", data) == {"after.bin", "x"}


def test_other_keys_and_plain_strings_are_no_locations(tmp_path: Path) -> None:
    model = onnx.ModelProto(producer_name="location")
    model.metadata_props.add(key="location", value="../metadata")
    tensor = model.graph.initializer.add(string_data=[b"location"], raw_data=b"\x0a\x08location\x12\x01x")
    tensor.external_data.add(key="checksum", value="../checksum")
    assert found(tmp_path / "m.onnx", model.SerializeToString()) == set()


def test_location_is_found_in_a_graph_that_comes_in_two_pieces(tmp_path: Path) -> None:
    """Protobuf merges a field that occurs twice; the first piece hides nothing, nor does the second."""
    first, second = onnx.ModelProto(), onnx.ModelProto()
    put(first, ("graph", "initializer"), "first")
    put(second, ("graph", "initializer"), "second")
    data = first.SerializeToString() + second.SerializeToString()
    assert len(onnx.ModelProto.FromString(data).graph.initializer) == 2
    assert found(tmp_path / "m.onnx", data) == {"first", "second"}


def test_key_and_value_given_twice_both_count(tmp_path: Path) -> None:
    entry = b"\x0a\x08location\x12\x01a\x12\x01b\x0a\x01x"  # protobuf takes the last: key x, value b
    assert found(tmp_path / "m.onnx", nested(7, nested(5, nested(13, entry)))) == {"a", "b"}


def test_lengths_in_more_bytes_than_needed_hide_nothing(tmp_path: Path) -> None:
    entry = onnx.StringStringEntryProto(key="location", value="x").SerializeToString()
    padded = bytes([13 << 3 | 2, 0x80 | len(entry), 0x80, 0x00]) + entry
    data = nested(7, nested(5, padded))
    assert onnx.ModelProto.FromString(data).graph.initializer[0].external_data[0].value == "x"
    assert found(tmp_path / "m.onnx", data) == {"x"}


def nested(number: int, value: bytes) -> bytes:
    assert number < 16
    assert len(value) < 128
    return bytes([number << 3 | 2, len(value)]) + value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",  # field 0
        b"\x3b\x3c",  # a group, which ONNX has none of
        b"\x3e",  # wire type 6
        b"\x3a\x05abc",  # longer than the file
        b"\x3a",  # no length
        b"\xff" * 11,  # a number without end
        b"\x80\x80\x80\x80\x10\x00",  # a field number beyond 32 bits, which some readers would cut
        b"\x0d\x00\x00",  # four bytes promised
        nested(7, nested(5, nested(13, b"\x0a\x08location\x12\x01\xff"))),  # not UTF-8
    ],
)
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ValueError, match=r"byte|empty"):
        found(tmp_path / "m.onnx", data)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "m.onnx"


SMALL = onnx.ModelProto(ir_version=8, producer_name="p")
put(SMALL, ("graph", "node", "attribute", "t"), "w.bin")
put(SMALL, ("graph", "initializer"), "v.bin")


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_damaged_file_hides_no_location_that_onnx_sees(scratch: Path, data: st.DataObject) -> None:
    """Whatever onnx can still parse out of damaged bytes was seen here too, or the file was refused."""
    original = SMALL.SerializeToString()
    start = data.draw(st.integers(0, len(original)))
    end = data.draw(st.integers(start, min(len(original), start + 3)))
    damaged = original[:start] + data.draw(st.binary(max_size=3)) + original[end:]
    try:
        ours = found(scratch, damaged)
    except ValueError:
        return
    try:
        model = onnx.ModelProto.FromString(damaged)
    except Exception:  # protobuf's own type, another in each of its implementations
        return
    tensors = [*model.graph.initializer, *(each.t for node in model.graph.node for each in node.attribute)]
    theirs = {pair.value for tensor in tensors for pair in tensor.external_data if pair.key == "location"}
    assert theirs <= ours
