"""What `from fcnedge.runtime import …` offers is there, documented, and complete."""

from __future__ import annotations

import inspect
from types import ModuleType

import pytest

import fcnedge.runtime as runtime
from fcnedge.runtime import backends, sources, streams

ROOMS = [runtime, backends, sources, streams]
NAMES = [(room, name) for room in ROOMS for name in room.__all__]


def ids(value: object) -> str:
    return value.__name__ if isinstance(value, ModuleType) else str(value)


@pytest.mark.parametrize(("room", "name"), NAMES, ids=ids)
def test_public_name_is_there_and_documented(room: ModuleType, name: str) -> None:
    value = getattr(room, name)
    if inspect.isclass(value) or callable(value):
        own = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__  # not the base class's
        assert own, f"{name} has no docstring"
        first = own.splitlines()[0]
        assert first.endswith((".", ":")), f"{name}: {first}"


@pytest.mark.parametrize(("room", "name"), NAMES, ids=ids)
def test_public_methods_are_documented(room: ModuleType, name: str) -> None:
    value = getattr(room, name)
    if not inspect.isclass(value):
        return
    members = [(member, each) for member, each in vars(value).items() if not member.startswith("_")]
    methods = [
        (member, getattr(each, "fget", None) or getattr(each, "__func__", each))
        for member, each in members
        if callable(each) or isinstance(each, property | classmethod | staticmethod)
    ]
    bare = [member for member, method in methods if not inspect.getdoc(method)]
    assert not bare, f"{name}: {bare}"


@pytest.mark.parametrize("room", ROOMS, ids=ids)
def test_list_of_names_is_complete_and_sorted(room: ModuleType) -> None:
    """What an `__init__` imports from its own modules is what it offers; nothing half-public."""
    imported = {
        name
        for name, value in vars(room).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
    }
    assert imported == set(room.__all__)
    assert len(room.__all__) == len(set(room.__all__))


def test_every_error_is_public() -> None:
    """Who must catch it must be able to name it."""
    from fcnedge.runtime import errors

    kinds = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    assert kinds <= set(runtime.__all__)
