"""A few of many, always the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

_Item = TypeVar("_Item")


def evenly_spaced(items: Sequence[_Item], count: int) -> list[_Item]:
    """Choose `count` of `items`, evenly spaced from the first on; all of them where there are no more."""
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]
