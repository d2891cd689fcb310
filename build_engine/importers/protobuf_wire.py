"""Protocol buffers as bytes on disk: fields by number, without the message definitions of whoever wrote them.

Source: Protocol Buffers, "Encoding". A message is a row of (tag, value), tag = number · 8 + wire type; numbers are
varints or 4 or 8 bytes, little-endian, and everything else (text, messages, packed numbers) is bytes with a length.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5


class WireError(ValueError):
    """The bytes are no message, or end too early."""


class Message:
    """A message's fields, found but not decoded: views of `buffer`, which may be a mapped file."""

    def __init__(self, buffer: memoryview) -> None:
        self._fields: dict[int, list[memoryview]] = {}
        for number, value in _fields(buffer):
            self._fields.setdefault(number, []).append(value)

    def has(self, *numbers: int) -> bool:
        """Whether any of these fields is there; without numbers: any at all."""
        return any(number in self._fields for number in numbers or self._fields)

    def messages(self, number: int) -> list[Message]:
        """A repeated sub-message."""
        return [Message(value) for value in self._fields.get(number, [])]

    def texts(self, number: int) -> list[str]:
        """A repeated string."""
        return [bytes(value).decode("utf-8", "replace") for value in self._fields.get(number, [])]

    def integers(self, number: int) -> list[int]:
        """A repeated whole number, packed or not."""
        numbers: list[int] = []
        for value in self._fields.get(number, []):
            place = 0
            while place < len(value):
                one, place = _varint(value, place)
                numbers.append(one)
        return numbers

    def integer(self, number: int, default: int) -> int:
        """A whole number, an enumeration or a truth value; the last counts."""
        return (self.integers(number) or [default])[-1]

    def floats(self, number: int, dtype: str = "<f4") -> np.ndarray:
        """Repeated floats (or doubles, "<f8"), packed or not; packed ones are a view, in general unaligned."""
        try:
            parts = [np.frombuffer(value, dtype) for value in self._fields.get(number, [])]
        except ValueError as error:
            raise WireError(f"field {number} holds no whole numbers of floats") from error
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype), *parts])


def _fields(buffer: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(number, bytes of the value) one by one; a varint's bytes are as they stand."""
    place = 0
    while place < len(buffer):
        tag, start = _varint(buffer, place)
        kind = tag & 7
        if kind == _VARINT:
            place = _varint(buffer, start)[1]
        elif kind == _BYTES:
            length, start = _varint(buffer, start)
            place = start + length
        elif kind in (_FOUR_BYTES, _EIGHT_BYTES):
            place = start + (4 if kind == _FOUR_BYTES else 8)
        else:
            raise WireError(f"field {tag >> 3} has the unknown wire type {kind}")
        if tag < 8 or place > len(buffer):
            raise WireError(f"field {tag >> 3} has {place - start} bytes, {len(buffer) - start} are left")
        yield tag >> 3, buffer[start:place]


def _varint(buffer: memoryview, place: int) -> tuple[int, int]:
    """(number, place after it)."""
    number = 0
    for index, byte in enumerate(buffer[place : place + 10]):
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return number, place + index + 1
    raise WireError("it ends inside a number")
