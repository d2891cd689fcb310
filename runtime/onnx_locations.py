"""Files that an ONNX graph asks to be read beside itself: found without onnx, before a backend opens the graph.

A tensor may keep its numbers in another file and name it (`external_data`, key `location`). Backends follow that name:
ONNX Runtime 1.20 follows `..`, absolute paths and links out of the folder, and dies of `*/_ORT_MEM_ADDR_/*`, which it
takes for an address in memory; 1.32 still reads any file of the folder. So a bundle's graphs may name only files that
model.json lists, which `Bundle.load` has verified.

The walk is as strict as protobuf itself is lenient: what is not plainly a ModelProto is refused, so that no backend can
see a location that was not seen here. Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto;
encoding: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

# Message → field number → message, for every way from the model down to a location.
_INSIDE = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
}


def external_locations(path: Path) -> set[str]:
    """Every location that the graph in `path` names, anywhere in it. Raises ValueError for what is no ONNX file."""
    found: set[str] = set()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        pending = [("Model", 0, len(data))]
        while pending:
            message, start, end = pending.pop()
            if message == "Entry":
                found |= _locations(data, start, end)
                continue
            inside, fields = _INSIDE[message], _fields(data, start, end)
            pending += [(inside[number], begin, stop) for number, begin, stop in fields if number in inside]
    return found


def _locations(data: mmap.mmap, start: int, end: int) -> set[str]:
    """The values of one key-value pair if its key is `location`. A field that comes twice counts both times."""
    texts = [(number, data[begin:stop]) for number, begin, stop in _fields(data, start, end)]
    return {text.decode() for number, text in texts if number == 2 and (1, b"location") in texts}  # 1: key, 2: value


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, start, end) of each length-delimited field of the message from `start` to `end`; others are skipped."""
    at = start
    while at < end:
        tag, at = _varint(data, at, end)
        begin = at
        wire_type = tag & 7
        if wire_type == 0:
            _, at = _varint(data, at, end)
        elif wire_type == 2:
            length, begin = _varint(data, at, end)
            at = begin + length
        else:
            at += {1: 8, 5: 4}.get(wire_type, 0)
        if wire_type not in (0, 1, 2, 5) or not 8 <= tag < 1 << 32 or at > end:
            raise ValueError(f"no protobuf field at byte {begin}")
        if wire_type == 2:
            yield tag >> 3, begin, at


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"no protobuf number at byte {at}")
